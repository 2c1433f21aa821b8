// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/machine"
)

// A task's ID is ALLOC/TASK/INVOCATION, and a task has one invocation at a
// time. Where the plugin or the agent dies in the middle of a start, Nomad
// never hears of it, and starts the task again: by the same ID, or by another
// that differs in the invocation. What the first start made is removed then,
// or the task would run twice.

// sameTask tells whether two IDs are invocations of one task.
func sameTask(a, b string) bool { return a != "" && filepath.Dir(a) == filepath.Dir(b) }

// removeEarlier ends and removes what earlier invocations of a task left. No
// other start of the task is under way.
func (d *Driver) removeEarlier(ctx context.Context, taskID string) error {
	for _, earlier := range d.tasks.invocations(taskID) {
		d.log.Warn("ending a task whose start Nomad has not heard of", "task_id", earlier)
		if err := d.DestroyTask(earlier, true); err != nil {
			return err
		}
	}
	paths, err := filepath.Glob(filepath.Join(d.runDir, "*"+recordSuffix))
	if err != nil {
		return err // only a bad pattern
	}
	for _, path := range paths {
		if err := d.removeRecorded(ctx, path, taskID); err != nil {
			return fmt.Errorf("removing what an earlier start of task %s left: %w", taskID, err)
		}
	}
	return nil
}

// removeRecorded removes what a record tells, if it is about the task.
func (d *Driver) removeRecorded(ctx context.Context, path, taskID string) error {
	if !ofTask(path, taskID) {
		return nil
	}
	r, err := lockRecord(path, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	state, err := r.load()
	if err != nil {
		r.close()
		return err
	}
	d.log.Warn("removing what a start that was interrupted left", "task_id", state.TaskID, "pid", state.Machine.PID)
	return removeMachine(ctx, r, state)
}

// ofTask tells whether a record is about an invocation of a task. One that was
// not written yet tells by its name alone.
func ofTask(path, taskID string) bool {
	if filepath.Base(path) == machineID(taskID)+recordSuffix {
		return true
	}
	state, err := readRecord(path)
	return err == nil && sameTask(state.TaskID, taskID)
}

// removeMachine ends a machine that has no owner, gives back what it has, and
// removes its record, or only unlocks that where something fails.
func removeMachine(ctx context.Context, r *record, state taskState) error {
	if state.Machine.Dir == "" {
		// Its QEMU, if there is one, was not known yet when the plugin died.
		state.Machine.Dir = r.machineDir()
	}
	if err := machine.Destroy(state.Machine); err != nil {
		r.close()
		return err
	}
	return r.settle(ctx, state)
}

// turns has the starts of one task take turns: an agent that was killed while
// it waited for a start asks for the next while the first goes on.
type turns struct {
	mu    sync.Mutex
	taken map[string]chan struct{} // by allocation and task, closed when it is the next one's turn
}

// take waits for a task's turn; done gives it on.
func (t *turns) take(taskID string) (done func()) {
	name, mine := filepath.Dir(taskID), make(chan struct{})
	for {
		t.mu.Lock()
		other, busy := t.taken[name]
		if !busy {
			if t.taken == nil {
				t.taken = make(map[string]chan struct{})
			}
			t.taken[name] = mine
		}
		t.mu.Unlock()
		if !busy {
			break
		}
		<-other // ends: every start is bounded
	}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.taken, name)
		close(mine)
	}
}
