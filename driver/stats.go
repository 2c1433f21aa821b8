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

// TaskStats streams what a task uses until ctx or the task ends: every interval
// while it works, and every restSpan while it rests.
func (d *Driver) TaskStats(ctx context.Context, taskID string, interval time.Duration) (<-chan *cstructs.TaskResourceUsage, error) {
	t, err := d.tasks.get(taskID)
	if err != nil {
		return nil, err
	}
	d.mu.RLock()
	meter := newMeter(t.cgroup, d.compute, interval)
	d.mu.RUnlock()
	ch := make(chan *cstructs.TaskResourceUsage)
	go func() {
		defer close(ch)
		beat := time.NewTimer(0)
		defer beat.Stop()
		for {
			select {
			case <-beat.C:
			case <-ctx.Done():
				return
			case <-t.done:
				return
			}
			usage, err := meter.look(time.Now())
			if err != nil && t.running() {
				d.log.Warn("statistics not read", "task_id", taskID, "error", err)
			}
			if usage != nil {
				select {
				case ch <- usage:
				case <-ctx.Done():
					return
				}
			}
			beat.Reset(nextBeat(time.Now(), interval))
		}
	}()
	return ch, nil
}

// nextBeat is the time until the next look at a task. All tasks are looked at
// in the same instants, the multiples of the interval: to wake up for each one
// apart takes more of the processor than the looks themselves.
func nextBeat(now time.Time, interval time.Duration) time.Duration {
	if interval <= 0 {
		return time.Second // Nomad's default
	}
	left := now.Truncate(interval).Add(interval).Sub(now)
	if left < interval/2 { // woken early, or just begun: too short a time to measure
		left += interval
	}
	return left
}

// A task rests while it takes less of a core than restShare; then it is told of
// only every restSpan. A core has room for 20 tasks above restShare, so a node
// has only so many messages each second, however many tasks run there.
const (
	restShare = 0.05
	restSpan  = 5 * time.Second
)

// gauge is what a meter looks at, a task's cgroup.
type gauge interface {
	CPUTime() (time.Duration, error)
	Stats() (cgroup.Stats, error)
}

// meter follows what one task uses, for one who listens.
type meter struct {
	gauge    gauge
	ticks    *cpustats.Tracker
	patience time.Duration // the least time between two messages of a task at rest

	seen   time.Time     // of the last look
	used   time.Duration // processor time until then
	told   time.Time     // of the last message
	before cgroup.CPU    // what it was made of
	rested bool          // whether it told of rest
}

func newMeter(g gauge, compute cpustats.Compute, interval time.Duration) *meter {
	return &meter{gauge: g, ticks: cpustats.New(compute), patience: restSpan - interval/2} // the last beat may be late
}

// look is what there is to tell of the task: nil while it rests, and that was
// told already. A message is about all the time since the one before.
func (m *meter) look(now time.Time) (*cstructs.TaskResourceUsage, error) {
	used, err := m.gauge.CPUTime()
	if err != nil {
		return nil, err
	}
	rests := m.rests(used, now)
	if rests && m.rested && now.Sub(m.told) < m.patience {
		return nil, nil
	}
	stats, err := m.gauge.Stats()
	if err != nil {
		return nil, err
	}
	usage := m.usage(stats, now)
	m.told, m.before, m.rested = now, stats.CPU, rests
	return usage, nil
}

// rests tells whether the task has rested since the last look.
func (m *meter) rests(used time.Duration, now time.Time) bool {
	share := float64(used-m.used) / float64(now.Sub(m.seen))
	m.used, m.seen = used, now
	return share < restShare
}

func (m *meter) usage(s cgroup.Stats, now time.Time) *cstructs.TaskResourceUsage {
	percent := m.percent(m.before.Total, s.CPU.Total, now)
	user := min(m.percent(m.before.User, s.CPU.User, now), percent) // some kernels tell the two apart by ticks alone
	return &cstructs.TaskResourceUsage{
		Timestamp: now.UTC().UnixNano(),
		ResourceUsage: &cstructs.ResourceUsage{
			CpuStats: &cstructs.CpuStats{
				Percent:          percent,
				UserMode:         user,
				SystemMode:       percent - user,
				TotalTicks:       m.ticks.TicksConsumed(percent),
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

// percent is how much of a core a counter of nanoseconds grew by since the last
// message; 0 for the first one.
func (m *meter) percent(before, after uint64, now time.Time) float64 {
	if m.told.IsZero() || after <= before || !now.After(m.told) {
		return 0
	}
	return 100 * float64(after-before) / float64(now.Sub(m.told))
}
