// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package cluster

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"

	"github.com/hashicorp/nomad/api"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier"
)

// mostNamed bounds the nodes that a placement names.
const mostNamed = 10

// way is one runtime: what a node lacks for it, whether it would run with KVM,
// and what an instance of the group takes.
type way struct {
	lacks func(n *node, need classifier.Need) string
	kvm   func(n *node, need classifier.Need) bool
	takes func(need classifier.Need) classifier.Takes
}

var asContainer = way{
	lacks: func(n *node, _ classifier.Need) string { return driverMissing(n, "docker") },
	kvm:   func(*node, classifier.Need) bool { return false },
	takes: func(need classifier.Need) classifier.Takes { return takes(need, memoryOf(need.Task)) },
}

var asUnikernel = way{
	lacks: unikernelLacks,
	kvm: func(n *node, need classifier.Need) bool {
		if need.Arch != "" {
			return n.Attributes["driver.unikernel.arch."+need.Arch] == "kvm"
		}
		return n.Attributes["driver.unikernel.kvm"] == "true"
	},
	takes: func(need classifier.Need) classifier.Takes { return takes(need, need.MemoryMiB) },
}

func unikernelLacks(n *node, need classifier.Need) string {
	if missing := driverMissing(n, "unikernel"); missing != "" {
		return missing
	}
	if need.Arch != "" && n.Attributes["driver.unikernel.arch."+need.Arch] == "" {
		return "cannot run " + need.Arch + " guests"
	}
	overhead, err := strconv.Atoi(n.Attributes["driver.unikernel.memory_overhead_mib"])
	if least := need.GuestMiB + overhead; err == nil && need.GuestMiB > 0 && need.MemoryMiB < least {
		return fmt.Sprintf("the guest needs %d MiB and its memory_overhead is %d MiB: %d MiB would do", need.GuestMiB, overhead, least)
	}
	return ""
}

func driverMissing(n *node, driver string) string {
	info := n.Drivers[driver]
	switch {
	case info == nil || !info.Detected:
		return "no " + driver + " driver"
	case !info.Healthy:
		return "its " + driver + " driver is not healthy"
	}
	return ""
}

// place finds the nodes that could take one instance of the group with the
// task run in one way, and says what the others lack.
func place(nodes []*node, need classifier.Need, w way) classifier.Placement {
	out := classifier.Placement{Takes: w.takes(need), Arch: map[string]int{}, Runs: map[string]int{}}
	missing := map[string]int{}
	for _, n := range nodes {
		if !inReach(n, need.Job) {
			continue
		}
		out.Of++
		why := w.lacks(n, need)
		if why == "" {
			why = unmet(n, need)
		}
		free := n.free(need)
		if why == "" {
			why = full(free, out.Takes)
		}
		if why != "" {
			missing[why]++
			continue
		}
		out.Fit++
		if w.kvm(n, need) {
			out.KVM++
		}
		if len(out.Nodes) < mostNamed {
			out.Nodes = append(out.Nodes, n.Name)
		}
		out.Arch[n.Attributes["cpu.arch"]]++
		out.FreeMiB += free.MemoryMiB
		out.TotalMiB += n.total().MemoryMiB
		out.Room += instances(free, out.Takes)
		n.running(need, out.Runs)
	}
	out.Missing = mostFrequent(missing)
	return out
}

func mostFrequent(missing map[string]int) []string {
	reasons := slices.SortedFunc(maps.Keys(missing), func(a, b string) int {
		return cmp.Or(cmp.Compare(missing[b], missing[a]), cmp.Compare(a, b))
	})
	var out []string
	for _, why := range reasons {
		out = append(out, fmt.Sprintf("%s (%d)", why, missing[why]))
	}
	return out
}

// inReach tells whether a node is in the job's pool and datacenters.
func inReach(n *node, job *api.Job) bool {
	pool := cmp.Or(str(job.NodePool), "default")
	if pool != "all" && cmp.Or(n.NodePool, "default") != pool {
		return false
	}
	if len(job.Datacenters) == 0 {
		return true // Nomad's default: all
	}
	return slices.ContainsFunc(job.Datacenters, func(pattern string) bool {
		ok, err := path.Match(pattern, n.Datacenter)
		return err == nil && ok
	})
}

// total is what a node has for tasks.
func (n *node) total() classifier.Takes {
	if n.NodeResources == nil {
		return classifier.Takes{}
	}
	t := classifier.Takes{
		CPU: int(n.NodeResources.Cpu.CpuShares), MemoryMiB: int(n.NodeResources.Memory.MemoryMB), DiskMiB: int(n.NodeResources.Disk.DiskMB),
	}
	if r := n.ReservedResources; r != nil {
		t.CPU, t.MemoryMiB, t.DiskMiB = t.CPU-int(r.Cpu.CpuShares), t.MemoryMiB-int(r.Memory.MemoryMB), t.DiskMiB-int(r.Disk.DiskMB)
	}
	return t
}

// free is what a node has left without what the job itself holds there: a new
// version of it takes the place of the old one.
func (n *node) free(need classifier.Need) classifier.Takes {
	left := n.total()
	for _, a := range n.allocs {
		if !holds(a) || isOf(a, need) {
			continue
		}
		for _, t := range a.AllocatedResources.Tasks {
			left.CPU, left.MemoryMiB = left.CPU-int(t.Cpu.CpuShares), left.MemoryMiB-int(t.Memory.MemoryMB)
		}
		left.DiskMiB -= int(a.AllocatedResources.Shared.DiskMB)
	}
	return left
}

// running counts the tasks of other jobs on a node by driver.
func (n *node) running(need classifier.Need, by map[string]int) {
	for _, a := range n.allocs {
		if !holds(a) || isOf(a, need) || a.Job == nil {
			continue
		}
		if g := a.Job.LookupTaskGroup(a.TaskGroup); g != nil {
			for _, t := range g.Tasks {
				by[t.Driver]++
			}
		}
	}
}

// full says which resource there is too little of for one instance.
func full(free, want classifier.Takes) string {
	switch {
	case want.MemoryMiB > free.MemoryMiB:
		return fmt.Sprintf("too little memory free for %d MiB", want.MemoryMiB)
	case want.CPU > free.CPU:
		return fmt.Sprintf("too little CPU free for %d MHz", want.CPU)
	case want.DiskMiB > free.DiskMiB:
		return fmt.Sprintf("too little disk free for %d MiB", want.DiskMiB)
	}
	return ""
}

// instances tells how many times what is wanted goes into what is free.
func instances(free, want classifier.Takes) int {
	n := 0
	for i, r := range [][2]int{{free.MemoryMiB, want.MemoryMiB}, {free.CPU, want.CPU}, {free.DiskMiB, want.DiskMiB}} {
		if r[1] > 0 && (i == 0 || r[0]/r[1] < n) {
			n = r[0] / r[1]
		}
	}
	return n
}

// holds tells whether an allocation takes up its node's resources.
func holds(a *api.Allocation) bool {
	if a.AllocatedResources == nil {
		return false
	}
	return a.ClientStatus == api.AllocClientStatusRunning || a.ClientStatus == api.AllocClientStatusPending
}

// isOf tells whether an allocation is of the job under decision, which a new
// version replaces.
func isOf(a *api.Allocation, need classifier.Need) bool {
	return a.JobID == str(need.Job.ID) && a.Namespace == cmp.Or(need.Namespace, api.DefaultNamespace)
}

// What Nomad takes for a task or group that says nothing.
const (
	defaultCPU, defaultMemoryMiB, defaultDiskMiB = 100, 300, 300
)

func memoryOf(t *api.Task) int {
	if t.Resources == nil {
		return defaultMemoryMiB
	}
	return or(t.Resources.MemoryMB, defaultMemoryMiB)
}

// takes adds up what one instance of the group takes, with the task's memory
// in place of its own.
func takes(need classifier.Need, memoryMiB int) classifier.Takes {
	var sum classifier.Takes
	for _, t := range need.Group.Tasks {
		cpu, memory := defaultCPU, memoryOf(t)
		if r := t.Resources; r != nil {
			cpu = or(r.CPU, cpu)
			if r.Cores != nil && *r.Cores > 0 {
				cpu = 0 // whole cores are Nomad's to find
			}
		}
		if t == need.Task {
			memory = memoryMiB
		}
		sum.CPU, sum.MemoryMiB = sum.CPU+cpu, sum.MemoryMiB+memory
	}
	sum.DiskMiB = defaultDiskMiB
	if d := need.Group.EphemeralDisk; d != nil {
		sum.DiskMiB = or(d.SizeMB, defaultDiskMiB)
	}
	return sum
}

func or(p *int, fallback int) int {
	if p == nil {
		return fallback
	}
	return *p
}
