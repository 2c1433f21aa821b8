// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package soak

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

// patience is how long a task may take to its end, on a busy machine and with
// the agent killed again and again.
const patience = 4 * time.Minute

// end is a way in which a task ends, and what Nomad is to show of it.
type end struct {
	name    string
	args    string // of the guest, as HCL
	machine string
	stop    bool // by Nomad, once it runs
	want    outcome
}

// outcome is a task's end as Nomad shows it.
type outcome struct {
	refused      bool // it was not started
	code, signal int
}

var ends = []end{
	{name: "returns 0", args: `["--exit=0"]`},
	{name: "returns 3", args: `["--exit=3"]`, want: outcome{code: 3}},
	{name: "returns 5, later", args: `["--start-delay=1", "--exit=5"]`, want: outcome{code: 5}},
	{name: "crashes", args: `["--crash"]`, want: outcome{code: 134, signal: 6}},
	{name: "serves and is stopped", args: `[]`, stop: true, want: outcome{code: 143, signal: 15}},
	{name: "hangs and is stopped", args: `["--hang"]`, stop: true, want: outcome{code: 143, signal: 15}},
	{name: "is refused by QEMU", args: `[]`, machine: "no-such-board", want: outcome{refused: true}},
}

var modes = []string{"host", "bridge"}

// cycle is one task's life.
type cycle struct {
	end    end
	mode   string
	linger time.Duration // it runs so long before it is stopped
}

// inTurn makes the i-th cycle so that all ends come in all modes.
func inTurn(i int) cycle {
	return cycle{end: ends[i%len(ends)], mode: modes[i/len(ends)%len(modes)]}
}

// atRandom makes the i-th cycle as the seed has it. Bridge mode is rarer, as
// Nomad's own part in it takes the longest.
func atRandom(i int) cycle {
	random := rand.New(rand.NewPCG(*seed, uint64(i)+1))
	mode := modes[0]
	if random.IntN(3) == 0 {
		mode = modes[1]
	}
	return cycle{end: ends[random.IntN(len(ends))], mode: mode, linger: time.Duration(random.Int64N(int64(2 * time.Second)))}
}

// runCycles runs n tasks, some at a time.
func (s *soak) runCycles(name string, n int, choose func(i int) cycle) {
	s.t.Helper()
	s.runUntil(name, func(i int) bool { return i >= n }, choose)
}

// batch is after how many cycles Nomad's garbage is collected. A client that has
// more than 50 allocations collects them by itself, and has then not told the
// server the ends of some where it was killed meanwhile (1.11.3).
const batch = 20

// runUntil runs tasks, some at a time, until as many are enough.
func (s *soak) runUntil(name string, enough func(i int) bool, choose func(i int) cycle) {
	s.t.Helper()
	began := time.Now()
	n := 0
	for !enough(n) {
		from := n
		s.runSome(name, func() (int, bool) {
			if n == from+batch || enough(n) || s.t.Failed() {
				return 0, false
			}
			n++
			return n - 1, true
		}, choose)
		if s.t.Failed() {
			s.t.FailNow()
		}
		must.NoError(s.t, site.nomad.DropJobs(s.ctx))
	}
	s.t.Logf("%s: %d cycles in %.0f s", name, n, time.Since(began).Seconds())
}

// runSome runs tasks, some at a time, until there is no next one, and waits for
// their ends.
func (s *soak) runSome(name string, next func() (i int, ok bool), choose func(i int) cycle) {
	turns := make(chan int)
	var wg sync.WaitGroup
	for range *parallel {
		wg.Go(func() {
			for i := range turns {
				c := choose(i)
				if err := s.run(fmt.Sprintf("%s-%d", name, i), c); err != nil {
					s.t.Errorf("cycle %s %d, a task in %s mode that %s: %v", name, i, c.mode, c.end.name, err)
				}
			}
		})
	}
	for i, ok := next(); ok; i, ok = next() {
		turns <- i
	}
	close(turns)
	wg.Wait()
}

func (s *soak) run(id string, c cycle) error {
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	job, err := soakJob(id, map[string]string{"mode": c.mode, "args": c.end.args, "machine": c.end.machine})
	if err != nil {
		return err
	}
	from := time.Now()
	if err := site.nomad.Register(ctx, job); err != nil {
		return err
	}
	if c.end.stop {
		if err := stopLater(ctx, id, c.linger); err != nil {
			return err
		}
	}
	allocs, err := site.nomad.WaitAllocs(ctx, id, harness.Ended)
	if err != nil {
		return err
	}
	if len(allocs) != 1 {
		return fmt.Errorf("%d allocations, want 1", len(allocs))
	}
	shot, shaken := s.suffered(allocs[0].ID, from, time.Now())
	return s.judge(c.end, allocs[0], shot, shaken)
}

// stopLater stops a job once its task runs, if it does not end before.
func stopLater(ctx context.Context, id string, linger time.Duration) error {
	_, err := site.nomad.WaitAllocs(ctx, id, func(allocs []*api.AllocationListStub) bool {
		return len(allocs) > 0 && allocs[0].ClientStatus != "pending"
	})
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-time.After(linger):
	}
	_, _, err = site.nomad.Client.Jobs().Deregister(id, false, (&api.WriteOptions{}).WithContext(ctx))
	return err
}

// judge compares what Nomad shows of a task's end with what happened to it.
func (s *soak) judge(e end, alloc *api.AllocationListStub, shot, shaken bool) error {
	got, said := told(alloc)
	s.count(e, got, said, shot, shaken)
	if got == e.want {
		return nil
	}
	killed := got == outcome{code: 137, signal: 9}
	if e.stop && killed && strings.Contains(said, "did not quit in time") {
		return nil // on a busy machine; docs/ends.md has it
	}
	unknown := got == outcome{code: 1} && strings.Contains(said, "not known")
	if shot && (killed || got.refused || shaken && unknown) || shaken && (byNomad(alloc) || forgotten(alloc)) {
		return nil
	}
	return fmt.Errorf("%+v (%s), want %+v; QEMU killed: %t; plugin or agent killed: %t\n%s",
		got, said, e.want, shot, shaken, site.nomad.Describe(s.ctx, alloc.JobID))
}

// told reads what Nomad shows of the one task's end.
func told(alloc *api.AllocationListStub) (got outcome, said string) {
	got.refused = true
	state := alloc.TaskStates[taskName]
	if state == nil {
		return got, alloc.ClientDescription
	}
	for _, event := range state.Events {
		switch event.Type {
		case api.TaskDriverFailure:
			said = event.DisplayMessage
		case api.TaskTerminated:
			got = outcome{code: event.ExitCode, signal: event.Signal}
			said = event.DisplayMessage
		}
	}
	return got, said
}

// byNomad tells whether Nomad itself gave the task up, as it does (1.11.3)
// where client or plugin are killed while it sets an allocation up; where its
// client is killed before it has saved an allocation's network, which it does
// once a minute; where a plugin dies that it had taken up again; and where one
// dies twice during a start.
func byNomad(alloc *api.AllocationListStub) bool {
	if state := alloc.TaskStates[taskName]; state != nil {
		for _, event := range state.Events {
			lost := strings.HasSuffix(event.DisplayMessage, "plugin is shut down") || event.Message == "plugin is shut down"
			if event.Type == api.TaskSetupFailure || lost && (event.Type == api.TaskDriverFailure || event.Type == api.TaskTerminated) {
				return true
			}
		}
	}
	return strings.HasPrefix(alloc.ClientDescription, "Unable to add allocation")
}

// forgotten tells whether Nomad lost a task's end, or gave it up before it was
// started: a client that is killed has not told the server the last events
// (1.11.3), and the next one begins anew.
func forgotten(alloc *api.AllocationListStub) bool {
	state := alloc.TaskStates[taskName]
	return state != nil && len(state.Events) > 0 && state.Events[len(state.Events)-1].Type == api.TaskReceived
}

func (s *soak) count(e end, got outcome, said string, shot, shaken bool) {
	text := fmt.Sprintf("%s: exit code %d, signal %d", e.name, got.code, got.signal)
	if got.refused {
		text = e.name + ": not started"
	}
	if got != e.want {
		text += ", as"
		if shot {
			text += " QEMU was killed"
		}
		if shaken {
			text += " while plugin or agent were away"
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told[text]++
}
