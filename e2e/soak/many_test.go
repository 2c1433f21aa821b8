// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package soak

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

// Many tasks in host mode that run at once are all found again, each with the QEMU that it
// had, when the plugin is killed, the agent, and both.
func TestMany(t *testing.T) {
	s := newSoak(t)
	s.runCycles("warm-up", 1, inTurn)
	before := s.census(nil)
	began := time.Now()
	tasks := s.runMany(*many)
	t.Logf("%d tasks run after %.0f s", *many, time.Since(began).Seconds())
	had := qemus(t)
	must.MapLen(t, *many, had)

	cases := []struct {
		name string
		kill func() error
	}{
		{"plugin", func() error { return site.nomad.KillPlugin(s.ctx) }},
		{"agent", func() error { return site.nomad.RestartNode(s.ctx, syscall.SIGKILL) }},
		{"both", func() error {
			if err := site.nomad.KillPlugin(s.ctx); err != nil {
				return err
			}
			return site.nomad.RestartNode(s.ctx, syscall.SIGKILL)
		}},
	}
	for _, c := range cases {
		began := time.Now()
		must.NoError(t, c.kill())
		for _, id := range tasks {
			s.found(id)
		}
		must.Eq(t, had, qemus(t))
		t.Logf("killed %s: all found again after %.0f s", c.name, time.Since(began).Seconds())
	}

	s.stopMany()
	after := s.census(before)
	t.Log("\n" + harness.CensusTable([]string{"before", "after"}, before, after))
	must.Eq(t, "", after.Unequal(before))
}

// manyJob is the job of TestMany. It is in host mode: a Nomad client that is
// killed saves an allocation's network only once a minute, and ends a younger
// one's tasks by itself.
const manyJob = "many"

// runMany starts n tasks, waits until all answer, and returns their allocations.
func (s *soak) runMany(n int) []string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	job, err := soakJob(manyJob, map[string]string{"count": strconv.Itoa(n)})
	must.NoError(s.t, err)
	must.NoError(s.t, site.nomad.Register(ctx, job))
	allocs, err := site.nomad.WaitAllocs(ctx, manyJob, func(allocs []*api.AllocationListStub) bool {
		return harness.Running(allocs, n)
	})
	must.NoError(s.t, err)
	var all []string
	for _, alloc := range allocs {
		all = append(all, alloc.ID)
		s.found(alloc.ID)
	}
	return all
}

// found checks that a task runs, that Nomad never restarted it, that its guest
// answers, and that the driver can speak to its QEMU.
func (s *soak) found(id string) {
	s.t.Helper()
	alloc, err := site.nomad.Allocation(s.ctx, id)
	must.NoError(s.t, err)
	state := alloc.TaskStates[taskName]
	must.Eq(s.t, "running", state.State, must.Sprint(site.nomad.Describe(s.ctx, alloc.JobID)))
	must.Zero(s.t, state.Restarts)
	must.NoError(s.t, answers(s.ctx, alloc))
	must.NoError(s.t, s.speaks(alloc))
}

// speaks has the driver speak to a task's QEMU. A client whose plugin has just
// been killed says for a moment that it is.
func (s *soak) speaks(alloc *api.Allocation) error {
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	for {
		err := site.nomad.Client.Allocations().Signal(alloc, nil, taskName, "SIGCONT")
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond) // nothing tells when the plugin is used again
	}
}

// answers asks a guest for its health, at its port on the host, until it
// answers: networks take connections before the guest listens, and reset them.
func answers(ctx context.Context, alloc *api.Allocation) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	port := alloc.AllocatedResources.Shared.Ports[0]
	url := fmt.Sprintf("http://%s:%d/healthz", port.HostIP, port.Value)
	for {
		err := ask(ctx, url)
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond) // nothing tells when it listens
	}
}

func ask(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	said, err := io.ReadAll(res.Body)
	if err == nil && string(said) != "ok\n" {
		err = fmt.Errorf("%s says %q", url, said)
	}
	return err
}

func (s *soak) stopMany() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	_, _, err := site.nomad.Client.Jobs().Deregister(manyJob, false, (&api.WriteOptions{}).WithContext(ctx))
	must.NoError(s.t, err)
	allocs, err := site.nomad.WaitAllocs(ctx, manyJob, harness.Ended)
	must.NoError(s.t, err)
	for _, alloc := range allocs {
		got, said := told(alloc)
		must.Eq(s.t, outcome{code: 143, signal: 15}, got, must.Sprint(said))
	}
}

// qemus are those that run, by machine.
func qemus(t *testing.T) map[string]harness.QEMU {
	t.Helper()
	all, err := harness.QEMUs()
	must.NoError(t, err)
	found := map[string]harness.QEMU{}
	for _, qemu := range all {
		must.MapNotContainsKey(t, found, qemu.Machine)
		found[qemu.Machine] = qemu
	}
	return found
}
