// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package classifier

import (
	"context"
	"fmt"

	"github.com/hashicorp/nomad/api"
)

// Cluster looks at the live cluster.
type Cluster interface {
	Group(ctx context.Context, need Need) (*GroupView, error)
}

// Need is a task that looks for a place.
type Need struct {
	Job   *api.Job
	Group *api.TaskGroup
	Task  *api.Task
	// Arch is the one architecture its unikernel image is bound to, "": any.
	Arch string
	// MemoryMiB is what it takes as a unikernel.
	MemoryMiB int
}

// GroupView is what the cluster offers one task.
type GroupView struct {
	// Before is what the running job decided for the task, "" where it does
	// not run.
	Before Decision
	// PeakMiB is the most memory the running task has used, 0: unknown.
	PeakMiB float64
	// Placements says where the group could be placed as each runtime.
	Container, Unikernel Placement
}

// Placement is where a group could go.
type Placement struct {
	// Nodes that have all that the group needs.
	Fit int `json:"fit"`
	// Nodes looked at.
	Of int `json:"of"`
	// KVM is how many of the fitting nodes run unikernels with KVM.
	KVM int `json:"kvm,omitempty"`
	// Missing says what the others lack, most frequent first.
	Missing []string `json:"missing,omitempty"`
}

func (s *subject) clusterSignals(w *Weights) {
	if s.cluster != nil && s.cluster.PeakMiB > 0 {
		s.scaled("peak", float64(int(s.cluster.PeakMiB)), "MiB", "running job", w.Peak)
	}
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
