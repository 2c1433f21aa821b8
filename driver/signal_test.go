// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"testing"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// monitorSays is QEMU's own word on whether the guest runs.
func monitorSays(t *testing.T, h *harness, task *drivers.TaskConfig) string {
	t.Helper()
	running, err := h.driver.tasks.get(task.ID)
	must.NoError(t, err)
	says, err := running.machine.AskMonitor(t.Context(), "info status")
	must.NoError(t, err)
	return says
}

func TestSignal_PauseAndResume(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	h.quiet = true
	task, _ := h.newTask(stepsConfig(t, guest.ARM64, ""))
	h.start(task)
	for range 2 {
		must.NoError(t, h.SignalTask(task.ID, "SIGSTOP"))
		must.StrContains(t, monitorSays(t, h, task), "paused")
		must.NoError(t, h.SignalTask(task.ID, "SIGCONT"))
		must.StrContains(t, monitorSays(t, h, task), "running")
	}
	// A paused guest can be stopped, too.
	must.NoError(t, h.SignalTask(task.ID, "SIGTSTP"))
	must.NoError(t, h.StopTask(task.ID, 5*time.Second, ""))
	must.Eq(t, 15, h.wait(task).Signal)
	must.ErrorContains(t, h.SignalTask(task.ID, "SIGCONT"), "has ended")
}

func TestSignal_Ends(t *testing.T) {
	for signal, by := range map[string]int{"SIGTERM": 15, "SIGINT": 15, "SIGQUIT": 15, "sigterm": 15, "SIGKILL": 9} {
		t.Run(signal, func(t *testing.T) {
			h := newHarness(t, runDir(t), "")
			h.quiet = true
			task, _ := h.newTask(stepsConfig(t, guest.ARM64, ""))
			h.start(task)
			must.NoError(t, h.SignalTask(task.ID, signal))
			must.Eq(t, by, h.wait(task).Signal)
		})
	}
}

func TestSignal_OthersAreRefused(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	h.quiet = true
	task, _ := h.newTask(stepsConfig(t, guest.ARM64, ""))
	h.start(task)
	for _, signal := range []string{"SIGHUP", "SIGUSR1", "SIGWINCH", "", "TERM", "15"} {
		err := h.SignalTask(task.ID, signal)
		for _, known := range []string{"SIGTERM", "SIGINT", "SIGQUIT", "SIGKILL", "SIGSTOP", "SIGCONT"} {
			must.ErrorContains(t, err, known)
		}
	}
	must.StrContains(t, monitorSays(t, h, task), "running")
}

// The job's kill_signal says how its end begins.
func TestStopTask_KillSignal(t *testing.T) {
	for signal, by := range map[string]int{"": 15, "SIGINT": 15, "SIGUSR1": 15, "SIGKILL": 9} {
		t.Run(signal, func(t *testing.T) {
			h := newHarness(t, runDir(t), "")
			h.quiet = true
			task, _ := h.newTask(stepsConfig(t, guest.ARM64, ""))
			h.start(task)
			must.NoError(t, h.StopTask(task.ID, 5*time.Second, signal))
			must.Eq(t, by, h.wait(task).Signal)
		})
	}
}
