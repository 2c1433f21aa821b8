// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup1/stats"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// parentV1 is the group below which Nomad's client has its tasks' groups.
const parentV1 = "/nomad"

// controllersV1 are those that a task has a group of its own in. Nomad's client
// finds leftover processes by the freezer.
var controllersV1 = []string{"memory", "cpu", "cpuacct", "pids", "freezer"}

// v1 is a task's group in each of the hierarchies.
type v1 struct {
	group  string // such as "/nomad/alloc.task"
	cpuset string // the client's cpuset group, below the hierarchy's root; empty: none
	root   string
}

func createV1(spec Spec, root string) (driver, []string, error) {
	d, err := loadV1(spec.Path, spec.Name, root)
	if err != nil {
		return nil, nil, err
	}
	created, err := d.missing()
	if err != nil {
		return nil, nil, err
	}
	if err := d.setUp(spec.Limits); err != nil {
		return nil, nil, errors.Join(err, d.delete(created))
	}
	return d, created, nil
}

func loadV1(path, name, root string) (v1, error) {
	if name == "" || name == "." || name == ".." || strings.ContainsRune(name, '/') {
		return v1{}, fmt.Errorf("cgroup name %q cannot be a directory's: use one without slashes", name)
	}
	d := v1{group: filepath.Join(parentV1, name), root: root}
	if path == "" {
		return d, nil
	}
	cpuset, err := relative(path, filepath.Join(root, "cpuset"))
	if err != nil {
		return v1{}, err
	}
	d.cpuset = cpuset
	return d, nil
}

// missing are the controllers in which there is no group yet.
func (d v1) missing() ([]string, error) {
	var missing []string
	for _, controller := range controllersV1 {
		if _, err := os.Stat(filepath.Join(d.root, controller)); err != nil {
			return nil, fmt.Errorf("%w: the controller %s is not mounted: %w", ErrUnavailable, controller, err)
		}
		_, err := os.Stat(filepath.Join(d.root, controller, d.group))
		switch {
		case errors.Is(err, os.ErrNotExist):
			missing = append(missing, controller)
		case err != nil:
			return nil, err
		}
	}
	return missing, nil
}

func (d v1) setUp(limits Limits) error {
	_, err := cgroup1.New(d.path, resourcesV1(limits, d.has("memory.memsw.limit_in_bytes")), cgroup1.WithHierarchy(d.hierarchy(controllersV1)))
	if err != nil {
		return err
	}
	if limits.Cpuset == "" || d.cpuset == "" {
		return nil
	}
	file := filepath.Join(d.root, "cpuset", d.cpuset, "cpuset.cpus")
	if err := os.WriteFile(file, []byte(limits.Cpuset), 0o644); err != nil {
		return fmt.Errorf("reserving cores %s: %w", limits.Cpuset, err)
	}
	return nil
}

func (d v1) setShares(shares uint64) error {
	file := filepath.Join(d.root, "cpu", d.group, "cpu.shares")
	return gone(os.WriteFile(file, strconv.AppendUint(nil, shares, 10), 0o644))
}

// resourcesV1 are the limits as v1 has them. Like Nomad's Docker driver it
// allows no swap: a guest's memory that is swapped out stops the guest.
func resourcesV1(limits Limits, swap bool) *specs.LinuxResources {
	resources := &specs.LinuxResources{
		CPU:    &specs.LinuxCPU{},
		Memory: &specs.LinuxMemory{Swappiness: new(uint64)},
	}
	if shares := limits.shares(); shares > 0 {
		resources.CPU.Shares = &shares
	}
	hard, protected := limits.memory()
	if hard > 0 {
		resources.Memory.Limit = &hard
		if swap {
			resources.Memory.Swap = &hard // memory and swap together
		}
	}
	if protected > 0 {
		resources.Memory.Reservation = &protected
	}
	if limits.Pids > 0 {
		resources.Pids = &specs.LinuxPids{Limit: &limits.Pids}
	}
	return resources
}

// has tells whether the memory controller has a file.
func (d v1) has(file string) bool {
	_, err := os.Stat(filepath.Join(d.root, "memory", file))
	if err == nil {
		return true
	}
	_, err = os.Stat(filepath.Join(d.root, "memory", d.group, file))
	return err == nil
}

// path is where the task's group of a controller is.
func (d v1) path(name cgroup1.Name) (string, error) {
	if name != cgroup1.Cpuset {
		return d.group, nil
	}
	return d.cpuset, nil
}

// hierarchy gives the library the controllers that it is to work on.
func (d v1) hierarchy(names []string) cgroup1.Hierarchy {
	return func() ([]cgroup1.Subsystem, error) {
		var subsystems []cgroup1.Subsystem
		for _, name := range names {
			subsystems = append(subsystems, d.subsystem(name))
		}
		return subsystems, nil
	}
}

func (d v1) subsystem(name string) cgroup1.Subsystem {
	switch cgroup1.Name(name) {
	case cgroup1.Memory:
		return cgroup1.NewMemory(d.root, cgroup1.IgnoreModules(d.unknownModules()...))
	case cgroup1.Cpu:
		return cgroup1.NewCpu(d.root)
	case cgroup1.Cpuacct:
		return cgroup1.NewCpuacct(d.root)
	case cgroup1.Pids:
		return cgroup1.NewPids(d.root)
	case cgroup1.Cpuset:
		return cgroup1.NewCpuset(d.root)
	}
	return cgroup1.NewFreezer(d.root)
}

// unknownModules are the parts of the memory controller that the kernel was
// built or booted without.
func (d v1) unknownModules() []string {
	var unknown []string
	for _, module := range []string{"memsw", "kmem", "kmem.tcp"} {
		if !d.has("memory."+module+".usage_in_bytes") || !d.has("memory."+module+".limit_in_bytes") {
			unknown = append(unknown, module)
		}
	}
	return unknown
}

// open loads the group in some controllers.
func (d v1) open(names ...string) (cgroup1.Cgroup, error) {
	group, err := cgroup1.Load(d.path, cgroup1.WithHierarchy(d.hierarchy(names)))
	if errors.Is(err, cgroup1.ErrCgroupDeleted) {
		return nil, ErrGone
	}
	return group, err
}

func (d v1) add(pid int) error {
	names := slices.Clone(controllersV1)
	if d.cpuset != "" {
		names = append(names, "cpuset")
	}
	group, err := d.open(names...)
	if err != nil {
		return err
	}
	if have := len(group.Subsystems()); have < len(names) {
		return fmt.Errorf("%w in %d of %d controllers", ErrGone, len(names)-have, len(names))
	}
	return group.AddProc(uint64(pid))
}

func (d v1) processes() ([]int, error) {
	group, err := d.open("memory")
	if err != nil {
		return nil, err
	}
	processes, err := group.Processes(cgroup1.Memory, false)
	if err != nil {
		return nil, gone(err)
	}
	pids := make([]int, 0, len(processes))
	for _, process := range processes {
		pids = append(pids, process.Pid)
	}
	return pids, nil
}

func (d v1) oomKills() (uint64, error) {
	metrics, err := d.metrics("memory")
	if err != nil {
		return 0, err
	}
	if metrics.MemoryOomControl == nil {
		return 0, ErrGone
	}
	return metrics.MemoryOomControl.OomKill, nil
}

func (d v1) metrics(names ...string) (*stats.Metrics, error) {
	group, err := d.open(names...)
	if err != nil {
		return nil, err
	}
	metrics, err := group.Stat()
	return metrics, gone(err)
}

func (d v1) delete(created []string) error {
	if len(created) == 0 {
		return nil
	}
	group, err := d.open(created...)
	if errors.Is(err, ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	return group.Delete()
}
