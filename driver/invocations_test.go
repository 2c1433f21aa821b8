// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/hashicorp/nomad/helper/uuid"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/shoenig/test/must"
	"golang.org/x/sys/unix"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// anew is the same task as Nomad starts it again.
func anew(task *drivers.TaskConfig) *drivers.TaskConfig {
	again := task.Copy()
	again.ID = filepath.Join(filepath.Dir(task.ID), uuid.Generate()[:8])
	return again
}

// A plugin that died in the middle of a start has left a machine, with the
// task's port; Nomad starts the task again, by the same ID or by another.
func TestStartTask_AfterThePluginDiedInItsMiddle(t *testing.T) {
	for name, again := range map[string]func(*drivers.TaskConfig) *drivers.TaskConfig{
		"by the same ID":      (*drivers.TaskConfig).Copy,
		"as a new invocation": anew,
	} {
		t.Run(name, func(t *testing.T) {
			dir := runDir(t)
			h := newHarness(t, dir, "")
			task, port := h.newTask(stepsConfig(t, guest.ARM64, `ports = ["http"]`))
			handle := startElsewhere(t, dir, task)
			var state taskState
			must.NoError(t, handle.GetDriverState(&state))

			h.start(again(task))
			awaitGone(t, state.Machine.PID)
			must.Eq(t, "ok\n", get(t, fmt.Sprintf("http://127.0.0.1:%d/healthz", port)))
		})
	}
}

// An agent that was killed while it waited for a start does not know the task,
// which the plugin has.
func TestStartTask_AfterTheAgentDiedInItsMiddle(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	task, port := h.newTask(stepsConfig(t, guest.ARM64, `ports = ["http"]`))
	first := h.start(task)
	var state taskState
	must.NoError(t, first.GetDriverState(&state))

	h.start(anew(task))
	awaitGone(t, state.Machine.PID)
	must.Eq(t, "ok\n", get(t, fmt.Sprintf("http://127.0.0.1:%d/healthz", port)))
	_, err := h.InspectTask(task.ID)
	must.ErrorContains(t, err, drivers.ErrTaskNotFound.Error())
}

// Another task of the allocation is another task.
func TestStartTask_BesideOthers(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	task, _ := h.newTask(stepsConfig(t, guest.ARM64, ""))
	handle := h.start(task)
	var state taskState
	must.NoError(t, handle.GetDriverState(&state))

	sibling, _ := h.newTask(stepsConfig(t, guest.ARM64, ""))
	sibling.ID = filepath.Join(filepath.Dir(filepath.Dir(task.ID)), "other", uuid.Generate()[:8])
	h.start(sibling)
	must.NoError(t, unix.Kill(state.Machine.PID, 0))
	must.False(t, sameTask("", ""))
}
