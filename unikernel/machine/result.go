// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"fmt"
	"strings"
	"syscall"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// Result is how a machine ended.
type Result struct {
	ExitCode int    // the application's status; 128+Signal for a signal; 1 where it is not known
	Signal   int    // 0: none
	Failed   bool   // the end is a failure, or not known to be a success
	Message  string // what happened, and how that is known
	BadKVM   bool   // the accelerator could not run the guest
}

// The run states of QEMU in which a guest does not go on.
// Source: QEMU, qapi/run-state.json, RunState.
const (
	statusShutdown      = "shutdown"
	statusPanicked      = "guest-panicked"
	statusInternalError = "internal-error"
	statusIOError       = "io-error"
)

// stopped is how far a stop of ours went.
type stopped int

const (
	notStopped stopped = iota
	stoppedByQuit
	stoppedLate   // by a kill, as QEMU did not quit in time
	stoppedByKill // at once
)

// evidence is all that was seen of a machine's end.
type evidence struct {
	stop     stopped
	status   string              // QEMU's last run state, of those above; empty: none
	panicked bool                // QEMU reported a panic
	console  *guest.End          // nil: the console told nothing
	process  *syscall.WaitStatus // nil: QEMU's own exit status is not known
	qemuLog  string              // the end of what QEMU printed
	missed   bool                // the driver was away for part of the guest's life
	rebooted bool                // the host was booted anew meanwhile
}

// judge tells how the guest ended. What no evidence tells is a failure that
// says so, never a success.
func (e evidence) judge() Result {
	switch {
	case e.panicked || e.status == statusPanicked || e.crashOnConsole():
		return e.crash()
	case e.status == statusInternalError:
		result := failure("the accelerator cannot run this guest: " + e.qemuSaysOf("KVM internal error") +
			`; accelerator = "tcg" runs it by emulation`)
		result.BadKVM = true
		return result
	case e.status == statusIOError:
		return failure("the guest was halted by an I/O error: " + e.qemuSays())
	case e.console != nil:
		return e.returned()
	case e.status == statusShutdown:
		return e.poweredOff()
	case e.stop == stoppedByQuit:
		return signalled(syscall.SIGTERM, "stopped: QEMU was told to quit")
	case e.stop == stoppedLate:
		return signalled(syscall.SIGKILL, "stopped: QEMU was killed, as it did not quit in time")
	case e.stop == stoppedByKill:
		return signalled(syscall.SIGKILL, "stopped: QEMU was killed, as was asked")
	case e.rebooted:
		return failure("the node was rebooted, and the guest ended with it")
	case e.process == nil:
		return failure("QEMU ended while the driver was away: how the guest ended is not known")
	}
	return e.qemuEnded()
}

func (e evidence) crashOnConsole() bool { return e.console != nil && e.console.Crashed }

func (e evidence) crash() Result {
	how := "QEMU reported a guest panic"
	if e.crashOnConsole() {
		how = fmt.Sprintf("console: %q", e.console.Evidence)
	}
	return signalled(syscall.SIGABRT, "the guest crashed ("+how+")")
}

func (e evidence) returned() Result {
	message := fmt.Sprintf("the application returned %d (console: %q)", e.console.Status, e.console.Evidence)
	return Result{ExitCode: e.console.Status, Failed: e.console.Status != 0, Message: message}
}

func (e evidence) poweredOff() Result {
	message := "the guest powered off and its console did not tell the application's status, so success is not known"
	if e.missed {
		message += "; the driver was away for a part of its life"
	}
	return failure(message)
}

func (e evidence) qemuEnded() Result {
	status := *e.process
	if status.Signaled() {
		return signalled(status.Signal(), fmt.Sprintf("QEMU was ended by signal %d (%s): %s",
			status.Signal(), status.Signal(), e.qemuSays()))
	}
	return failure(fmt.Sprintf("QEMU exited by itself with status %d: %s", status.ExitStatus(), e.qemuSays()))
}

func (e evidence) qemuSays() string {
	if said := strings.TrimSpace(e.qemuLog); said != "" {
		return fmt.Sprintf("QEMU says %q", said)
	}
	return "QEMU says nothing"
}

// qemuSaysOf is the line about something, which QEMU prints among all the
// registers of a processor.
func (e evidence) qemuSaysOf(what string) string {
	for line := range strings.Lines(e.qemuLog) {
		if strings.Contains(line, what) {
			return fmt.Sprintf("QEMU says %q", strings.TrimSpace(line))
		}
	}
	return what + ", " + e.qemuSays()
}

func failure(message string) Result {
	return Result{ExitCode: 1, Failed: true, Message: message}
}

func signalled(signal syscall.Signal, message string) Result {
	return Result{ExitCode: 128 + int(signal), Signal: int(signal), Failed: true, Message: message}
}
