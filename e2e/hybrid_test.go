// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

const instances = 3 // of steps, in the hybrid example

// hybridJob reads the example as its author wrote it, or as nomad-hybrid does.
func hybridJob(t *testing.T, ctx context.Context, rendered bool) *api.Job {
	t.Helper()
	path := site.Layout.Path("examples", "hybrid", "hybrid.nomad.hcl")
	vars := map[string]string{"images": site.ImageDir()}
	if !rendered {
		return parseJob(t, path, vars)
	}
	out, err := site.Render(ctx, path, vars)
	must.NoError(t, err)
	t.Logf("%s", out.Report)
	job, err := harness.ParseJob(path, out.Job, vars)
	must.NoError(t, err, must.Sprintf("%s", out.Job))
	return job
}

func parseJob(t *testing.T, path string, vars map[string]string) *api.Job {
	t.Helper()
	job, err := harness.ParseJobFile(path, vars)
	must.NoError(t, err)
	return job
}

func driverOf(t *testing.T, job *api.Job, group string) string {
	t.Helper()
	tasks := job.LookupTaskGroup(group).Tasks
	must.Len(t, 1, tasks)
	return tasks[0].Driver
}

// The rendered job runs a container and three unikernels side by side; the
// answers of all are right.
func TestHybrid(t *testing.T) {
	ctx := limit(t, 3*time.Minute)
	job := hybridJob(t, ctx, true)
	must.Eq(t, "docker", driverOf(t, job, "vision"))
	must.Eq(t, "unikernel", driverOf(t, job, "steps"))
	runHybrid(t, ctx, job)
}

// The job as its author wrote it runs without nomad-hybrid, all in containers,
// and answers the same.
func TestHybrid_Unrendered(t *testing.T) {
	ctx := limit(t, 3*time.Minute)
	job := hybridJob(t, ctx, false)
	must.Eq(t, "docker", driverOf(t, job, "steps"))
	runHybrid(t, ctx, job)
}

func runHybrid(t *testing.T, ctx context.Context, job *api.Job) {
	t.Helper()
	before := lookAtMachine(t)
	t.Cleanup(func() { nothingNew(t, before) }) // after the purge
	purge(t, *job.ID)
	must.NoError(t, site.Nomad.RunService(ctx, job))
	checkAnswers(t, ctx)
	checkChecks(t, ctx, *job.ID)
	checkStats(t, ctx, *job.ID)
}

// checkAnswers asks every instance that service discovery knows.
func checkAnswers(t *testing.T, ctx context.Context) {
	t.Helper()
	steps, err := site.Nomad.Instances(ctx, "steps", instances)
	must.NoError(t, err)
	want := averages(t)
	for _, at := range steps {
		var got averageAnswer
		must.NoError(t, get(ctx, at, "/average", &got))
		must.Eq(t, want, got)
		var top userAverage
		must.NoError(t, get(ctx, at, "/top", &top))
		must.Eq(t, want.top(), top)
	}
	vision, err := site.Nomad.Instances(ctx, "vision", 1)
	must.NoError(t, err)
	var seen struct {
		Faces []struct{ X, Y, Size int }
	}
	must.NoError(t, get(ctx, vision[0], "/detect", &seen))
	must.Len(t, 1, seen.Faces)
}

// checkChecks asks Nomad what its own HTTP checks say.
func checkChecks(t *testing.T, ctx context.Context, jobID string) {
	t.Helper()
	allocs, err := site.Nomad.WaitAllocs(ctx, jobID, func([]*api.AllocationListStub) bool { return true })
	must.NoError(t, err)
	must.Len(t, instances+1, allocs)
	for _, alloc := range allocs {
		checks, err := site.Nomad.Client.Allocations().Checks(alloc.ID, (&api.QueryOptions{}).WithContext(ctx))
		must.NoError(t, err)
		must.MapLen(t, 1, checks)
		for _, check := range checks {
			must.Eq(t, "success", check.Status, must.Sprint(check.Output))
		}
	}
}
