// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

// Package soak starts and ends unikernels by the hundred under a real agent,
// kills QEMU, plugin and agent at random meanwhile, and checks that each task's
// end is told truly, that none runs twice, and that nothing is left.
//
// It runs in namespaces of its own. "make soak" runs it for long, and what a
// run did is repeated by its seed, as far as a machine repeats itself.
package soak

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

var (
	cycles   = flag.Int("cycles", 24, "tasks to start and to end")
	kills    = flag.Int("kills", 8, "kills of QEMU, of the plugin and of the agent meanwhile")
	many     = flag.Int("many", 12, "tasks that run when plugin and agent are killed")
	parallel = flag.Int("parallel", 4, "tasks at a time")
	seed     = flag.Uint64("seed", 1, "of what is chosen at random")
)

// taskName is that of every task here; it marks their cgroups.
const taskName = "soak"

// site is what all tests here share.
var site struct {
	layout harness.Layout
	nomad  *harness.Cluster
}

func TestMain(m *testing.M) {
	flag.Parse()
	inside, status, err := harness.Sandbox(context.Background())
	if inside {
		status, err = run(m)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

func run(m *testing.M) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var err error
	if site.layout, err = harness.FindLayout(); err != nil {
		return 1, err
	}
	site.nomad, err = harness.StartCluster(ctx, site.layout, harness.ClusterOptions{
		Dir:        site.layout.Build("soak", "nomad"),
		ImagePaths: []string{site.layout.Build("steps")},
	})
	if err != nil {
		return 1, err
	}
	status := m.Run()
	ctx, cancel = context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return status, site.nomad.Stop(ctx)
}

// soakJob is jobs/soak.nomad.hcl under another name.
func soakJob(id string, vars map[string]string) (*api.Job, error) {
	all := map[string]string{
		"image":  filepath.Join(site.layout.Build("steps"), "steps-"+runtime.GOARCH),
		"initrd": filepath.Join(site.layout.Build("steps"), "steps.cpio"),
	}
	for name, value := range vars {
		all[name] = value
	}
	job, err := harness.ParseJobFile(site.layout.Path("e2e", "soak", "jobs", "soak.nomad.hcl"), all)
	if err != nil {
		return nil, err
	}
	job.ID, job.Name = &id, &id
	return job, nil
}

// Tasks come and go; the first third undisturbed, the rest while QEMU, plugin
// and agent are killed. The counts before and after are the same.
func TestSoak(t *testing.T) {
	t.Logf("seed %d, %d cycles, %d kills", *seed, *cycles, *kills)
	s := newSoak(t)
	quiet := *cycles / 3

	s.runCycles("warm-up", len(ends)*len(modes), inTurn)
	before := s.census(nil)
	s.runCycles("quiet", quiet, atRandom)
	afterQuiet := s.census(before)

	killed := s.startKilling(*kills)
	s.runUntil("killed", func(i int) bool { return i >= *cycles-quiet && over(killed) }, atRandom)
	s.runCycles("after", len(ends)*len(modes), inTurn) // a plugin like the first one's
	afterKills := s.census(before)

	s.report()
	t.Log("\n" + harness.CensusTable([]string{"before", "after quiet cycles", "after kills"}, before, afterQuiet, afterKills))
	must.Eq(t, "", afterQuiet.Unequal(before), must.Sprint("left by undisturbed tasks"))
	s.nothingLeft(before, afterKills)
}

func over(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}
