// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strconv"

	"github.com/containernetworking/plugins/pkg/ns"
	"golang.org/x/sys/unix"
)

// startConfined starts QEMU from a thread that has given up what QEMU must not
// have: a child inherits namespaces, capabilities and no_new_privs from the
// thread that makes it. So nothing runs between this program and QEMU, and
// QEMU's first instruction is confined already.
func startConfined(c Config, cmd *exec.Cmd) error {
	return onOwnThread(func() error {
		if err := enterNetns(c.Netns); err != nil {
			return err
		}
		if err := leaveNamespaces(c, cmd); err != nil {
			return err
		}
		if err := dropPrivileges(); err != nil {
			return err
		}
		if err := HugePages(false); err != nil {
			return err
		}
		if err := keepFiles(); err != nil {
			return err
		}
		return cmd.Start()
	})
}

// onOwnThread calls f on a thread that ends with the call, so that whatever f
// makes of it never meets other code. The program's first thread is not used:
// it cannot end, and /proc/self shows its namespaces.
func onOwnThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			result <- f() // the thread ends with the goroutine that locked it
			return
		}
		result <- onOwnThread(f) // as this thread is locked, by another one
		runtime.UnlockOSThread()
	}()
	return <-result
}

func enterNetns(path string) error {
	if path == "" {
		return nil
	}
	netns, err := ns.GetNS(path)
	if err != nil {
		return fmt.Errorf("opening network namespace %s: %w", path, err)
	}
	defer netns.Close()
	if err := netns.Set(); err != nil {
		return fmt.Errorf("entering network namespace %s: %w", path, err)
	}
	return nil
}

// leaveNamespaces gives the thread an IPC namespace and a view of the file
// system of its own. A program without the right to do so (not root, or root
// in a container that lacks CAP_SYS_ADMIN) starts QEMU without them.
func leaveNamespaces(c Config, cmd *exec.Cmd) error {
	err := unix.Unshare(unix.CLONE_NEWIPC | unix.CLONE_NEWNS)
	if errors.Is(err, unix.EPERM) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("making namespaces for QEMU: %w", err)
	}
	if len(c.ExtraArgs) > 0 {
		return nil // they may name any file
	}
	program, err := narrowView(c.QEMU, c.directory())
	if err != nil {
		return fmt.Errorf("making QEMU's view of the file system: %w", err)
	}
	cmd.Path = program
	return nil
}

// dropPrivileges makes the thread one whose children get no capability by
// starting a program, whoever they run as and whatever the program's file says.
// The thread's own stay: changing the user needs them.
func dropPrivileges() error {
	for capability := uintptr(0); ; capability++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // the last one is behind us
		}
		if errors.Is(err, unix.EPERM) {
			break // not root: then it has none to drop
		}
		if err != nil {
			return fmt.Errorf("dropping capability %d: %w", capability, err)
		}
	}
	if err := dropInheritable(); err != nil {
		return fmt.Errorf("dropping inheritable capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("setting no_new_privs: %w", err)
	}
	return nil
}

// keepFiles keeps this program's open files from QEMU, but for those that are
// handed to it by name. Go's own are so anyway; not those that came from who
// started the agent (a shell, a supervisor), or that a library opened without.
func keepFiles() error {
	err := unix.CloseRange(firstFD, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC)
	if err == nil || !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	entries, err := os.ReadDir("/proc/self/fd") // Linux before 5.11
	if err != nil {
		return fmt.Errorf("listing open files: %w", err)
	}
	for _, entry := range entries {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd >= firstFD {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// dropInheritable also empties the ambient set, which is a part of it.
func dropInheritable() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return err
	}
	for i := range sets {
		sets[i].Inheritable = 0
	}
	return unix.Capset(&header, &sets[0])
}
