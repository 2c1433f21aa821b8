// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ErrNetnsGone is returned where a path does not, or no longer, hold a network namespace.
var ErrNetnsGone = errors.New("no network namespace")

// openNetns opens the network namespace at path and locks it against other
// calls, also of other processes, until it is closed.
func openNetns(path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w at %s", ErrNetnsGone, path)
	}
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", explainPermission(err))
	}
	if err := lockNetns(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// lockNetns locks f, having made sure that it is a namespace: where one was
// unmounted, an empty file remains.
func lockNetns(f *os.File) error {
	var stat unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &stat); err != nil {
		return fmt.Errorf("look at network namespace %s: %w", f.Name(), err)
	}
	if stat.Type != unix.NSFS_MAGIC {
		return fmt.Errorf("%w at %s: it is another kind of file", ErrNetnsGone, f.Name())
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock network namespace %s: %w", f.Name(), err)
	}
	return nil
}

// inNetns calls f in the network namespace ns. What f opens (sockets, taps,
// files in /proc/sys/net) belongs to ns and may outlive the call.
func inNetns(ns *os.File, f func() error) error {
	result := make(chan error)
	go func() {
		// A thread that could not come back stays locked, and so ends with
		// this goroutine: no other code ever runs in the wrong namespace.
		runtime.LockOSThread()
		back, err := enterNetns(ns)
		if err != nil {
			runtime.UnlockOSThread()
			result <- err
			return
		}
		err = f()
		if returned := back(); returned == nil {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

// enterNetns moves the calling thread into ns, and returns the way back.
func enterNetns(ns *os.File) (back func() error, err error) {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open own network namespace: %w", err)
	}
	err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
	if err != nil {
		err = fmt.Errorf("enter network namespace %s: %w", ns.Name(), explainPermission(err))
		return nil, errors.Join(err, home.Close())
	}
	return func() error {
		defer func() { _ = home.Close() }()
		return unix.Setns(int(home.Fd()), unix.CLONE_NEWNET)
	}, nil
}

// explainPermission adds what would help where a privilege is missing.
func explainPermission(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w (bridge mode needs root, or CAP_NET_ADMIN and CAP_SYS_ADMIN; host mode needs neither)", err)
	}
	return err
}
