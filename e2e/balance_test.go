// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"
)

// Not one request is lost while the unikernels behind nginx become six, are
// replaced by another release, and become one again.
func TestBalance(t *testing.T) {
	ctx := limit(t, 90*time.Second)
	buildNginx(t)
	keepBridge(t)
	before := lookAtMachine(t)
	t.Cleanup(func() { nothingNew(t, before) }) // after the purge
	job := balanceJob(t, 1, "1")
	purge(t, *job.ID)
	must.NoError(t, site.Nomad.RunService(ctx, job))
	nginx, err := site.Nomad.Instances(ctx, "balance", 1)
	must.NoError(t, err)
	load := startLoad(ctx, fmt.Sprintf("http://%s/env", address(nginx[0].Address, nginx[0].Port)))
	t.Cleanup(func() { load.stop() })

	must.NoError(t, load.await(ctx, "one instance", servedBy(1, "1")))
	t.Log("1 instance:", load.report())

	scale(t, ctx, job, 6)
	must.NoError(t, load.await(ctx, "six instances", servedBy(6, "1")))
	t.Log("6 instances:", load.report())

	must.NoError(t, site.Nomad.Submit(ctx, balanceJob(t, 6, "2")))
	deployment := awaitCanary(t, ctx, *job.ID)
	must.NoError(t, load.await(ctx, "the canary beside the others", func(s *spread) bool {
		return servedBy(1, "2")(s) && servedBy(6, "1")(s)
	}))
	t.Log("with a canary:", load.report())

	_, _, err = site.Nomad.Client.Deployments().PromoteAll(deployment, (&api.WriteOptions{}).WithContext(ctx))
	must.NoError(t, err)
	_, err = site.Nomad.WaitDeployment(ctx, deployment, func(d *api.Deployment) bool { return d.Status == "successful" })
	must.NoError(t, err)
	must.NoError(t, load.await(ctx, "six instances of the new release alone", func(s *spread) bool {
		return servedBy(6, "2")(s) && servedBy(0, "1")(s)
	}))
	t.Log("promoted:", load.report())

	scale(t, ctx, job, 1)
	must.NoError(t, load.await(ctx, "one instance alone", servedBy(1, "2")))
	t.Log("1 instance again:", load.report())

	load.stop()
	t.Log("in all:", load.report())
	must.SliceEmpty(t, load.failures())
}

func balanceJob(t *testing.T, count int, release string) *api.Job {
	t.Helper()
	path := site.Layout.Path("examples", "balance", "balance.nomad.hcl")
	return parseJob(t, path, map[string]string{
		"images": site.ImageDir(), "count": strconv.Itoa(count), "release": release, "port": "0",
	})
}

func scale(t *testing.T, ctx context.Context, job *api.Job, count int) {
	t.Helper()
	_, _, err := site.Nomad.Client.Jobs().Scale(*job.ID, "steps", &count, "as `nomad job scale` does", false, nil, (&api.WriteOptions{}).WithContext(ctx))
	must.NoError(t, err)
}

// buildNginx makes the container image of examples/balance.
func buildNginx(t *testing.T) {
	t.Helper()
	must.NoError(t, site.Docker.Build(limit(t, time.Minute), "nginx:local", map[string]string{
		"Dockerfile": site.Layout.Build("balance", "Dockerfile"), "root.tar": site.Layout.Build("balance", "root.tar"),
	}))
}

// awaitCanary waits until a job's newest deployment has a healthy canary that
// is not promoted, and returns the deployment's ID.
func awaitCanary(t *testing.T, ctx context.Context, jobID string) string {
	t.Helper()
	latest, _, err := site.Nomad.Client.Jobs().LatestDeployment(jobID, (&api.QueryOptions{}).WithContext(ctx))
	must.NoError(t, err)
	deployment, err := site.Nomad.WaitDeployment(ctx, latest.ID, func(d *api.Deployment) bool {
		group := d.TaskGroups["steps"]
		return group.HealthyAllocs == 1 || d.Status == "failed"
	})
	must.NoError(t, err)
	must.Len(t, 1, deployment.TaskGroups["steps"].PlacedCanaries, must.Sprint(deployment.StatusDescription))
	must.False(t, deployment.TaskGroups["steps"].Promoted)
	return latest.ID
}

// servedBy tells whether exactly n instances of a release have answered of
// late.
func servedBy(n int, release string) func(*spread) bool {
	return func(s *spread) bool {
		instances := 0
		for instance := range s.recent {
			if instance.release == release {
				instances++
			}
		}
		return instances == n
	}
}

// perInstance is how many answers came from each instance, the most first.
func (s *spread) perInstance() []int {
	return slices.SortedFunc(maps.Values(s.answers), func(a, b int) int { return b - a })
}
