// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// MayUse checks that a user may list a folder, and write to it where a guest
// shall: QEMU, which serves it to the guest, can do no more than its user.
// nil stands for this process.
func MayUse(folder *os.File, user *syscall.Credential, write bool) error {
	mode, verb := uint32(unix.R_OK|unix.X_OK), "list"
	if write {
		mode, verb = mode|unix.W_OK, "write to"
	}
	err := as(user, func() error {
		return unix.Faccessat(int(folder.Fd()), "", mode, unix.AT_EMPTY_PATH|unix.AT_EACCESS)
	})
	if errors.Is(err, unix.EACCES) {
		return fmt.Errorf("which may not %s %s: change its owner or mode, or its ACL", verb, folder.Name())
	}
	return err
}

// as does something that only looks at files as another user. It runs on a
// thread of its own, which ends with it.
func as(user *syscall.Credential, do func() error) error {
	if user == nil {
		return do()
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: Go ends the thread
		result <- func() error {
			// Raw: the call for all threads would change this whole process.
			if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
				return fmt.Errorf("leave the groups of root: %w", errno)
			}
			if err := errors.Join(unix.Setfsgid(int(user.Gid)), unix.Setfsuid(int(user.Uid))); err != nil {
				return err
			}
			return do()
		}()
	}()
	return <-result
}
