// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"errors"
	"fmt"

	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/cgroup"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/machine"
)

// RecoverTask finds a task again after the plugin or the agent was restarted.
// A task whose guest ended meanwhile is found too, and WaitTask tells its end.
// When it fails, nothing of the task is left: Nomad could not destroy a task
// that the driver does not know.
func (d *Driver) RecoverTask(handle *drivers.TaskHandle) error {
	if handle == nil || handle.Config == nil {
		return errors.New("recovering a task: Nomad gave no handle")
	}
	if _, err := d.tasks.get(handle.Config.ID); err == nil {
		return nil
	}
	if handle.Version != handleVersion {
		return fmt.Errorf("recovering task %s: its state has version %d, this plugin reads %d",
			handle.Config.ID, handle.Version, handleVersion)
	}
	var state taskState
	if err := handle.GetDriverState(&state); err != nil {
		return fmt.Errorf("recovering task %s: decoding its state: %w", handle.Config.ID, err)
	}
	if err := d.makeRunDir(); err != nil {
		return fmt.Errorf("recovering task %s: %w", handle.Config.ID, err)
	}
	r, err := openRecord(d.runDir, machineID(handle.Config.ID))
	if err != nil {
		return fmt.Errorf("recovering task %s: %w", handle.Config.ID, err)
	}
	t, err := d.findAgain(handle.Config, state)
	if err != nil {
		err = errors.Join(err, machine.Destroy(state.Machine), r.settle(d.ctx, state))
		return fmt.Errorf("recovering task %s: %w", handle.Config.ID, err)
	}
	t.record = r
	d.adopt(t)
	return nil
}

func (d *Driver) findAgain(config *drivers.TaskConfig, state taskState) (*task, error) {
	kind, err := guest.For(state.Family, state.Release, state.Arch)
	if err != nil {
		return nil, err
	}
	group, err := cgroup.Load(state.Cgroup)
	if err != nil {
		return nil, fmt.Errorf("finding its cgroup: %w", err)
	}
	m, err := machine.Reattach(d.ctx, state.Machine, machine.Watch{
		Signs:       kind.Signs(),
		Missed:      loggedLines(config),
		PowerButton: kind.AnswersPowerButton(),
	})
	if err != nil {
		return nil, err
	}
	t := &task{config: config, state: state, machine: m, cgroup: group}
	// Without the pipes the guest's output goes on, as QEMU holds its own.
	if t.logs, err = openLogs(config); err != nil {
		d.log.Warn("log pipe not found again", "task_id", config.ID, "error", err)
	}
	return t, nil
}
