// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

// Jobs whose images come from a registry, packed as the tools of this field
// pack them.
func TestImages(t *testing.T) {
	h := newHub(t)
	cache := cacheOf(t, h)
	t.Run("kraftkit and urunc, both architectures", func(t *testing.T) { imagesRun(t, h) })
	t.Run("ten tasks make one download", func(t *testing.T) { imagesPulledOnce(t, h, cache) })
	t.Run("plugin killed in mid-pull", func(t *testing.T) { imagesKilledInMidPull(t, h, cache) })
	t.Run("refused", func(t *testing.T) { imagesRefused(t, h, cache) })
}

// cacheOf has the node pull from the registry into a cache of its own, and
// returns its folder, which the next cluster in its place clears.
func cacheOf(t *testing.T, h *hub) string {
	t.Helper()
	dir := filepath.Join(site.Nomad.Dir, "image-cache")
	must.NoError(t, os.RemoveAll(dir))
	file := filepath.Join(site.Nomad.Dir, "client.hcl")
	before, err := os.ReadFile(file)
	must.NoError(t, err)
	const first = "    image_paths = "
	must.StrContains(t, string(before), first)
	block := fmt.Sprintf("    cache {\n      dir                 = %q\n      insecure_registries = [%q]\n    }\n", dir, h.host)
	must.NoError(t, os.WriteFile(file, []byte(strings.Replace(string(before), first, block+first, 1)), 0o644))
	// For the next start: until then, the node only knows one more registry.
	t.Cleanup(func() { must.NoError(t, os.WriteFile(file, before, 0o644)) })
	must.NoError(t, site.Nomad.RestartNode(limit(t, time.Minute), syscall.SIGINT))
	return dir
}

func imageJob(t *testing.T, vars map[string]string) *api.Job {
	t.Helper()
	job, err := harness.ParseJobFile(site.Layout.Path("e2e", "jobs", "image.nomad.hcl"), vars)
	must.NoError(t, err)
	return job
}

// imageRuns runs a job of n instances of an image, and checks what they answer.
func imageRuns(t *testing.T, ctx context.Context, n int, args []string, vars map[string]string) {
	t.Helper()
	vars["count"] = strconv.Itoa(n)
	job := imageJob(t, vars)
	purge(t, *job.ID)
	must.NoError(t, site.Nomad.RunService(ctx, job))
	imageAnswers(t, ctx, n, args)
}

func imageAnswers(t *testing.T, ctx context.Context, n int, args []string) {
	t.Helper()
	want := averages(t).top()
	instances, err := site.Nomad.Instances(ctx, "image", n)
	must.NoError(t, err)
	for _, at := range instances {
		var top userAverage
		must.NoError(t, get(ctx, at, "/top", &top))
		must.Eq(t, want, top)
		var got []string
		must.NoError(t, get(ctx, at, "/args", &got))
		must.Eq(t, args, got)
	}
}

// Packages of each kind run on both architectures, with the arguments that
// they bring.
func imagesRun(t *testing.T, h *hub) {
	args := []string{"--port=8081"}
	both := h.push("acme/steps:1", indexOf(t, kraftkit(t, "qemu", "arm64", args...), kraftkit(t, "qemu", "x86_64", args...)))
	annotated := h.push("acme/urunc:1", urunc(t, "arm64", args...))
	cases := []struct{ name, image, arch, booted string }{
		{"kraftkit arm64", both, "arm64", "Booted unikraft guest on arm64"},
		{"kraftkit x86_64", both, "x86_64", "Booted unikraft guest on x86_64"},
		{"urunc", annotated, "", "Booted unikraft guest on arm64"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ctx := limit(t, time.Minute)
			before := lookAtMachine(t)
			t.Cleanup(func() { nothingNew(t, before) }) // after the purge
			imageRuns(t, ctx, 1, args, map[string]string{"image": c.image, "arch": c.arch})
			must.StrContains(t, site.Nomad.Describe(ctx, "image"), c.booted)
		})
	}
}

func imagesPulledOnce(t *testing.T, h *hub, cache string) {
	const tasks = 10
	before := lookAtMachine(t)
	t.Cleanup(func() { nothingNew(t, before) }) // after the purge
	args := []string{"--port=8081", "ten"}
	image := kraftkit(t, "qemu", "arm64", args...)
	imageRuns(t, limit(t, 2*time.Minute), tasks, args, map[string]string{"image": h.push("acme/steps:ten", image)})
	must.Eq(t, []int{1, 1}, h.downloaded(image))
	cacheIsWhole(t, cache)
}

// The plugin is killed while half of a kernel is in its cache. Nomad starts it
// again, and the task runs without having failed.
func imagesKilledInMidPull(t *testing.T, h *hub, cache string) {
	ctx := limit(t, time.Minute)
	before := lookAtMachine(t)
	t.Cleanup(func() { nothingNew(t, before) }) // after the purge
	args := []string{"--port=8081", "slow"}
	image := kraftkit(t, "qemu", "arm64", args...)
	layers, err := image.Layers()
	must.NoError(t, err)
	job := imageJob(t, map[string]string{"image": h.push("acme/steps:slow", image)})
	halfway := h.stall(layers[0])
	purge(t, *job.ID)
	must.NoError(t, site.Nomad.Submit(ctx, job))
	select {
	case <-halfway:
	case <-ctx.Done():
		t.Fatalf("nothing was pulled: %v\n%s", context.Cause(ctx), site.Nomad.Describe(context.Background(), *job.ID))
	}
	must.SliceLen(t, 1, names(t, cache, "tmp"))

	must.NoError(t, site.Nomad.KillPlugin(ctx))
	_, err = site.Nomad.WaitAllocs(ctx, *job.ID, imageHealthy)
	must.NoError(t, err)
	imageAnswers(t, ctx, 1, args)
	must.Eq(t, []int{2, 2}, h.downloaded(image))
	cacheIsWhole(t, cache)
}

// imageHealthy tells whether there are allocations, and none but such that
// pass their checks.
func imageHealthy(allocs []*api.AllocationListStub) bool {
	return len(allocs) > 0 && !slices.ContainsFunc(allocs, func(a *api.AllocationListStub) bool {
		return a.ClientStatus != "running" || a.DeploymentStatus == nil || a.DeploymentStatus.Healthy == nil || !*a.DeploymentStatus.Healthy
	})
}

// cacheIsWhole fails the test if the cache holds half of an image, or a lock
// that nobody holds.
func cacheIsWhole(t *testing.T, cache string) {
	t.Helper()
	images := names(t, cache, "images")
	must.Positive(t, len(images))
	for _, image := range images {
		must.Eq(t, []string{"about.json", "initrd", "kernel"}, names(t, cache, "images", image))
	}
	must.SliceEmpty(t, names(t, cache, "tmp"))
	must.SliceEmpty(t, names(t, cache, "locks"))
}

// names lists a folder.
func names(t *testing.T, path ...string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(path...))
	must.NoError(t, err)
	var all []string
	for _, entry := range entries {
		all = append(all, entry.Name())
	}
	return all
}

// What a reference does not have is told in the task's events.
func imagesRefused(t *testing.T, h *hub, cache string) {
	some := h.push("acme/some:1", indexOf(t, kraftkit(t, "fc", "x86_64"), kraftkit(t, "qemu", "arm64")))
	cases := []struct {
		name, image, arch string
		says              []string
	}{
		{"wrong platform", some, "x86_64", []string{some, "no image for qemu/x86_64", "it has fc/x86_64, qemu/arm64"}},
		{"missing tag", h.host + "/acme/some:2", "", []string{"acme/some:2", "no such image or tag"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before := lookAtMachine(t)
			t.Cleanup(func() { nothingNew(t, before) }) // after the purge
			alloc := runOne(t, limit(t, time.Minute), map[string]string{"image": c.image, "arch": c.arch})
			must.Eq(t, "failed", alloc.ClientStatus)
			said := failure(alloc)
			t.Log(said)
			for _, words := range c.says {
				must.StrContains(t, said, words)
			}
			cacheIsWhole(t, cache)
		})
	}
}
