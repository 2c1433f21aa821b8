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
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/output"
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
	r, err := findRecord(d.runDir, machineID(handle.Config.ID))
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
	// Without its logs the guest goes on, and so does its output, in the spool.
	logs, err := d.findLogs(config, state)
	if err != nil {
		d.log.Warn("logs not found again", "task_id", config.ID, "error", err)
	}
	m, err := machine.Reattach(d.ctx, state.Machine, machine.Watch{
		Signs:       kind.Signs(),
		Missed:      logs.lastLines,
		PowerButton: kind.AnswersPowerButton(),
	})
	if err != nil {
		logs.finish("")
		return nil, err
	}
	t := &task{config: config, state: state, machine: m, cgroup: group, logs: logs}
	if state.Network.Lease.Link != "" {
		// A guest that runs has long been answered, and a machine that has
		// ended has taken its tap with it.
		if t.dhcp, err = state.Network.ServeDHCP(d.ctx); err != nil {
			d.log.Debug("the guest's DHCP is not answered any more", "task_id", config.ID, "error", err)
		}
	}
	if err := logs.start(); err != nil {
		d.log.Warn("logs do not go on", "task_id", config.ID, "error", err)
	}
	return t, nil
}

func (d *Driver) findLogs(config *drivers.TaskConfig, state taskState) (*logs, error) {
	if state.Spool == "" {
		return nil, errors.New("the task was started by a plugin that kept no spool")
	}
	settings, _, err := d.configured()
	if err != nil {
		return nil, err
	}
	return openLogs(config, settings, output.OpenSpool)
}
