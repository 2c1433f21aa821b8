// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package cluster

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier"
)

func ptr[T any](v T) *T { return &v }

// board is an edge node with both drivers and 1,024 MiB.
func board(change func(*node)) *node {
	healthy := &api.DriverInfo{Detected: true, Healthy: true}
	n := &node{Node: &api.Node{
		ID: "n", Name: "board", Datacenter: "edge-1", NodePool: "default",
		Attributes: map[string]string{"driver.unikernel.kvm": "true", "driver.unikernel.arch.arm64": "kvm", "cpu.arch": "arm64", "kernel.name": "linux"},
		Drivers:    map[string]*api.DriverInfo{"docker": healthy, "unikernel": healthy},
		NodeResources: &api.NodeResources{
			Cpu: api.NodeCpuResources{CpuShares: 2000}, Memory: api.NodeMemoryResources{MemoryMB: 1024}, Disk: api.NodeDiskResources{DiskMB: 4096},
		},
	}}
	if change != nil {
		change(n)
	}
	return n
}

func need() classifier.Need {
	task := &api.Task{Name: "t", Resources: &api.Resources{CPU: ptr(100), MemoryMB: ptr(256)}}
	return classifier.Need{
		Job: &api.Job{ID: ptr("j"), Datacenters: []string{"edge-*"}, Constraints: []*api.Constraint{
			{LTarget: "${attr.kernel.name}", RTarget: "linux", Operand: "="},
		}},
		Group: &api.TaskGroup{Name: ptr("g"), Tasks: []*api.Task{task}},
		Task:  task, Arch: "arm64", MemoryMiB: 32, GuestMiB: 8,
	}
}

func alloc(job, status string, mib int64) *api.Allocation {
	return &api.Allocation{JobID: job, Namespace: "default", ClientStatus: status, AllocatedResources: &api.AllocatedResources{
		Tasks: map[string]*api.AllocatedTaskResources{"x": {Memory: api.AllocatedMemoryResources{MemoryMB: mib}}},
	}}
}

// TestPlace: which nodes fit, and what the others lack.
func TestPlace(t *testing.T) {
	tests := []struct {
		name   string
		change func(*node)
		fit    int
		lacks  []string
	}{
		{"all there", nil, 1, nil},
		{"no driver", func(n *node) { delete(n.Drivers, "unikernel") }, 0, []string{"no unikernel driver (1)"}},
		{"a sick driver", func(n *node) { n.Drivers["unikernel"] = &api.DriverInfo{Detected: true} }, 0, []string{"its unikernel driver is not healthy (1)"}},
		{"another architecture", func(n *node) { delete(n.Attributes, "driver.unikernel.arch.arm64") }, 0, []string{"cannot run arm64 guests (1)"}},
		{"full", func(n *node) { n.allocs = []*api.Allocation{alloc("other", "running", 1000)} }, 0, []string{"too little memory free for 32 MiB (1)"}},
		{"full of itself", func(n *node) { n.allocs = []*api.Allocation{alloc("j", "running", 1000)} }, 1, nil},
		{"full of the past", func(n *node) { n.allocs = []*api.Allocation{alloc("other", "complete", 1000)} }, 1, nil},
		{"a constraint of the author's", func(n *node) { n.Attributes["kernel.name"] = "plan9" }, 0, []string{"the job's constraint ${attr.kernel.name} = linux is not met (1)"}},
		{"too little beside QEMU", func(n *node) { n.Attributes["driver.unikernel.memory_overhead_mib"] = "32" }, 0,
			[]string{"the guest needs 8 MiB and its memory_overhead is 32 MiB: 40 MiB would do (1)"}},
		{"another datacenter is no node of the job", func(n *node) { n.Datacenter = "hq" }, 0, nil},
		{"another pool is no node of the job", func(n *node) { n.NodePool = "gpu" }, 0, nil},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			p := place([]*node{board(tc.change)}, need(), asUnikernel)
			must.Eq(t, tc.fit, p.Fit)
			must.Eq(t, tc.fit, p.KVM)
			must.Eq(t, tc.lacks, p.Missing)
		})
	}
}

// TestRuns counts what runs on a node by driver, without the job itself.
func TestRuns(t *testing.T) {
	other := alloc("other", "running", 100)
	other.TaskGroup, other.Job = "g", &api.Job{TaskGroups: []*api.TaskGroup{{Name: ptr("g"), Tasks: []*api.Task{{Driver: "docker"}, {Driver: "unikernel"}}}}}
	own := alloc("j", "running", 100)
	own.TaskGroup, own.Job = "g", other.Job
	p := place([]*node{board(func(n *node) { n.allocs = []*api.Allocation{other, own} })}, need(), asUnikernel)
	must.Eq(t, map[string]int{"docker": 1, "unikernel": 1}, p.Runs)
	must.Eq(t, 924, p.FreeMiB)
}

// TestMeets: constraints mean what they mean to Nomad's scheduler.
func TestMeets(t *testing.T) {
	n := board(func(n *node) {
		n.NodeClass = "edge"
		n.Attributes = map[string]string{"cpu.numcores": "10", "os.version": "12.4", "driver.unikernel.gic": "2,3"}
		n.Meta = map[string]string{"rack": "a1"}
	})
	tests := []struct {
		left, operator, right string
		want                  bool
	}{
		{"${node.class}", "=", "edge", true},
		{"${node.datacenter}", "", "edge-1", true},
		{"${node.unique.name}", "is", "other", false},
		{"${node.pool}", "==", "default", true},
		{"${node.unique.id}", "!=", "n", false},
		{"${attr.none}", "!=", "x", true},
		{"${attr.none}", "=", "x", false},
		{"${attr.cpu.numcores}", ">", "9", true},
		{"${attr.cpu.numcores}", "<=", "9.5", false},
		{"${meta.rack}", "<", "b", true},
		{"${meta.rack}", ">=", "b", false},
		{"${attr.os.version}", "version", ">= 12, < 13", true},
		{"${attr.os.version}", "version", "> 13", false},
		{"${meta.rack}", "version", "> 1", false},
		{"${meta.rack}", "regexp", "^a[0-9]$", true},
		{"${meta.rack}", "regexp", "[", false},
		{"${attr.driver.unikernel.gic}", "set_contains", "2, 3", true},
		{"${attr.driver.unikernel.gic}", "set_contains_all", "2,4", false},
		{"${attr.driver.unikernel.gic}", "set_contains_any", "4,3", true},
		{"${meta.rack}", "is_set", "", true},
		{"${meta.none}", "is_set", "", false},
		{"${meta.none}", "is_not_set", "", true},
		{"", "distinct_hosts", "true", true},
		{"${meta.rack}", "unknown", "a1", false},
		{"${unknown.thing}", "is_set", "", false},
	}
	for _, tc := range tests {
		t.Run(tc.left+" "+tc.operator+" "+tc.right, func(t *testing.T) {
			must.Eq(t, tc.want, meets(n, &api.Constraint{LTarget: tc.left, Operand: tc.operator, RTarget: tc.right}))
		})
	}
}

// TestView reads a cluster over the API: nodes once, the running job with its
// decision and the most memory it used.
func TestView(t *testing.T) {
	asked := map[string]int{}
	answers := map[string]any{
		"/v1/nodes": []*api.NodeListStub{
			{ID: "n", Status: "ready", SchedulingEligibility: "eligible"},
			{ID: "drained", Status: "ready", SchedulingEligibility: "ineligible"},
		},
		"/v1/node/n":             board(nil).Node,
		"/v1/node/n/allocations": []*api.Allocation{},
		"/v1/job/j": &api.Job{TaskGroups: []*api.TaskGroup{{Name: ptr("g"), Tasks: []*api.Task{
			{Name: "t", Meta: map[string]string{"hybrid_decision": "unikernel"}},
		}}}},
		"/v1/job/j/allocations": []*api.AllocationListStub{{ID: "a", TaskGroup: "g", ClientStatus: "running"}},
		"/v1/client/allocation/a/stats": &api.AllocResourceUsage{Tasks: map[string]*api.TaskResourceUsage{
			"t": {ResourceUsage: &api.ResourceUsage{MemoryStats: &api.MemoryStats{MaxUsage: 64 << 20}, CpuStats: &api.CpuStats{TotalTicks: 250}}},
		}},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked[r.URL.Path]++
		answer, ok := answers[r.URL.Path]
		if !ok {
			http.Error(w, "not found", http.StatusNotFound)
			return
		}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	client, err := api.NewClient(&api.Config{Address: server.URL})
	must.NoError(t, err)

	v := New(client)
	for range 3 {
		g, err := v.Group(context.Background(), need())
		must.NoError(t, err)
		must.Eq(t, classifier.Unikernel, g.Before)
		must.Eq(t, 64, g.PeakMiB)
		must.Eq(t, 250, g.PeakMHz)
		must.Eq(t, classifier.Placement{
			Fit: 1, Of: 1, KVM: 1, Nodes: []string{"board"}, Arch: map[string]int{"arm64": 1}, Runs: map[string]int{},
			Takes:   classifier.Takes{CPU: 100, MemoryMiB: 32, DiskMiB: 300},
			FreeMiB: 1024, TotalMiB: 1024, Room: 13,
		}, g.Unikernel)
		must.Eq(t, classifier.Takes{CPU: 100, MemoryMiB: 256, DiskMiB: 300}, g.Container.Takes)
		must.Eq(t, 4, g.Container.Room)
	}
	must.Eq(t, 1, asked["/v1/nodes"])
	must.Eq(t, 1, asked["/v1/job/j"])

	fresh := need()
	fresh.Job.ID = ptr("new")
	g, err := v.Group(context.Background(), fresh)
	must.NoError(t, err)
	must.Eq(t, "", g.Before)

	server.Close()
	_, err = New(client).Group(context.Background(), need())
	must.ErrorContains(t, err, "list the nodes")
}
