// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package cluster

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"

	"github.com/hashicorp/nomad/api"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier"
)

// needs says what a node lacks to run a task as one runtime, "" for nothing.
type needs func(n *node, need classifier.Need) string

func containerNeeds(n *node, _ classifier.Need) string {
	return driverMissing(n, "docker")
}

func unikernelNeeds(n *node, need classifier.Need) string {
	if missing := driverMissing(n, "unikernel"); missing != "" {
		return missing
	}
	if need.Arch != "" && n.Attributes["driver.unikernel.arch."+need.Arch] == "" {
		return "cannot run " + need.Arch + " guests"
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

// place counts the nodes that could take one instance of the group with the
// task run in one way. The author's own constraints are Nomad's to apply.
func place(nodes []*node, need classifier.Need, lacks needs) classifier.Placement {
	var out classifier.Placement
	missing := map[string]int{}
	for _, n := range nodes {
		if !inReach(n, need.Job) {
			continue
		}
		out.Of++
		why := lacks(n, need)
		if why == "" {
			why = full(n, need)
		}
		if why != "" {
			missing[why]++
			continue
		}
		out.Fit++
		if n.Attributes["driver.unikernel.kvm"] == "true" {
			out.KVM++
		}
	}
	reasons := slices.SortedFunc(maps.Keys(missing), func(a, b string) int {
		return cmp.Or(cmp.Compare(missing[b], missing[a]), cmp.Compare(a, b))
	})
	for _, why := range reasons {
		out.Missing = append(out.Missing, fmt.Sprintf("%s (%d)", why, missing[why]))
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

// full says which resource a node has too little of for one instance.
func full(n *node, need classifier.Need) string {
	if n.NodeResources == nil {
		return ""
	}
	cpu, memory := n.NodeResources.Cpu.CpuShares, n.NodeResources.Memory.MemoryMB
	disk := n.NodeResources.Disk.DiskMB
	if r := n.ReservedResources; r != nil {
		cpu, memory, disk = cpu-int64(r.Cpu.CpuShares), memory-int64(r.Memory.MemoryMB), disk-int64(r.Disk.DiskMB)
	}
	for _, a := range n.allocs {
		if !holds(a) || isOf(a, need.Job) {
			continue
		}
		for _, t := range a.AllocatedResources.Tasks {
			cpu, memory = cpu-t.Cpu.CpuShares, memory-t.Memory.MemoryMB
		}
		disk -= a.AllocatedResources.Shared.DiskMB
	}
	wantCPU, wantMemory, wantDisk := asks(need)
	switch {
	case wantMemory > memory:
		return fmt.Sprintf("too little memory free for %d MiB", wantMemory)
	case wantCPU > cpu:
		return fmt.Sprintf("too little CPU free for %d MHz", wantCPU)
	case wantDisk > disk:
		return fmt.Sprintf("too little disk free for %d MiB", wantDisk)
	}
	return ""
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
func isOf(a *api.Allocation, job *api.Job) bool {
	return a.JobID == str(job.ID) && a.Namespace == cmp.Or(str(job.Namespace), api.DefaultNamespace)
}

// asks adds up what one instance of the group takes, by Nomad's defaults where
// the author gave nothing.
func asks(need classifier.Need) (cpu, memory, disk int64) {
	for _, t := range need.Group.Tasks {
		c, m := 100, 300
		if r := t.Resources; r != nil {
			c, m = or(r.CPU, c), or(r.MemoryMB, m)
			if r.Cores != nil && *r.Cores > 0 {
				c = 0 // whole cores are Nomad's to find
			}
		}
		if t == need.Task {
			m = need.MemoryMiB
		}
		cpu, memory = cpu+int64(c), memory+int64(m)
	}
	disk = 300
	if d := need.Group.EphemeralDisk; d != nil {
		disk = int64(or(d.SizeMB, 300))
	}
	return cpu, memory, disk
}

func or(p *int, fallback int) int {
	if p == nil {
		return fallback
	}
	return *p
}
