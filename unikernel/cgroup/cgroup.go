// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Package cgroup limits and measures the processes of one task by cgroups, v1
// and v2, over containerd's library.
//
// On v2 Nomad's client makes the task's group and removes it: it is joined and
// given limits, never deleted. On v1 the client makes groups in the hierarchies
// cpuset, cpu, memory and freezer; those that are there are joined, others that
// are wanted are made beside them, and only these are deleted.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/cgroups/v3"
)

// Mode is the version of cgroups.
type Mode string

// The modes. A hybrid host counts as V1: there its controllers are.
const (
	None Mode = ""
	V1   Mode = "v1"
	V2   Mode = "v2"
)

// ErrUnavailable is in the error of Create where the host has no cgroups that
// this process may use.
var ErrUnavailable = errors.New("no usable cgroup")

// ErrGone is in the error of a Group's methods when the group was removed.
var ErrGone = errors.New("the cgroup is gone")

// mountpoint is where Linux systems have their cgroups.
const mountpoint = "/sys/fs/cgroup"

// HostMode tells which cgroups the host has.
func HostMode() Mode {
	switch cgroups.Mode() {
	case cgroups.Unified:
		return V2
	case cgroups.Legacy, cgroups.Hybrid:
		return V1
	}
	return None
}

// Spec is the group that a task is to have.
type Spec struct {
	// Path is the absolute path of the client's cgroup for the task: on v2 its
	// scope, on v1 its cpuset group. On v1 it may be empty: no cpuset is joined.
	Path string
	// Name is the v1 groups' name, unique among tasks. The client's own are
	// named allocID.task.
	Name   string
	Limits Limits
}

// Limits are what a task's processes may use in all. Zero values set no limit.
type Limits struct {
	// CPUShares is the weight among other tasks, in MHz as Nomad counts it.
	CPUShares int64
	// MemoryMiB is the memory reserved, MemoryMaxMiB the memory allowed. The
	// larger one is the hard limit; where MemoryMaxMiB is the larger, MemoryMiB
	// is protected from reclaim. A negative MemoryMaxMiB sets no hard limit.
	MemoryMiB, MemoryMaxMiB int64
	// Pids is how many processes and threads there may be.
	Pids int64
	// Cpuset is the list of cores reserved for the task, such as "2-3"; empty:
	// those that the client gave the group.
	Cpuset string
}

// memory gives the hard limit and the protected share in bytes; 0: none.
func (l Limits) memory() (hard, protected int64) {
	const mib = 1 << 20
	switch {
	case l.MemoryMaxMiB < 0:
		return 0, l.MemoryMiB * mib
	case l.MemoryMaxMiB > l.MemoryMiB:
		return l.MemoryMaxMiB * mib, l.MemoryMiB * mib
	}
	return l.MemoryMiB * mib, 0
}

// shares are the CPU shares within the kernel's bounds; 0: not set.
func (l Limits) shares() uint64 {
	const least, most = 2, 1 << 18
	if l.CPUShares <= 0 {
		return 0
	}
	return uint64(min(max(l.CPUShares, least), most))
}

// State is what is needed to find a group again. It holds only exported
// fields, so that any encoding keeps it. The zero State is no group.
type State struct {
	Mode Mode
	Path string // as in Spec
	Name string // as in Spec
	// Created are the v1 controllers in which the group was made here.
	Created []string
	// OOMKills is the kernel's count when the group was taken: groups may be
	// used again when a task restarts.
	OOMKills uint64
}

// Stats is what a group used.
type Stats struct {
	CPU    CPU
	Memory Memory
}

// CPU is processor time in nanoseconds since the group was made.
type CPU struct {
	Total, User, System uint64
	ThrottledPeriods    uint64
	ThrottledTime       uint64 // nanoseconds
}

// Memory is in bytes.
type Memory struct {
	RSS      uint64 // anonymous memory
	Cache    uint64 // pages of files
	Swap     uint64
	Usage    uint64 // all that counts against the limit
	MaxUsage uint64 // the largest Usage; 0 where the kernel does not tell
	Kernel   uint64 // memory that the kernel holds for the group
}

// Group is a task's group of processes. It is safe for concurrent use.
type Group struct {
	state  State
	driver driver
}

// driver is what v1 and v2 do in different ways.
type driver interface {
	add(pid int) error
	processes() ([]int, error)
	stats() (Stats, error)
	cpuTime() (uint64, error)
	oomKills() (uint64, error)
	setShares(shares uint64) error
	delete(created []string) error
}

// Create makes the groups that are missing and sets the limits. On error
// nothing is left behind. It needs the rights to write below the client's
// cgroups; where it has none, or there are no cgroups, the error is
// ErrUnavailable.
func Create(spec Spec) (*Group, error) {
	return create(spec, HostMode(), mountpoint)
}

func create(spec Spec, mode Mode, root string) (*Group, error) {
	g := &Group{state: State{Mode: mode, Path: spec.Path, Name: spec.Name}}
	var err error
	switch mode {
	case V1:
		g.driver, g.state.Created, err = createV1(spec, root)
	case V2:
		g.driver, err = createV2(spec, root)
	default:
		return nil, fmt.Errorf("%w: %s has none mounted", ErrUnavailable, root)
	}
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return nil, fmt.Errorf("setting up the %s cgroup of %s: %w", mode, spec.Name, err)
	}
	if g.state.OOMKills, err = g.driver.oomKills(); err != nil {
		return nil, errors.Join(fmt.Errorf("reading the %s cgroup of %s: %w", mode, spec.Name, err), g.Delete())
	}
	return g, nil
}

// Plan is the state to record before Create, so that a process that dies in the
// middle of it leaves nothing that nobody knows of. A group of it may be
// deleted, whether Create has come to make it or not.
func Plan(spec Spec) (State, error) { return plan(spec, HostMode(), mountpoint) }

func plan(spec Spec, mode Mode, root string) (State, error) {
	state := State{Mode: mode, Path: spec.Path, Name: spec.Name}
	if mode != V1 {
		return state, nil // nothing is made there
	}
	d, err := loadV1(spec.Path, spec.Name, root)
	if err == nil {
		state.Created, err = d.missing()
	}
	if err != nil {
		return State{}, fmt.Errorf("planning the %s cgroup of %s: %w", mode, spec.Name, err)
	}
	return state, nil
}

// Load finds a group again. It does not look whether it is still there: what
// is gone tells so when it is used, and is no error to delete.
func Load(state State) (*Group, error) {
	return load(state, mountpoint)
}

func load(state State, root string) (*Group, error) {
	g := &Group{state: state}
	var err error
	switch state.Mode {
	case V1:
		g.driver, err = loadV1(state.Path, state.Name, root)
	case V2:
		g.driver, err = loadV2(state.Path, root)
	case None:
		g.driver = noGroup{}
	default:
		err = fmt.Errorf("unknown mode %q", state.Mode)
	}
	if err != nil {
		return nil, fmt.Errorf("loading the cgroup of %s: %w", state.Name, err)
	}
	return g, nil
}

// State is what Load needs.
func (g *Group) State() State { return g.state }

// Mode tells by which cgroups the group is made; None for that of a zero State.
func (g *Group) Mode() Mode { return g.state.Mode }

// AddProcess moves a process with all its threads into the group.
func (g *Group) AddProcess(pid int) error {
	if err := g.driver.add(pid); err != nil {
		return fmt.Errorf("moving process %d into the cgroup of %s: %w", pid, g.state.Name, err)
	}
	return nil
}

// SetCPUShares changes the group's weight among other tasks, in MHz as Nomad
// counts it; 0 leaves it as it is.
func (g *Group) SetCPUShares(shares int64) error {
	within := Limits{CPUShares: shares}.shares()
	if within == 0 {
		return nil
	}
	if err := g.driver.setShares(within); err != nil {
		return fmt.Errorf("setting the CPU shares of %s to %d: %w", g.state.Name, within, err)
	}
	return nil
}

// Processes are the group's processes.
func (g *Group) Processes() ([]int, error) {
	pids, err := g.driver.processes()
	if err != nil {
		return nil, fmt.Errorf("listing the processes of %s: %w", g.state.Name, err)
	}
	return pids, nil
}

// Stats tells what the group used.
func (g *Group) Stats() (Stats, error) {
	stats, err := g.driver.stats()
	if err != nil {
		return Stats{}, fmt.Errorf("measuring the cgroup of %s: %w", g.state.Name, err)
	}
	return stats, nil
}

// CPUTime is CPU.Total of Stats alone, for a tenth of what all of Stats takes.
func (g *Group) CPUTime() (time.Duration, error) {
	ns, err := g.driver.cpuTime()
	if err != nil {
		return 0, fmt.Errorf("measuring the cgroup of %s: %w", g.state.Name, err)
	}
	return time.Duration(ns), nil
}

// OOMKills tells how many processes the kernel killed since Create because the
// group was at its memory limit.
func (g *Group) OOMKills() (uint64, error) {
	kills, err := g.driver.oomKills()
	if err != nil {
		return 0, fmt.Errorf("reading the OOM kills of %s: %w", g.state.Name, err)
	}
	if kills < g.state.OOMKills {
		return kills, nil // another group by the same name
	}
	return kills - g.state.OOMKills, nil
}

// Delete removes the groups that Create made. It fails while there are
// processes in them; what is gone already is no error.
func (g *Group) Delete() error {
	if err := g.driver.delete(g.state.Created); err != nil {
		return fmt.Errorf("deleting the cgroup of %s: %w", g.state.Name, err)
	}
	return nil
}

// relative gives a path below the root as "/a/b".
func relative(path, root string) (string, error) {
	rest, below := strings.CutPrefix(path, root+"/")
	if !below || filepath.Clean(path) != path {
		return "", fmt.Errorf("cgroup path %q is not below %s", path, root)
	}
	return "/" + rest, nil
}

// noGroup stands for the group of a zero State.
type noGroup struct{}

func (noGroup) add(int) error             { return ErrGone }
func (noGroup) processes() ([]int, error) { return nil, ErrGone }
func (noGroup) stats() (Stats, error)     { return Stats{}, ErrGone }
func (noGroup) cpuTime() (uint64, error)  { return 0, ErrGone }
func (noGroup) oomKills() (uint64, error) { return 0, ErrGone }
func (noGroup) setShares(uint64) error    { return ErrGone }
func (noGroup) delete([]string) error     { return nil }
