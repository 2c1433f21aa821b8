// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package soak

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

// soak is one run of the suite, and what it has seen.
type soak struct {
	t      *testing.T
	ctx    context.Context
	cancel context.CancelFunc

	mu    sync.Mutex
	blows []blow
	told  map[string]int // ends of tasks, by what Nomad showed
}

func newSoak(t *testing.T) *soak {
	ctx, cancel := context.WithCancel(t.Context())
	s := &soak{t: t, ctx: ctx, cancel: cancel, told: map[string]int{}}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		s.watch(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-watched
	})
	return s
}

// watch looks all the time whether a task has two QEMUs.
func (s *soak) watch(ctx context.Context) {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		all, err := harness.QEMUs()
		if err != nil {
			s.t.Errorf("looking for QEMUs: %v", err)
			return
		}
		slices.SortFunc(all, func(a, b harness.QEMU) int { return a.PID - b.PID })
		first := map[string]harness.QEMU{}
		for _, qemu := range all {
			if other, twice := first[qemu.Task()]; twice && other.Alive() && qemu.Alive() {
				s.t.Errorf("task %s runs twice: %+v and %+v", qemu.Task(), other, qemu)
				return
			}
			first[qemu.Task()] = qemu
		}
	}
}

// census counts when all jobs were purged: once the counts are those of before,
// or as they remain.
func (s *soak) census(before harness.Census) harness.Census {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	must.NoError(s.t, site.nomad.ForgetJobs(ctx))
	var now harness.Census
	var remain time.Time // when only what is excused remained
	for {
		var err error
		now, err = site.nomad.Census(taskName)
		must.NoError(s.t, err)
		now[harness.Goroutines] = before[harness.Goroutines] // counted last, as it ends the plugin
		if ctx.Err() != nil || now.Quiet() && (before == nil || now.Unequal(before) == "") {
			break
		}
		if before == nil || s.excuse(before, now).Unequal(before) != "" {
			remain = time.Time{}
		} else if remain.IsZero() {
			remain = time.Now()
		} else if time.Since(remain) > excusedAfter {
			break
		}
		time.Sleep(250 * time.Millisecond) // nothing tells when all is gone
	}
	must.NoError(s.t, site.nomad.AddGoroutines(s.ctx, now))
	return now
}

// excusedAfter is how long Nomad has to remove what it is excused for.
const excusedAfter = 10 * time.Second

// excuse takes out of a census what Nomad itself leaves when its client is
// killed (seen in 1.11.3): an allocation's network, when that is between the
// task's end and the network's removal (the hook of a restored allocation that
// has ended does not know its namespace); and a log collector, when that is
// between its start and the moment at which the client saves how to reach it.
func (s *soak) excuse(before, after harness.Census) harness.Census {
	excused := maps.Clone(after)
	most := s.blowsOn("agent") * *parallel
	left := len(after.New(before, harness.LogCollectors))
	if left > 0 && left <= most {
		excused[harness.LogCollectors] = before[harness.LogCollectors]
	}
	left = len(after.New(before, harness.Namespaces))
	if left > 0 && left <= most {
		for _, kind := range harness.NetworkKinds {
			excused[kind] = before[kind]
		}
	}
	return excused
}

// nothingLeft checks that the counts are those of before but for what is
// excused, and that in networks that Nomad left nothing is of the driver's.
func (s *soak) nothingLeft(before, after harness.Census) {
	s.t.Helper()
	must.Eq(s.t, "", s.excuse(before, after).Unequal(before), must.Sprint("left by tasks among kills"))
	namespaces := after.New(before, harness.Namespaces)
	for _, namespace := range namespaces {
		inside, err := harness.DriverThings(namespace)
		must.NoError(s.t, err)
		must.SliceEmpty(s.t, inside, must.Sprintf("left by the driver in %s", namespace))
	}
	collectors := after.New(before, harness.LogCollectors)
	if len(namespaces)+len(collectors) > 0 {
		s.t.Logf("Nomad left the networks of %d allocations and %d log collectors when its client was killed",
			len(namespaces), len(collectors))
	}
}

// blowsOn counts the kills of agent, plugin or QEMU.
func (s *soak) blowsOn(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, b := range s.blows {
		if b.on == what {
			n++
		}
	}
	return n
}

// report prints what the run did.
func (s *soak) report() {
	s.mu.Lock()
	defer s.mu.Unlock()
	hits := map[string]int{}
	for _, b := range s.blows {
		hits[b.on]++
	}
	text := fmt.Sprintf("kills: %v\nends, as Nomad told them:\n", hits)
	var told []string
	for end, n := range s.told {
		told = append(told, fmt.Sprintf("%6d  %s\n", n, end))
	}
	slices.Sort(told)
	for _, line := range told {
		text += line
	}
	s.t.Log(text)
}
