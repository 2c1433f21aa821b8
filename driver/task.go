// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/cgroup"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/machine"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/network"
)

// task is a task that was started or found again.
type task struct {
	config  *drivers.TaskConfig
	state   taskState
	record  *record
	machine *machine.Machine
	cgroup  *cgroup.Group
	dhcp    *network.DHCP // nil: none is needed
	logs    *logs

	adopted time.Time   // when this plugin got it
	waited  atomic.Bool // Nomad asked for its end, so it knows the task

	done      chan struct{} // closed when the task has ended
	result    *drivers.ExitResult
	completed time.Time
}

// follow waits for the machine's end and tells it. It ends with the machine.
func (d *Driver) follow(t *task) {
	<-t.machine.Done()
	t.dhcp.Close()
	end := t.machine.Result()
	t.result = t.exitResult(end)
	if end.BadKVM {
		d.host.ask()
	}
	t.completed = time.Now()
	t.logs.finish(t.machine.Log())
	close(t.done)
	d.log.Info("guest ended", "task_id", t.config.ID, "exit_code", end.ExitCode, "signal", end.Signal, "message", end.Message)
	if !end.Failed {
		d.tell(t.config, "Guest ended: %s", end.Message)
	}
}

func (t *task) exitResult(end machine.Result) *drivers.ExitResult {
	result := &drivers.ExitResult{ExitCode: end.ExitCode, Signal: end.Signal}
	if end.Failed {
		result.Err = errors.New(end.Message)
	}
	if outOfMemory(t.cgroup) {
		result.OOMKilled = true
		result.Err = errOutOfMemory
	}
	return result
}

var errOutOfMemory = errors.New("out of memory: the kernel killed QEMU, which reached the task's memory limit; " +
	"raise resources.memory, or the plugin option memory_overhead")

// outOfMemory tells whether the kernel killed a process of the group for want
// of memory. A group that is gone tells nothing.
func outOfMemory(group *cgroup.Group) bool {
	kills, err := group.OOMKills()
	return err == nil && kills > 0
}

func (t *task) running() bool {
	select {
	case <-t.done:
		return false
	default:
		return true
	}
}

func (t *task) status() *drivers.TaskStatus {
	status := &drivers.TaskStatus{
		ID:        t.config.ID,
		Name:      t.config.Name,
		State:     drivers.TaskStateRunning,
		StartedAt: t.state.Started,
		DriverAttributes: map[string]string{
			"arch":   string(t.state.Arch),
			"family": string(t.state.Family),
		},
	}
	if !t.running() {
		status.State = drivers.TaskStateExited
		status.CompletedAt = t.completed
		status.ExitResult = t.result.Copy()
	}
	return status
}

// store is the tasks by their IDs.
type store struct {
	mu    sync.RWMutex
	tasks map[string]*task
}

func newStore() *store { return &store{tasks: make(map[string]*task)} }

func (s *store) get(id string) (*task, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	t, ok := s.tasks[id]
	if !ok {
		return nil, drivers.ErrTaskNotFound
	}
	return t, nil
}

// invocations lists the other invocations of a task.
func (s *store) invocations(id string) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var others []string
	for other := range s.tasks {
		if other != id && sameTask(other, id) {
			others = append(others, other)
		}
	}
	return others
}

func (s *store) all() []*task {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Collect(maps.Values(s.tasks))
}

func (s *store) put(t *task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tasks[t.config.ID] = t
}

func (s *store) remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tasks, id)
}
