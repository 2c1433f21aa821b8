// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package harness

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// QEMU is a process that runs a guest.
type QEMU struct {
	PID     int
	Started string // as the kernel counts: with the PID, its identity
	Machine string // as the driver names it: allocation, task and invocation
}

// Task is the allocation and the task that it runs for, whichever invocation.
func (q QEMU) Task() string { return q.Machine[:max(0, strings.LastIndexByte(q.Machine, '.'))] }

// Alive tells whether it still runs.
func (q QEMU) Alive() bool { return machineOf(q.PID) == q.Machine && startTime(q.PID) == q.Started }

// Kill ends it as the kernel would.
func (q QEMU) Kill() error {
	if !q.Alive() {
		return syscall.ESRCH
	}
	return syscall.Kill(q.PID, syscall.SIGKILL)
}

// QEMUs lists the QEMUs of unikernel tasks in this PID namespace.
func QEMUs() ([]QEMU, error) {
	pids, err := processes()
	var found []QEMU
	for _, pid := range pids {
		if name := machineOf(pid); name != "" {
			found = append(found, QEMU{PID: pid, Started: startTime(pid), Machine: name})
		}
	}
	return found, err
}

// machineOf is the machine's name in QEMU's command line; empty: no QEMU.
func machineOf(pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !strings.Contains(string(data), "qemu-system-") {
		return ""
	}
	_, after, _ := strings.Cut(string(data), "\x00-name\x00")
	name, _, _ := strings.Cut(after, "\x00")
	return name
}
