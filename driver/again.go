// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"errors"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/image"
)

// passing is a failed start that need not fail again: Nomad tries again as the
// task's restart block says. It gives up at once on any other.
type passing struct{ error }

// IsRecoverable makes it a Recoverable of Nomad's.
func (passing) IsRecoverable() bool { return true }

func (p passing) Unwrap() error { return p.error }

// shortages are the errors of a node that lacks something for the moment.
var shortages = []syscall.Errno{unix.EMFILE, unix.ENFILE, unix.EAGAIN, unix.ENOMEM, unix.ENOSPC}

// refusal is why a start was refused before it acquired anything: a mistake of
// the job's, or what the node or a registry lacks for the moment.
func refusal(err error) error {
	_, passes := errors.AsType[passing](err)
	if passes || image.Temporary(err) || slices.ContainsFunc(shortages, func(errno syscall.Errno) bool { return errors.Is(err, errno) }) {
		return passing{err}
	}
	return err
}
