// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Package cluster looks at a live Nomad cluster for decisions: which nodes
// could run a task as a container or as a unikernel, what they have free, and
// how the task did while it ran before.
package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"

	"github.com/hashicorp/nomad/api"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier"
)

// View reads a cluster once, when it is first asked, so that all tasks of a
// job are decided by the same picture of it.
type View struct {
	client *api.Client

	once  sync.Once
	nodes []*node
	err   error

	mu      sync.Mutex
	running map[string]*history
}

var _ classifier.Cluster = (*View)(nil)

// New makes a view by a client of Nomad's API.
func New(client *api.Client) *View {
	return &View{client: client, running: map[string]*history{}}
}

// node is a node that takes work, with what its allocations use.
type node struct {
	*api.Node
	allocs []*api.Allocation
}

func (v *View) load(ctx context.Context) ([]*node, error) {
	v.once.Do(func() { v.nodes, v.err = v.readNodes(ctx) })
	return v.nodes, v.err
}

// allowed says what a token must be allowed to, where that is what it lacks.
func allowed(err error, what string) error {
	var answer api.UnexpectedResponseError
	if errors.As(err, &answer) && answer.StatusCode() == http.StatusForbidden {
		return fmt.Errorf("%w; -cluster takes a token that is allowed %s", err, what)
	}
	return err
}

func query(ctx context.Context) *api.QueryOptions {
	return (&api.QueryOptions{AllowStale: true}).WithContext(ctx)
}

// readNodes reads the nodes that are up and eligible.
func (v *View) readNodes(ctx context.Context) ([]*node, error) {
	stubs, _, err := v.client.Nodes().List(query(ctx))
	if err != nil {
		return nil, fmt.Errorf("list the nodes: %w", allowed(err, "node:read"))
	}
	var out []*node
	for _, stub := range stubs {
		if stub.Status != api.NodeStatusReady || stub.SchedulingEligibility != api.NodeSchedulingEligible {
			continue
		}
		info, _, err := v.client.Nodes().Info(stub.ID, query(ctx))
		if err != nil {
			return nil, fmt.Errorf("read node %s: %w", stub.Name, allowed(err, "node:read"))
		}
		allocs, _, err := v.client.Nodes().Allocations(stub.ID, query(ctx))
		if err != nil {
			return nil, fmt.Errorf("read the allocations of node %s: %w", stub.Name, allowed(err, "node:read"))
		}
		out = append(out, &node{Node: info, allocs: allocs})
	}
	slices.SortFunc(out, func(a, b *node) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// Group tells what the cluster offers a task and its group.
func (v *View) Group(ctx context.Context, need classifier.Need) (*classifier.GroupView, error) {
	nodes, err := v.load(ctx)
	if err != nil {
		return nil, err
	}
	past, err := v.history(ctx, need)
	if err != nil {
		return nil, err
	}
	key := taskKey{str(need.Group.Name), need.Task.Name}
	out := &classifier.GroupView{Before: past.before[key], PeakMiB: past.peak[key].mib, PeakMHz: past.peak[key].mhz}
	out.Container = place(nodes, need, asContainer)
	out.Unikernel = place(nodes, need, asUnikernel)
	return out, nil
}

// taskKey names a task within its job.
type taskKey struct{ group, task string }

// history is what the running version of a job tells.
type history struct {
	before map[taskKey]classifier.Decision
	peak   map[taskKey]usage
}

// usage is the most that any instance of a task was seen to use.
type usage struct{ mib, mhz float64 }

// history reads the running job; a job that does not run has none.
func (v *View) history(ctx context.Context, need classifier.Need) (*history, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	id, ns := str(need.Job.ID), cmp.Or(need.Namespace, api.DefaultNamespace)
	if h, ok := v.running[ns+"/"+id]; ok {
		return h, nil
	}
	h := &history{before: map[taskKey]classifier.Decision{}, peak: map[taskKey]usage{}}
	q := query(ctx)
	q.Namespace = ns
	running, _, err := v.client.Jobs().Info(id, q)
	var answer api.UnexpectedResponseError
	if errors.As(err, &answer) && answer.StatusCode() == http.StatusNotFound {
		v.running[ns+"/"+id] = h
		return h, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the running job %q: %w", id, allowed(err, fmt.Sprintf("read-job in namespace %q", ns)))
	}
	if running.Stop == nil || !*running.Stop {
		h.decisions(running)
		if err := v.peaks(ctx, h, id, ns); err != nil {
			return nil, err
		}
	}
	v.running[ns+"/"+id] = h
	return h, nil
}

func (h *history) decisions(job *api.Job) {
	for _, g := range job.TaskGroups {
		for _, t := range g.Tasks {
			switch d := classifier.Decision(t.Meta[classifier.MetaDecision]); d {
			case classifier.Container, classifier.Unikernel:
				h.before[taskKey{str(g.Name), t.Name}] = d
			}
		}
	}
}

// peaks reads the most memory and CPU each task has used. Statistics of an allocation
// whose node does not answer are left out: they are one signal among others.
func (v *View) peaks(ctx context.Context, h *history, id, ns string) error {
	q := query(ctx)
	q.Namespace = ns
	allocs, _, err := v.client.Jobs().Allocations(id, false, q)
	if err != nil {
		return fmt.Errorf("read the allocations of job %q: %w", id, err)
	}
	for _, stub := range allocs {
		if stub.ClientStatus != api.AllocClientStatusRunning {
			continue
		}
		stats, err := v.client.Allocations().Stats(&api.Allocation{ID: stub.ID, Namespace: stub.Namespace, NodeID: stub.NodeID}, q)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(stats.Tasks)) {
			key := taskKey{stub.TaskGroup, name}
			h.peak[key] = h.peak[key].most(used(stats.Tasks[name]))
		}
	}
	return nil
}

func (u usage) most(o usage) usage { return usage{max(u.mib, o.mib), max(u.mhz, o.mhz)} }

// used reads a task's statistics. Nomad keeps the highest memory where the
// kernel counts it, and of the CPU only what is used now.
func used(u *api.TaskResourceUsage) usage {
	var out usage
	if u == nil || u.ResourceUsage == nil {
		return out
	}
	if m := u.ResourceUsage.MemoryStats; m != nil {
		out.mib = float64(max(m.MaxUsage, m.Usage, m.RSS)) / (1 << 20)
	}
	if c := u.ResourceUsage.CpuStats; c != nil {
		out.mhz = c.TotalTicks
	}
	return out
}

func str(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
