// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"os/exec"
	"syscall"
	"testing"

	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// The rows are those of docs/ends.md.
func TestEvidence_Judge(t *testing.T) {
	ended := func(command ...string) evidence {
		cmd := exec.Command(command[0], command[1:]...)
		_ = cmd.Run()
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		return evidence{process: &status, qemuLog: "qemu: words\n"}
	}
	exit0, exit1 := ended("true"), ended("false")
	killed := ended("sh", "-c", "kill -KILL $$")
	aborted := ended("sh", "-c", "kill -ABRT $$")
	with := func(e evidence, change func(*evidence)) evidence {
		change(&e)
		return e
	}
	line := &guest.End{Status: 3, Evidence: "main returned 3"}
	zero := &guest.End{Evidence: "main returned 0"}
	crash := &guest.End{Crashed: true, Evidence: "CRIT: x"}

	cases := []struct {
		name    string
		seen    evidence
		code    int
		signal  syscall.Signal
		failed  bool
		message string
	}{
		{"returned 0", evidence{status: statusShutdown, console: zero}, 0, 0, false, "main returned 0"},
		{"returned 3", evidence{status: statusShutdown, console: line}, 3, 0, true, "main returned 3"},
		{"crashed, on the console", evidence{status: statusShutdown, console: crash}, 134, syscall.SIGABRT, true, "CRIT: x"},
		{"crashed, by pvpanic", evidence{status: statusShutdown, panicked: true}, 134, syscall.SIGABRT, true, "panic"},
		{"panic that remains", evidence{status: statusPanicked}, 134, syscall.SIGABRT, true, "panic"},
		{"panic wins over a return value", evidence{panicked: true, console: zero}, 134, syscall.SIGABRT, true, "panic"},
		{"powered off without a word", evidence{status: statusShutdown}, 1, 0, true, "not known"},
		{"powered off while away", evidence{status: statusShutdown, missed: true}, 1, 0, true, "away"},
		{"KVM internal error", evidence{status: statusInternalError, qemuLog: "Suberror: 1"}, 1, 0, true, "Suberror: 1"},
		{"I/O error", evidence{status: statusIOError}, 1, 0, true, "I/O error"},
		{"stopped", with(exit0, func(e *evidence) { e.stop = stoppedByQuit }), 143, syscall.SIGTERM, true, "told to quit"},
		{"stopped by a kill", with(killed, func(e *evidence) { e.stop = stoppedByKill }), 137, syscall.SIGKILL, true, "as was asked"},
		{"stopped by a kill after a quit", with(killed, func(e *evidence) { e.stop = stoppedLate }), 137, syscall.SIGKILL, true, "not quit in time"},
		{"ended by itself before the stop", evidence{stop: stoppedByQuit, status: statusShutdown, console: line}, 3, 0, true, "returned 3"},
		{"QEMU killed", killed, 137, syscall.SIGKILL, true, "signal 9"},
		{"QEMU aborted", aborted, 134, syscall.SIGABRT, true, "signal 6"},
		{"QEMU failed", exit1, 1, 0, true, `status 1: QEMU says "qemu: words"`},
		{"QEMU ended with 0", exit0, 1, 0, true, "status 0"},
		{"QEMU ended while away", evidence{missed: true}, 1, 0, true, "not known"},
		{"node rebooted", evidence{missed: true, rebooted: true}, 1, 0, true, "rebooted"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			result := tc.seen.judge()
			must.Eq(t, tc.code, result.ExitCode)
			must.Eq(t, int(tc.signal), result.Signal)
			must.Eq(t, tc.failed, result.Failed)
			must.StrContains(t, result.Message, tc.message)
		})
	}
}

func TestMachine_QEMUToldToEndByTheHost(t *testing.T) {
	config, watch := steps(t, guest.ARM64, "--hang")
	m := start(t, config, watch)
	must.NoError(t, syscall.Kill(m.State().PID, syscall.SIGTERM))
	result := awaitEnd(t, m)
	must.True(t, result.Failed)
	must.StrContains(t, result.Message, "terminating on signal 15")
}
