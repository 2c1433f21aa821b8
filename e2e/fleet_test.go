// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package e2e

import (
	"context"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

// A site of three nodes, each with a network of its own. One has Docker and
// may not emulate; two have no Docker.
func TestFleet(t *testing.T) {
	before := lookAtMachine(t)
	t.Cleanup(func() { nothingNew(t, before) }) // after the fleet's end
	fleet, err := site.StartFleet(limit(t, time.Minute),
		harness.PlaceOptions{Name: "heavy", Docker: true, NoEmulation: true},
		harness.PlaceOptions{Name: "edge-1"},
		harness.PlaceOptions{Name: "edge-2"},
	)
	must.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		must.NoError(t, site.StopFleet(ctx))
	})
	f := &fleetTest{fleet}
	t.Run("placement", f.placement)
	t.Run("drain", f.drain)
	t.Run("cut off", f.cutOff)
	t.Run("cut off and replaced", f.replaced)
}

type fleetTest struct{ *harness.Fleet }

func (f *fleetTest) place(name string) *harness.Place {
	i := slices.IndexFunc(f.Nodes, func(p *harness.Place) bool { return p.Name == name })
	return f.Nodes[i]
}

// run runs the hybrid example over the nodes until the test's end.
func (f *fleetTest) run(t *testing.T, ctx context.Context, change func(steps *api.TaskGroup)) *api.Job {
	t.Helper()
	job := hybridJob(t, ctx, true)
	steps := job.LookupTaskGroup("steps")
	steps.Migrate.MinHealthyTime = new(time.Second)
	steps.Migrate.MaxParallel = new(instances)
	if change != nil {
		change(steps)
	}
	f.purge(t, *job.ID)
	must.NoError(t, f.RunService(ctx, job))
	return job
}

func (f *fleetTest) purge(t *testing.T, jobID string) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		must.NoError(t, f.Purge(ctx, jobID))
	})
}

// placement: each group goes where its driver is, and a constraint on an
// attribute of the driver's is followed.
func (f *fleetTest) placement(t *testing.T) {
	ctx := limit(t, time.Minute)
	job := f.run(t, ctx, nil)
	nodes := map[string]int{}
	for _, alloc := range f.runningOf(t, ctx, job, "") {
		nodes[alloc.TaskGroup+" on "+alloc.NodeName]++
	}
	t.Log(nodes)
	must.Eq(t, 1, nodes["vision on heavy"])
	must.Positive(t, nodes["steps on edge-1"])
	must.Positive(t, nodes["steps on edge-2"])
	if f.attributes(t, ctx, "heavy")["driver.unikernel"] != "1" { // where KVM works, it has the driver
		must.Eq(t, 0, nodes["steps on heavy"])
	}
	f.answers(t, ctx)

	// Where emulation is off, the other architecture is impossible.
	attribute := "driver.unikernel.arch." + otherArch()
	must.MapNotContainsKey(t, f.attributes(t, ctx, "heavy"), attribute)
	must.Eq(t, "tcg", f.attributes(t, ctx, "edge-1")[attribute])
	for range 3 {
		alloc := f.runOther(t, ctx, &api.Constraint{LTarget: "${attr." + attribute + "}", Operand: "is_set"})
		must.StrHasPrefix(t, "edge-", alloc.NodeName)
	}
	f.wantKVM(t, ctx)
}

// wantKVM: a job that constrains itself to KVM runs where it works, and else
// is not placed, for that reason.
func (f *fleetTest) wantKVM(t *testing.T, ctx context.Context) {
	t.Helper()
	const attribute = "${attr.driver.unikernel.kvm}"
	works := slices.ContainsFunc(f.Nodes, func(p *harness.Place) bool {
		return f.attributes(t, ctx, p.Name)["driver.unikernel.kvm"] == "true"
	})
	job := parseJob(t, site.Layout.Path("e2e", "jobs", "one.nomad.hcl"), map[string]string{"image": steps(runtime.GOARCH)})
	job.Constrain(&api.Constraint{LTarget: attribute, RTarget: "true", Operand: "="})
	f.purge(t, *job.ID)
	err := f.Submit(ctx, job)
	if works {
		must.NoError(t, err)
		return
	}
	must.ErrorContains(t, err, attribute+" = true")
}

// runOther runs a guest of the other architecture to its end.
func (f *fleetTest) runOther(t *testing.T, ctx context.Context, constraint *api.Constraint) *api.AllocationListStub {
	t.Helper()
	job := parseJob(t, site.Layout.Path("e2e", "jobs", "one.nomad.hcl"), map[string]string{"image": steps(otherArch())})
	job.Constrain(constraint)
	must.NoError(t, f.Submit(ctx, job))
	allocs, err := f.WaitAllocs(ctx, *job.ID, harness.Ended)
	must.NoError(t, err)
	must.Eq(t, "complete", allocs[0].ClientStatus)
	must.NoError(t, f.Purge(ctx, *job.ID))
	return allocs[0]
}

// drain: the unikernels of a node that is drained go to another.
func (f *fleetTest) drain(t *testing.T) {
	ctx := limit(t, time.Minute)
	job := f.run(t, ctx, nil)
	drained := f.place("edge-1")
	must.Positive(t, len(f.stepsOn(t, ctx, job, drained)))
	q := (&api.WriteOptions{}).WithContext(ctx)
	_, err := f.Client.Nodes().UpdateDrain(drained.ID, &api.DrainSpec{Deadline: time.Minute}, false, q)
	must.NoError(t, err)
	must.NoError(t, f.AwaitNode(ctx, drained, func(n *api.NodeListStub) bool { return !n.Drain }))
	f.awaitElsewhere(t, ctx, job, drained)
	f.answers(t, ctx)
	_, err = f.Client.Nodes().ToggleEligibility(drained.ID, true, q)
	must.NoError(t, err)
}

// cutOff: a node that comes back in time finds its tasks, which went on.
func (f *fleetTest) cutOff(t *testing.T) {
	ctx := limit(t, 90*time.Second)
	job := f.run(t, ctx, func(group *api.TaskGroup) {
		group.Disconnect = &api.DisconnectStrategy{
			LostAfter: new(10 * time.Minute), Replace: new(false), Reconcile: new(api.ReconcileOptionKeepOriginal),
		}
	})
	cut := f.place("edge-2")
	before := f.stepsOn(t, ctx, job, cut)
	must.Positive(t, len(before))
	guests := guestsOf(t, before)

	f.cut(t, cut)
	must.NoError(t, f.AwaitNode(ctx, cut, status(api.NodeStatusDisconnected)))
	f.await(t, ctx, job, before, "unknown")

	must.NoError(t, f.Join(cut))
	must.NoError(t, f.AwaitNode(ctx, cut, status(api.NodeStatusReady)))
	f.await(t, ctx, job, before, "running")
	must.Eq(t, guests, guestsOf(t, before))
	f.answers(t, ctx)
}

// replaced: without a disconnect block the tasks of a node that is cut off are
// started elsewhere, and those that it still has when it is back are stopped.
func (f *fleetTest) replaced(t *testing.T) {
	ctx := limit(t, 90*time.Second)
	job := f.run(t, ctx, nil)
	cut := f.place("edge-2")
	before := f.stepsOn(t, ctx, job, cut)
	must.Positive(t, len(before))

	f.cut(t, cut)
	must.NoError(t, f.AwaitNode(ctx, cut, status(api.NodeStatusDown)))
	f.awaitElsewhere(t, ctx, job, cut)
	f.answers(t, ctx)

	must.NoError(t, f.Join(cut))
	must.NoError(t, f.AwaitNode(ctx, cut, status(api.NodeStatusReady)))
	f.await(t, ctx, job, before, "complete")
	must.MapEmpty(t, guestsOf(t, before))
	must.Len(t, instances, f.runningOf(t, ctx, job, "steps"))
	f.answers(t, ctx)
}

// cut pulls a node's cable, until the test's end at the latest: a node that is
// never back does not learn that its tasks are to stop.
func (f *fleetTest) cut(t *testing.T, place *harness.Place) {
	t.Helper()
	t.Cleanup(func() { must.NoError(t, f.Join(place)) })
	must.NoError(t, f.Cut(place))
}

func status(want string) func(*api.NodeListStub) bool {
	return func(n *api.NodeListStub) bool { return n.Status == want }
}

func (f *fleetTest) attributes(t *testing.T, ctx context.Context, name string) map[string]string {
	t.Helper()
	node, _, err := f.Client.Nodes().Info(f.place(name).ID, (&api.QueryOptions{}).WithContext(ctx))
	must.NoError(t, err)
	return node.Attributes
}

// runningOf lists the allocations that run of a group; empty: of all.
func (f *fleetTest) runningOf(t *testing.T, ctx context.Context, job *api.Job, group string) []*api.AllocationListStub {
	t.Helper()
	allocs, _, err := f.Client.Jobs().Allocations(*job.ID, false, (&api.QueryOptions{}).WithContext(ctx))
	must.NoError(t, err)
	return slices.DeleteFunc(allocs, func(a *api.AllocationListStub) bool {
		return a.ClientStatus != "running" || a.DesiredStatus != "run" || group != "" && a.TaskGroup != group
	})
}

// stepsOn lists the unikernels that run on a node.
func (f *fleetTest) stepsOn(t *testing.T, ctx context.Context, job *api.Job, place *harness.Place) []*api.AllocationListStub {
	t.Helper()
	return slices.DeleteFunc(f.runningOf(t, ctx, job, "steps"), func(a *api.AllocationListStub) bool {
		return a.NodeID != place.ID
	})
}

// awaitElsewhere waits until as many unikernels run as the job asks for, none
// of them on a node.
func (f *fleetTest) awaitElsewhere(t *testing.T, ctx context.Context, job *api.Job, left *harness.Place) {
	t.Helper()
	_, err := f.WaitAllocs(ctx, *job.ID, func(allocs []*api.AllocationListStub) bool {
		elsewhere := 0
		for _, a := range allocs {
			if a.TaskGroup == "steps" && a.DesiredStatus == "run" && a.ClientStatus == "running" && a.NodeID != left.ID {
				elsewhere++
			}
		}
		return elsewhere == instances
	})
	must.NoError(t, err)
	must.SliceEmpty(t, f.stepsOn(t, ctx, job, left))
}

// await waits until each of some allocations has a status.
func (f *fleetTest) await(t *testing.T, ctx context.Context, job *api.Job, some []*api.AllocationListStub, status string) {
	t.Helper()
	_, err := f.WaitAllocs(ctx, *job.ID, func(allocs []*api.AllocationListStub) bool {
		return !slices.ContainsFunc(allocs, func(a *api.AllocationListStub) bool {
			among := slices.ContainsFunc(some, func(s *api.AllocationListStub) bool { return s.ID == a.ID })
			return among && a.ClientStatus != status
		})
	})
	must.NoError(t, err)
}

// guestsOf finds the processes of allocations' unikernels.
func guestsOf(t *testing.T, allocs []*api.AllocationListStub) map[string][]int {
	t.Helper()
	found := map[string][]int{}
	for _, alloc := range allocs {
		pids, err := harness.ProcessesOf(alloc.ID)
		must.NoError(t, err)
		if len(pids) > 0 {
			found[alloc.ID] = pids
		}
	}
	return found
}

// answers asks every instance that the fleet's service discovery knows. One
// that has just been placed may not answer yet.
func (f *fleetTest) answers(t *testing.T, ctx context.Context) {
	t.Helper()
	found, err := f.Instances(ctx, "steps", instances)
	must.NoError(t, err)
	want := averages(t)
	for _, at := range found {
		var got averageAnswer
		must.NoError(t, eventually(ctx, func() error { return get(ctx, at, "/average", &got) }))
		must.Eq(t, want, got)
	}
}
