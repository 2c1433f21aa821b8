// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package e2e

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"
)

// Tasks answer, and are the same tasks, whatever happens to the agent and the
// plugin above them.
func TestRestart(t *testing.T) {
	ctx := limit(t, 5*time.Minute)
	job := hybridJob(t, ctx, true)
	runHybrid(t, ctx, job)
	before := running(t, ctx, *job.ID)

	cases := []struct {
		name string
		do   func() error
	}{
		{"agent restarted", func() error { return site.Nomad.RestartNode(ctx, syscall.SIGINT) }},
		{"agent killed", func() error { return site.Nomad.RestartNode(ctx, syscall.SIGKILL) }},
		{"plugin killed", func() error { return site.Nomad.KillPlugin(ctx) }},
		{"agent and plugin upgraded", func() error { return site.Nomad.Upgrade(ctx) }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			stop := keepAsking(t, ctx)
			err := c.do()
			asked := stop()
			must.NoError(t, err)
			t.Logf("%d answers meanwhile", asked)
			must.Eq(t, before, running(t, ctx, *job.ID))
			checkAnswers(t, ctx)
			checkStats(t, ctx, *job.ID)
		})
	}
}

// running tells the tasks that run, by allocation, with how often each was
// restarted.
func running(t *testing.T, ctx context.Context, jobID string) map[string]uint64 {
	t.Helper()
	all := map[string]uint64{}
	allocs, err := site.Nomad.WaitAllocs(ctx, jobID, func([]*api.AllocationListStub) bool { return true })
	must.NoError(t, err)
	for _, alloc := range allocs {
		must.Eq(t, "running", alloc.ClientStatus)
		for task, state := range alloc.TaskStates {
			must.Eq(t, "running", state.State)
			all[alloc.ID+" "+task] = state.Restarts
		}
	}
	must.MapLen(t, instances+1, all)
	return all
}

// keepAsking asks every instance in turn until stopped, and fails the test for
// each answer that does not come. Stopped, it returns the number of answers.
func keepAsking(t *testing.T, ctx context.Context) (stop func() int) {
	t.Helper()
	var at []*api.ServiceRegistration
	for name, n := range map[string]int{"steps": instances, "vision": 1} {
		found, err := site.Nomad.Instances(ctx, name, n)
		must.NoError(t, err)
		at = append(at, found...)
	}
	ctx, cancel := context.WithCancel(ctx)
	asked := make(chan int)
	path := map[string]string{"steps": "/top", "vision": "/detect"}
	go func() {
		n := 0
		defer func() { asked <- n }()
		for {
			for _, instance := range at {
				var answer any
				err := get(context.WithoutCancel(ctx), instance, path[instance.ServiceName], &answer)
				if err != nil {
					t.Errorf("%s after %d answers: %v", instance.ServiceName, n, err)
					return
				}
				n++
			}
			if ctx.Err() != nil {
				return
			}
		}
	}()
	return func() int {
		cancel()
		return <-asked
	}
}

// checkStats awaits figures of memory from each task: a client that has just
// restored a task measures it a moment later.
func checkStats(t *testing.T, ctx context.Context, jobID string) {
	t.Helper()
	allocs, err := site.Nomad.WaitAllocs(ctx, jobID, func([]*api.AllocationListStub) bool { return true })
	must.NoError(t, err)
	for _, stub := range allocs {
		alloc, err := site.Nomad.Allocation(ctx, stub.ID)
		must.NoError(t, err)
		usage, err := site.Nomad.Stats(ctx, alloc)
		must.NoError(t, err)
		for task, resources := range usage.Tasks {
			memory := resources.ResourceUsage.MemoryStats
			must.Positive(t, max(memory.RSS, memory.Usage), must.Sprintf("task %s: %+v", task, memory))
		}
	}
}
