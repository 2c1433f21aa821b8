// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// sandboxEnv tells this program which part of a sandbox it is.
const sandboxEnv = "UNIKERNEL_E2E_SANDBOX"

// Sandbox runs this program again in process, mount, network and IPC
// namespaces of its own, and returns its exit status; there, it returns inside
// = true at once. What a run counts in there is its own, whatever else runs on
// the machine, and when the program ends, however it ends, the kernel ends all
// that it has started. Only cgroups are shared, so no site is open meanwhile.
func Sandbox(ctx context.Context) (inside bool, status int, err error) {
	switch os.Getenv(sandboxEnv) {
	case "inside":
		return true, 0, nil
	case "init":
		status, err = initSandbox()
		return false, status, err
	}
	if os.Geteuid() != 0 {
		return false, 1, errors.New("a Nomad client and the driver need root: run this as root")
	}
	lock, err := lockSites(ctx, func(told string) { fmt.Println("    " + told) })
	if err != nil {
		return false, 1, err
	}
	defer func() { _ = lock.Close() }()
	runtime.LockOSThread() // Pdeathsig is about the thread
	init := self("init")
	init.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
	}
	err = exitStatus(init.Run(), &status) // not in the return: what it sets would be overwritten
	return false, status, err
}

func self(part string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), sandboxEnv+"="+part)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

// initSandbox is the first process in the namespaces: it furnishes them, starts
// the program, and reaps whatever lost its parent until the program ends.
func initSandbox() (int, error) {
	if err := furnish(); err != nil {
		return 1, fmt.Errorf("making a sandbox: %w", err)
	}
	cmd := self("inside")
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 1, fmt.Errorf("waiting in the sandbox: %w", err)
		case pid == cmd.Process.Pid && status.Signaled():
			return 128 + int(status.Signal()), nil
		case pid == cmd.Process.Pid:
			return status.ExitStatus(), nil
		}
	}
}

// furnish gives the namespaces their own /proc, an empty /run and a loopback.
func furnish() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keeping mounts to itself: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mounting /run: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// exitStatus tells a program's end from a failure to run it.
func exitStatus(err error, status *int) error {
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		*status = ended.ExitCode()
		return nil
	}
	return err
}
