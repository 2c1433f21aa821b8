// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/nomad/client/lib/cpustats"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/cgroup"
)

func TestNextBeat(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	cases := []struct {
		name                  string
		past, interval, wants time.Duration
	}{
		{"on the beat", 0, time.Second, time.Second},
		{"a little late", 3 * time.Millisecond, time.Second, 997 * time.Millisecond},
		{"a little early", 999 * time.Millisecond, time.Second, 1001 * time.Millisecond},
		{"begun late in an interval", 700 * time.Millisecond, time.Second, 1300 * time.Millisecond},
		{"another interval", 4 * time.Second, 10 * time.Second, time.Second + 10*time.Second}, // 5+4 seconds
		{"no interval", 0, 0, time.Second},
	}
	for _, tc := range cases {
		must.EqOp(t, tc.wants, nextBeat(at.Add(tc.past), tc.interval), must.Sprint(tc.name))
	}
}

// fakeGauge is a task's cgroup as a test wants it.
type fakeGauge struct {
	stats cgroup.Stats
	err   error
	whole int // times that all of it was read
}

func (g *fakeGauge) CPUTime() (time.Duration, error) {
	return time.Duration(g.stats.CPU.Total), g.err
}

func (g *fakeGauge) Stats() (cgroup.Stats, error) {
	g.whole++
	return g.stats, g.err
}

func (g *fakeGauge) work(user, system time.Duration) {
	g.stats.CPU.Total += uint64(user + system)
	g.stats.CPU.User += uint64(user)
	g.stats.CPU.System += uint64(system)
}

// Each second a task works for so long, and this is what is told of it.
func TestMeter_TellsOfRestRarelyAndOfWorkAlways(t *testing.T) {
	g := &fakeGauge{}
	g.work(time.Hour, time.Hour) // before anybody listened
	m := newMeter(g, cpustats.Compute{TotalCompute: 8000, NumCores: 4}, time.Second)
	start := time.Now()
	const silent = -1
	steps := []struct {
		worked time.Duration // in user mode; as much again in system mode
		told   float64       // percent in user mode
		why    string
	}{
		{0, 0, "the first message comes at once"},
		{5 * time.Millisecond, silent, "rest was told"},
		{5 * time.Millisecond, silent, ""},
		{5 * time.Millisecond, silent, ""},
		{5 * time.Millisecond, silent, ""},
		{5 * time.Millisecond, 0.5, "five seconds are over"},
		{5 * time.Millisecond, silent, ""},
		{495 * time.Millisecond, 25, "work is told at once, of the two seconds since the last message"},
		{400 * time.Millisecond, 40, "and each second"},
		{30 * time.Millisecond, 3, "still work, if little"},
		{0, 0, "so is the end of work"},
		{0, silent, "rest was told"},
	}
	for i, step := range steps {
		g.work(step.worked, step.worked)
		whole := g.whole
		now := start.Add(time.Duration(i)*time.Second + time.Duration(i%3)*time.Millisecond) // beats are never quite even
		usage, err := m.look(now)
		must.NoError(t, err)
		if step.told == silent {
			must.Nil(t, usage, must.Sprintf("second %d: %s", i, step.why))
			must.EqOp(t, whole, g.whole, must.Sprintf("second %d: all was read for nothing", i))
			continue
		}
		must.NotNil(t, usage, must.Sprintf("second %d: %s", i, step.why))
		cpu := usage.ResourceUsage.CpuStats
		must.InDelta(t, step.told, cpu.UserMode, 0.3, must.Sprintf("second %d: %s", i, step.why))
		must.InDelta(t, step.told, cpu.SystemMode, 0.3)
		must.InDelta(t, 2*step.told, cpu.Percent, 0.6)
		must.InDelta(t, cpu.Percent/100*2000, cpu.TotalTicks, 0.01) // MHz of one core
		must.EqOp(t, now.UnixNano(), usage.Timestamp)
	}
}

func TestMeter_TellsAllThatWasMeasured(t *testing.T) {
	g := &fakeGauge{stats: cgroup.Stats{
		CPU:    cgroup.CPU{Total: 3, User: 1, System: 2, ThrottledPeriods: 4, ThrottledTime: 5},
		Memory: cgroup.Memory{RSS: 6, Cache: 7, Swap: 8, Usage: 9, MaxUsage: 10, Kernel: 11},
	}}
	usage, err := newMeter(g, cpustats.Compute{TotalCompute: 1, NumCores: 1}, time.Second).look(time.Now())
	must.NoError(t, err)
	cpu, memory := usage.ResourceUsage.CpuStats, usage.ResourceUsage.MemoryStats
	must.Eq(t, []uint64{4, 5}, []uint64{cpu.ThrottledPeriods, cpu.ThrottledTime})
	must.Eq(t, []uint64{6, 7, 8, 9, 10, 11},
		[]uint64{memory.RSS, memory.Cache, memory.Swap, memory.Usage, memory.MaxUsage, memory.KernelUsage})
}

// An operator who asks less often than a task at rest is told of is told each time.
func TestMeter_LongIntervals(t *testing.T) {
	m := newMeter(&fakeGauge{}, cpustats.Compute{TotalCompute: 1, NumCores: 1}, 10*time.Second)
	start := time.Now()
	for i := range 4 {
		usage, err := m.look(start.Add(time.Duration(i) * 10 * time.Second))
		must.NoError(t, err)
		must.NotNil(t, usage)
	}
}

// A counter that fell is another group's by the same name; it is no use of the task's.
func TestMeter_CountersThatFall(t *testing.T) {
	g := &fakeGauge{}
	g.work(time.Hour, 0)
	m := newMeter(g, cpustats.Compute{TotalCompute: 1, NumCores: 1}, 10*time.Second)
	_, err := m.look(time.Now())
	must.NoError(t, err)
	g.stats = cgroup.Stats{}
	usage, err := m.look(time.Now().Add(10 * time.Second))
	must.NoError(t, err)
	must.Zero(t, usage.ResourceUsage.CpuStats.Percent)
}

func TestMeter_Unreadable(t *testing.T) {
	g := &fakeGauge{err: errors.New("unreadable")}
	usage, err := newMeter(g, cpustats.Compute{}, time.Second).look(time.Now())
	must.ErrorIs(t, err, g.err)
	must.Nil(t, usage)
}
