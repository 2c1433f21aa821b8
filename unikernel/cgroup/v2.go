// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/containerd/cgroups/v3/cgroup2/stats"
)

// v2 is a scope that Nomad's client made.
type v2 struct {
	manager *cgroup2.Manager
	path    string
}

func createV2(spec Spec, root string) (driver, error) {
	d, err := loadV2(spec.Path, root)
	if err != nil {
		return nil, err
	}
	if err := d.checkControllers(); err != nil {
		return nil, err
	}
	return d, d.manager.Update(resourcesV2(spec.Limits, d.has("memory.swap.max")))
}

func loadV2(path, root string) (v2, error) {
	group, err := relative(path, root)
	if err != nil {
		return v2{}, err
	}
	// The library joins the two again; it takes no group below /sys/fs/cgroup.
	manager, err := cgroup2.Load(group, cgroup2.WithMountpoint(root))
	if err != nil {
		return v2{}, fmt.Errorf("cgroup path %q: %w", path, err)
	}
	return v2{manager: manager, path: path}, nil
}

// checkControllers refuses a scope in which limits would have no effect.
func (d v2) checkControllers() error {
	controllers, err := d.manager.Controllers()
	if err != nil {
		return gone(err)
	}
	for _, want := range []string{"cpu", "memory", "pids"} {
		if !slices.Contains(controllers, want) {
			return fmt.Errorf("%w: %s has the controllers %q, but not %s; enable it in the cgroup.subtree_control above", ErrUnavailable, d.path, strings.Join(controllers, " "), want)
		}
	}
	return nil
}

func (d v2) has(file string) bool {
	_, err := os.Stat(filepath.Join(d.path, file))
	return err == nil
}

// resourcesV2 are the limits as v2 has them. Like Nomad's Docker driver, which
// sets memory and swap to one value, it allows no swap: a guest's memory that
// is swapped out stops the guest.
func resourcesV2(limits Limits, swap bool) *cgroup2.Resources {
	resources := &cgroup2.Resources{
		CPU:    &cgroup2.CPU{Cpus: limits.Cpuset},
		Memory: &cgroup2.Memory{},
	}
	if shares := limits.shares(); shares > 0 {
		weight := cgroup2.ConvertCPUSharesToCgroupV2Value(shares)
		resources.CPU.Weight = &weight
	}
	hard, protected := limits.memory()
	if hard > 0 {
		resources.Memory.Max = &hard
	}
	if protected > 0 {
		resources.Memory.Low = &protected
	}
	if swap {
		resources.Memory.Swap = new(int64)
	}
	if limits.Pids > 0 {
		resources.Pids = &cgroup2.Pids{Max: limits.Pids}
	}
	return resources
}

func (d v2) setShares(shares uint64) error {
	weight := cgroup2.ConvertCPUSharesToCgroupV2Value(shares)
	return gone(d.manager.Update(&cgroup2.Resources{CPU: &cgroup2.CPU{Weight: &weight}}))
}

func (d v2) add(pid int) error {
	return gone(d.manager.AddProc(uint64(pid)))
}

func (d v2) processes() ([]int, error) {
	procs, err := d.manager.Procs(false)
	if err != nil {
		return nil, gone(err)
	}
	pids := make([]int, 0, len(procs))
	for _, pid := range procs {
		pids = append(pids, int(pid))
	}
	return pids, nil
}

func (d v2) stats() (Stats, error) {
	if !d.has("cgroup.procs") { // else the library tells zeroes
		return Stats{}, ErrGone
	}
	metrics, err := d.manager.StatFiltered(cgroup2.StatCPU | cgroup2.StatMemory)
	if err != nil {
		return Stats{}, gone(err)
	}
	return Stats{CPU: cpuV2(metrics.CPU), Memory: d.memory(metrics.Memory)}, nil
}

func (d v2) cpuTime() (uint64, error) {
	var usec uint64
	r := newReader()
	r.table(d.path+"/cpu.stat", wanted{"usage_usec": &usec})
	return usec * 1000, r.close()
}

func cpuV2(cpu *stats.CPUStat) CPU {
	const micro = 1000
	return CPU{
		Total:            cpu.UsageUsec * micro,
		User:             cpu.UserUsec * micro,
		System:           cpu.SystemUsec * micro,
		ThrottledPeriods: cpu.NrThrottled,
		ThrottledTime:    cpu.ThrottledUsec * micro,
	}
}

func (d v2) memory(memory *stats.MemoryStat) Memory {
	m := Memory{
		RSS:    memory.Anon,
		Cache:  memory.File,
		Swap:   memory.SwapUsage,
		Usage:  memory.Usage,
		Kernel: memory.KernelStack + memory.Slab + memory.Sock,
	}
	if d.has("memory.peak") { // Linux 5.19
		m.MaxUsage = memory.MaxUsage
	}
	return m
}

func (d v2) oomKills() (uint64, error) {
	if !d.has("cgroup.procs") {
		return 0, ErrGone
	}
	metrics, err := d.manager.StatFiltered(cgroup2.StatMemoryEvents)
	if err != nil {
		return 0, gone(err)
	}
	if metrics.MemoryEvents == nil {
		return 0, nil
	}
	return metrics.MemoryEvents.OomKill, nil
}

// delete does nothing: the scope is the client's.
func (d v2) delete([]string) error { return nil }

// gone marks the error of a group that is no more.
func gone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return err
}
