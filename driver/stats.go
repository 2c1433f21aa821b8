// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"context"
	"time"

	"github.com/hashicorp/nomad/client/lib/cpustats"
	cstructs "github.com/hashicorp/nomad/client/structs"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/cgroup"
)

// What is measured of a task, in Nomad's names.
var (
	measuredCPU    = []string{"System Mode", "User Mode", "Percent", "Throttled Periods", "Throttled Time"}
	measuredMemory = []string{"RSS", "Cache", "Swap", "Usage", "Max Usage", "Kernel Usage"}
)

// TaskStats streams what a task uses, every interval or less often, until ctx or the task ends.
func (d *Driver) TaskStats(ctx context.Context, taskID string, interval time.Duration) (<-chan *cstructs.TaskResourceUsage, error) {
	t, err := d.tasks.get(taskID)
	if err != nil {
		return nil, err
	}
	d.mu.RLock()
	meter := newMeter(d.compute)
	d.mu.RUnlock()
	ch := make(chan *cstructs.TaskResourceUsage)
	go func() {
		defer close(ch)
		for {
			if stats, err := t.cgroup.Stats(); err == nil {
				select {
				case ch <- meter.usage(stats):
				case <-ctx.Done():
					return
				}
			} else if t.running() {
				d.log.Warn("statistics not read", "task_id", taskID, "error", err)
			}
			select {
			case <-time.After(d.statsPace(interval)):
			case <-ctx.Done():
				return
			case <-t.done:
				return
			}
		}
	}()
	return ch, nil
}

// statsPerInterval bounds how many tasks are measured in each of Nomad's
// intervals, which is a second by default: measuring one takes about 0.2 ms of
// a core.
const statsPerInterval = 50

// statsPace is the time between two measurements of a task: Nomad's interval,
// or a longer one where there are many tasks.
func (d *Driver) statsPace(interval time.Duration) time.Duration {
	return interval * time.Duration(1+d.tasks.count()/statsPerInterval)
}

// meter turns growing counters of CPU time into percentages.
type meter struct{ total, user, system *cpustats.Tracker }

func newMeter(compute cpustats.Compute) *meter {
	return &meter{cpustats.New(compute), cpustats.New(compute), cpustats.New(compute)}
}

func (m *meter) usage(s cgroup.Stats) *cstructs.TaskResourceUsage {
	percent := m.total.Percent(float64(s.CPU.Total))
	return &cstructs.TaskResourceUsage{
		Timestamp: time.Now().UTC().UnixNano(),
		ResourceUsage: &cstructs.ResourceUsage{
			CpuStats: &cstructs.CpuStats{
				Percent:          percent,
				UserMode:         m.user.Percent(float64(s.CPU.User)),
				SystemMode:       m.system.Percent(float64(s.CPU.System)),
				TotalTicks:       m.total.TicksConsumed(percent),
				ThrottledPeriods: s.CPU.ThrottledPeriods,
				ThrottledTime:    s.CPU.ThrottledTime,
				Measured:         measuredCPU,
			},
			MemoryStats: &cstructs.MemoryStats{
				RSS:         s.Memory.RSS,
				Cache:       s.Memory.Cache,
				Swap:        s.Memory.Swap,
				Usage:       s.Memory.Usage,
				MaxUsage:    s.Memory.MaxUsage,
				KernelUsage: s.Memory.Kernel,
				Measured:    measuredMemory,
			},
		},
	}
}
