// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package classifier

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/nomad/api"
)

// ErrCluster marks a look at the cluster that failed.
var ErrCluster = errors.New("look at the cluster")

// Cluster looks at the live cluster.
type Cluster interface {
	Group(ctx context.Context, need Need) (*GroupView, error)
}

// Need is a task that looks for a place.
type Need struct {
	// Namespace is the one that the job goes to, "": the default one.
	Namespace string
	Job       *api.Job
	Group     *api.TaskGroup
	Task      *api.Task
	// Arch is the one architecture its unikernel image is bound to, "": any.
	Arch string
	// MemoryMiB is what it takes as a unikernel, and GuestMiB the least that
	// the guest itself boots in, 0: unknown.
	MemoryMiB, GuestMiB int
}

// GroupView is what the cluster offers one task.
type GroupView struct {
	// Before is what the running job decided for the task, "" where it does
	// not run.
	Before Decision
	// PeakMiB is the most memory the running task has used, and PeakMHz the
	// most CPU that any of its instances was seen to use; 0: unknown.
	PeakMiB, PeakMHz float64
	// Placements says where the group could be placed as each runtime.
	Container, Unikernel Placement
}

// Placement is where a group could go.
type Placement struct {
	// Nodes that have all that the group needs.
	Fit int `json:"fit"`
	// Nodes looked at: those of the job's node pool and datacenters.
	Of int `json:"of"`
	// KVM is how many of the fitting nodes run the guest with KVM.
	KVM int `json:"kvm,omitempty"`
	// Nodes names the fitting nodes, at most ten.
	Nodes []string `json:"nodes,omitempty"`
	// Arch counts the fitting nodes by architecture.
	Arch map[string]int `json:"arch,omitempty"`
	// Takes is what one instance of the group takes.
	Takes Takes `json:"takes"`
	// FreeMiB and TotalMiB are the memory of the fitting nodes, without what
	// this job itself holds there.
	FreeMiB  int `json:"free_mib,omitempty"`
	TotalMiB int `json:"total_mib,omitempty"`
	// Room is how many instances of the group fit in, all together.
	Room int `json:"room"`
	// Runs counts the tasks on the fitting nodes by driver.
	Runs map[string]int `json:"runs,omitempty"`
	// Missing says what the others lack, most frequent first.
	Missing []string `json:"missing,omitempty"`
}

// Takes is what one instance of a group asks for.
type Takes struct {
	CPU       int `json:"cpu_mhz"`
	MemoryMiB int `json:"memory_mib"`
	DiskMiB   int `json:"disk_mib"`
}

// clusterSignals reads the live cluster.
func (s *subject) clusterSignals() {
	v := s.cluster
	ran := "running job"
	if v.Before != "" {
		ran += ", as a " + string(v.Before)
	}
	if v.PeakMiB > 0 {
		s.scaled("peak", float64(int(v.PeakMiB)), "MiB", ran)
	}
	if v.PeakMHz > 0 {
		s.scaled("peak_cpu", float64(int(v.PeakMHz)), "MHz", ran)
	}
	c, u := v.Container, v.Unikernel
	if c.Fit > u.Fit {
		s.scaled("nodes", percent(c.Fit-u.Fit, c.Fit), "%", fmt.Sprintf("%d nodes as a container, %d as a unikernel", c.Fit, u.Fit))
	}
	if u.Fit > u.KVM {
		s.scaled("emulated", percent(u.Fit-u.KVM, u.Fit), "%", fmt.Sprintf("%d fitting nodes, %d with KVM", u.Fit, u.KVM))
	}
	if u.FreeMiB > 0 && u.TotalMiB > 0 {
		s.scaled("free", percent(u.FreeMiB, u.TotalMiB), "%", fmt.Sprintf("%d of %d MiB on fitting nodes", u.FreeMiB, u.TotalMiB))
	}
	if all := total(u.Runs); all > 0 {
		s.scaled("neighbours", percent(u.Runs[driverUnikernel], all), "%", fmt.Sprintf("%d tasks on fitting nodes", all))
	}
}

func percent(part, of int) float64 { return float64(100 * part / of) }

func total(counts map[string]int) int {
	n := 0
	for _, c := range counts {
		n += c
	}
	return n
}

// clusterBlockers says what the cluster lacks for a unikernel.
func (s *subject) clusterBlockers() []string {
	if s.cluster == nil {
		return nil
	}
	p := s.cluster.Unikernel
	if p.Fit > 0 {
		return nil
	}
	why := fmt.Sprintf("none of the cluster's %d nodes could run it as a unikernel", p.Of)
	for i, m := range p.Missing {
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		why += sep + m
	}
	return []string{why}
}
