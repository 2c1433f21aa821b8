// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
)

// follower tells what becomes of an evaluation and its deployment. It waits by
// blocking queries: Nomad answers when something changed.
type follower struct {
	client  *api.Client
	out     io.Writer
	verbose bool
	shown   map[string]string // allocation: its status as it was last told
}

// exitUnplaced is the status where Nomad could not place all of a job.
const exitUnplaced = 2

func (f *follower) say(format string, args ...any) {
	fmt.Fprintf(f.out, "%s: %s\n", time.Now().Format(time.RFC3339), fmt.Sprintf(format, args...))
}

func (f *follower) id(id string) string {
	if f.verbose || len(id) < 8 {
		return id
	}
	return id[:8]
}

func (f *follower) query(ctx context.Context, index uint64) *api.QueryOptions {
	return (&api.QueryOptions{WaitIndex: index, WaitTime: time.Minute}).WithContext(ctx)
}

// evaluation follows an evaluation, those that come after it, and the
// deployment, and returns the exit status of `nomad job run`.
func (f *follower) evaluation(ctx context.Context, id string) (int, error) {
	unplaced := false
	for {
		f.say("Monitoring evaluation %q", f.id(id))
		eval, err := f.await(ctx, id)
		if err != nil {
			return exitFailed, err
		}
		f.say("Evaluation %q finished with status %q", f.id(id), eval.Status)
		if eval.StatusDescription != "" && eval.Status != api.EvalStatusComplete {
			f.say("%s", eval.StatusDescription)
		}
		unplaced = len(eval.FailedTGAllocs) > 0
		f.failures(eval)
		if eval.NextEval == "" {
			return f.result(ctx, eval, unplaced)
		}
		id = eval.NextEval
	}
}

func (f *follower) result(ctx context.Context, eval *api.Evaluation, unplaced bool) (int, error) {
	if eval.DeploymentID != "" {
		ok, err := f.deployment(ctx, eval.DeploymentID)
		if err != nil || !ok {
			return exitFailed, err
		}
		return exitDone, nil
	}
	if unplaced {
		return exitUnplaced, nil
	}
	return exitDone, nil // also where the evaluation failed: Nomad's own tool ends so
}

// await returns an evaluation when it is done.
func (f *follower) await(ctx context.Context, id string) (*api.Evaluation, error) {
	index := uint64(0)
	for {
		eval, meta, err := f.client.Evaluations().Info(id, f.query(ctx, index))
		if err != nil {
			return nil, fmt.Errorf("follow evaluation %q: %w", f.id(id), err)
		}
		if err := f.allocations(ctx, id); err != nil {
			return nil, err
		}
		switch eval.Status {
		case api.EvalStatusComplete, api.EvalStatusFailed, api.EvalStatusCancelled:
			return eval, nil
		}
		index = meta.LastIndex
	}
}

// allocations tells what is new about an evaluation's allocations.
func (f *follower) allocations(ctx context.Context, evalID string) error {
	allocs, _, err := f.client.Evaluations().Allocations(evalID, f.query(ctx, 0))
	if err != nil {
		return fmt.Errorf("follow evaluation %q: read its allocations: %w", f.id(evalID), err)
	}
	if f.shown == nil {
		f.shown = map[string]string{}
	}
	slices.SortFunc(allocs, func(a, b *api.AllocationListStub) int {
		return cmp.Or(cmp.Compare(a.TaskGroup, b.TaskGroup), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	for _, a := range allocs {
		before, known := f.shown[a.ID]
		switch {
		case !known:
			f.say("Allocation %q of group %q on node %q: %s", f.id(a.ID), a.TaskGroup, a.NodeName, a.ClientStatus)
		case before != a.ClientStatus:
			f.say("Allocation %q of group %q: %s -> %s", f.id(a.ID), a.TaskGroup, before, a.ClientStatus)
		}
		f.shown[a.ID] = a.ClientStatus
	}
	return nil
}

// failures tells why groups could not be placed.
func (f *follower) failures(eval *api.Evaluation) {
	for _, group := range slices.Sorted(maps.Keys(eval.FailedTGAllocs)) {
		m := eval.FailedTGAllocs[group]
		f.say("Task Group %q: %s could not be placed", group, plural(m.CoalescedFailures+1, "allocation"))
		for _, why := range placementFailures(m) {
			fmt.Fprintln(f.out, "    * "+why)
		}
	}
	if eval.BlockedEval != "" {
		f.say("Evaluation %q waits for more capacity to place the rest", f.id(eval.BlockedEval))
	}
}

func placementFailures(m *api.AllocationMetric) []string {
	var why []string
	if m.NodesEvaluated == 0 {
		why = append(why, "No nodes were eligible for evaluation")
	}
	for _, dc := range slices.Sorted(maps.Keys(m.NodesAvailable)) {
		if m.NodesAvailable[dc] == 0 {
			why = append(why, fmt.Sprintf("No nodes are available in datacenter %q", dc))
		}
	}
	for _, part := range []struct {
		format string
		count  map[string]int
	}{
		{"Class %q: %d nodes excluded by filter", m.ClassFiltered},
		{"Constraint %q: %d nodes excluded by filter", m.ConstraintFiltered},
		{"Class %q exhausted on %d nodes", m.ClassExhausted},
		{"Dimension %q exhausted on %d nodes", m.DimensionExhausted},
	} {
		for _, key := range slices.Sorted(maps.Keys(part.count)) {
			why = append(why, fmt.Sprintf(part.format, key, part.count[key]))
		}
	}
	for _, q := range m.QuotaExhausted {
		why = append(why, fmt.Sprintf("Quota limit hit %q", q))
	}
	return why
}

// deployment follows a deployment to its end and tells whether it succeeded.
func (f *follower) deployment(ctx context.Context, id string) (bool, error) {
	f.say("Monitoring deployment %q", f.id(id))
	index, told := uint64(0), ""
	for {
		d, meta, err := f.client.Deployments().Info(id, f.query(ctx, index))
		if err != nil {
			return false, fmt.Errorf("follow deployment %q: %w", f.id(id), err)
		}
		if now := deploymentState(d); now != told {
			f.say("Deployment %q: %s", f.id(id), now)
			told = now
		}
		switch d.Status {
		case api.DeploymentStatusSuccessful:
			return true, nil
		case api.DeploymentStatusFailed, api.DeploymentStatusCancelled, api.DeploymentStatusBlocked:
			f.say("%s", d.StatusDescription)
			return false, nil
		}
		index = meta.LastIndex
	}
}

func deploymentState(d *api.Deployment) string {
	parts := []string{d.Status}
	for _, name := range slices.Sorted(maps.Keys(d.TaskGroups)) {
		g := d.TaskGroups[name]
		parts = append(parts, fmt.Sprintf("%s %d/%d healthy, %d unhealthy", name, g.HealthyAllocs, g.DesiredTotal, g.UnhealthyAllocs))
	}
	return strings.Join(append(parts, d.StatusDescription), "; ")
}
