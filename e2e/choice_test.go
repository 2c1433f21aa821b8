// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier"
)

// What nomad-hybrid learns of a live cluster: where a group could go, what is
// free, what runs, and how the same task did. A second run restarts nothing.
func TestCluster(t *testing.T) {
	ctx := limit(t, 4*time.Minute)
	env := []string{"NOMAD_ADDR=" + site.Nomad.Address, "DOCKER_HOST=" + site.Docker.Host}
	example := site.Layout.Path("examples", "hybrid", "hybrid.nomad.hcl")
	args := []string{"-cluster", "-var", "images=" + site.ImageDir(), example}
	node, err := site.Nomad.NodeInfo(ctx)
	must.NoError(t, err)
	purge(t, "hybrid")

	status, out := tool(t, ctx, env, "nomad-hybrid", append([]string{"run"}, args...)...)
	must.Eq(t, 0, status, must.Sprint(out))
	checkAnswers(t, ctx)
	first, _, err := site.Nomad.Client.Jobs().Info("hybrid", (&api.QueryOptions{}).WithContext(ctx))
	must.NoError(t, err)
	for _, alloc := range measured(t, ctx, "hybrid") {
		_, err := site.Nomad.Stats(ctx, alloc) // once measured, it has a history
		must.NoError(t, err)
	}

	steps, vision := planned(t, ctx, env, args, "steps"), planned(t, ctx, env, args, "vision")
	must.Eq(t, classifier.Unikernel, steps.Decision)
	must.Eq(t, classifier.Container, vision.Decision)
	for _, task := range []classifier.TaskReport{steps, vision} {
		for _, at := range []*classifier.Placement{task.AsContainer, task.AsUnikernel} {
			must.Eq(t, []string{node.Name}, at.Nodes)
			must.Eq(t, map[string]int{node.Attributes["cpu.arch"]: 1}, at.Arch)
			must.Positive(t, at.Room)
			must.Greater(t, 0, at.FreeMiB)
		}
	}
	must.Eq(t, 32, steps.AsContainer.Takes.MemoryMiB)
	must.Eq(t, 48, steps.AsUnikernel.Takes.MemoryMiB)
	kvm := node.Attributes["driver.unikernel.kvm"] == "true"
	must.Eq(t, kvm, steps.AsUnikernel.KVM == 1)
	must.Eq(t, !kvm, signalOf(steps, "emulated") != nil)
	must.StrContains(t, signalOf(steps, "peak").Source, "as a unikernel")
	must.StrContains(t, signalOf(vision, "peak").Source, "as a container")

	status, out = tool(t, ctx, env, "nomad-hybrid", append([]string{"run"}, args...)...)
	must.Eq(t, 0, status, must.Sprint(out))
	again, _, err := site.Nomad.Client.Jobs().Info("hybrid", (&api.QueryOptions{}).WithContext(ctx))
	must.NoError(t, err)
	must.Eq(t, *first.Version, *again.Version, must.Sprint("the second run changed the job"))
	checkNoPlace(t, ctx, env)
}

// checkNoPlace plans jobs that the node could only run as a container, or not
// at all, and reads why.
func checkNoPlace(t *testing.T, ctx context.Context, env []string) {
	t.Helper()
	for _, c := range []struct{ what, from, to, why string }{
		{"the author's constraint", "task \"t\"", "constraint {\n      attribute = \"${attr.kernel.name}\"\n      value = \"plan9\"\n    }\n    task \"t\"",
			"the job's constraint ${attr.kernel.name} = plan9 is not met (1)"},
		{"free memory", "hybrid_complexity ", "hybrid_unikernel_memory = \"9999999\"\n        hybrid_complexity ", "too little memory free for 9999999 MiB (1)"},
		{"a node pool without nodes", "group \"g\"", "node_pool = \"gpu\"\n  group \"g\"", "none of the cluster's 0 nodes"},
	} {
		path := filepath.Join(t.TempDir(), "job.hcl")
		must.NoError(t, os.WriteFile(path, []byte(strings.Replace(light, c.from, c.to, 1)), 0o600))
		task := planned(t, ctx, env, []string{"-cluster", "-no-images", path}, "g")
		must.Eq(t, classifier.RuleResources, task.Rule, must.Sprint(c.what))
		must.Eq(t, classifier.Container, task.Decision)
		must.StrContains(t, strings.Join(task.Reasons, "\n"), c.why)
	}
}

// planned is what `nomad-hybrid plan -json` says of a group's task.
func planned(t *testing.T, ctx context.Context, env, args []string, group string) classifier.TaskReport {
	t.Helper()
	status, out := tool(t, ctx, env, "nomad-hybrid", append([]string{"plan", "-json"}, args...)...)
	must.Eq(t, 0, status, must.Sprint(out))
	var report classifier.Report
	must.NoError(t, json.Unmarshal([]byte(out), &report))
	for _, task := range report.Tasks {
		if task.Group == group {
			return task
		}
	}
	t.Fatalf("no group %s in %s", group, out)
	return classifier.TaskReport{}
}

func signalOf(task classifier.TaskReport, name string) *classifier.Signal {
	for i := range task.Signals {
		if task.Signals[i].Name == name {
			return &task.Signals[i]
		}
	}
	return nil
}

// measured are a job's allocations.
func measured(t *testing.T, ctx context.Context, jobID string) []*api.Allocation {
	t.Helper()
	stubs, err := site.Nomad.WaitAllocs(ctx, jobID, func(all []*api.AllocationListStub) bool { return len(all) > 0 })
	must.NoError(t, err)
	var out []*api.Allocation
	for _, stub := range stubs {
		alloc, err := site.Nomad.Allocation(ctx, stub.ID)
		must.NoError(t, err)
		out = append(out, alloc)
	}
	return out
}
