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
		ID: "n", Datacenter: "edge-1", NodePool: "default",
		Attributes: map[string]string{"driver.unikernel.kvm": "true", "driver.unikernel.arch.arm64": "kvm"},
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
		Job:   &api.Job{ID: ptr("j"), Datacenters: []string{"edge-*"}},
		Group: &api.TaskGroup{Name: ptr("g"), Tasks: []*api.Task{task}},
		Task:  task, Arch: "arm64", MemoryMiB: 32,
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
		{"another datacenter is no node of the job", func(n *node) { n.Datacenter = "hq" }, 0, nil},
		{"another pool is no node of the job", func(n *node) { n.NodePool = "gpu" }, 0, nil},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			p := place([]*node{board(tc.change)}, need(), unikernelNeeds)
			must.Eq(t, tc.fit, p.Fit)
			must.Eq(t, tc.fit, p.KVM)
			must.Eq(t, tc.lacks, p.Missing)
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
			"t": {ResourceUsage: &api.ResourceUsage{MemoryStats: &api.MemoryStats{MaxUsage: 64 << 20}}},
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
		must.Eq(t, classifier.Placement{Fit: 1, Of: 1, KVM: 1}, g.Unikernel)
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
