// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package probe

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// errShort says that the host lacked something for the moment: how QEMU ended
// then tells nothing of what the host can do.
var errShort = errors.New("the node was short of that at the moment, and is looked at again")

// shortages are the errors of a host that has no descriptor, process, thread or
// memory left for the moment.
var shortages = []syscall.Errno{unix.EMFILE, unix.ENFILE, unix.EAGAIN, unix.ENOMEM}

// shortageWords are how QEMU and its loader tell of them, in small letters. The
// loader knows the words of few errors.
var shortageWords = []string{
	"too many open files", "resource temporarily unavailable", "cannot allocate memory",
	"cannot open shared object file: error 23", "cannot open shared object file: error 24",
	"failed to map segment from shared object",
}

// short tells whether a shortage kept QEMU from starting or from going on. What
// kills a process from outside is a shortage of memory, or somebody.
func (e ending) short() bool {
	if e.signal == unix.SIGKILL && !e.late && !strings.Contains(e.output, internalError) {
		return true
	}
	output := strings.ToLower(e.output)
	return slices.ContainsFunc(shortages, func(errno syscall.Errno) bool { return errors.Is(e.err, errno) }) ||
		slices.ContainsFunc(shortageWords, func(words string) bool { return strings.Contains(output, words) })
}

// orShort adds to an error that a shortage is behind it, where one is.
func (e ending) orShort(err error) error {
	if e.short() {
		return fmt.Errorf("%w (%w)", err, errShort)
	}
	return err
}
