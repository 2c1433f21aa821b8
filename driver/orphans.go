// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"
)

const (
	// orphanAge is how long a machine may be without an owner before it is
	// ended: a plugin that was restarted, ours or that of another agent on
	// this host, needs some seconds to recover its tasks.
	orphanAge = 2 * time.Minute
	// sweepPeriod is how often machines without an owner are looked for.
	sweepPeriod = 30 * time.Second
)

// sweeper finds machines that no task owns, such as those of a plugin that
// died in the middle of a start, and removes them.
type sweeper struct {
	d       *Driver
	unowned map[string]time.Time // by record, since when it was seen without an owner
}

// sweepOrphans runs until ctx ends.
func (d *Driver) sweepOrphans(ctx context.Context) {
	s := &sweeper{d: d, unowned: make(map[string]time.Time)}
	ticker := time.NewTicker(sweepPeriod)
	defer ticker.Stop()
	for {
		s.sweep(ctx, time.Now())
		s.sweepUnheard(time.Now())
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *sweeper) sweep(ctx context.Context, now time.Time) {
	paths, err := filepath.Glob(filepath.Join(s.d.runDir, "*"+recordSuffix))
	if err != nil {
		return // only a bad pattern
	}
	still := make(map[string]time.Time)
	for _, path := range paths {
		since, seen := s.unowned[path]
		if !seen {
			since = now
		}
		r, err := lockRecord(path, 0)
		if errors.Is(err, errOwned) || errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			s.d.log.Warn("orphan not looked at", "record", path, "error", err)
			continue
		}
		if !s.remove(ctx, r, now.Sub(since)) {
			still[path] = since
		}
	}
	s.unowned = still
}

// remove ends and removes a machine without an owner, if it is time for that.
func (s *sweeper) remove(ctx context.Context, r *record, age time.Duration) bool {
	state, err := r.load()
	if err != nil {
		s.d.log.Warn("orphan's record not read", "error", err)
	}
	if age < orphanAge && !allocationGone(state) && !state.Machine.Outdated() {
		r.close()
		return false
	}
	if err := removeMachine(ctx, r, state); err != nil {
		s.d.log.Error("orphan not removed", "task_id", state.TaskID, "error", err)
		return false
	}
	s.d.log.Warn("removed what a task without owner had left", "task_id", state.TaskID, "pid", state.Machine.PID)
	return true
}

// sweepUnheard removes tasks that this plugin has and that Nomad knows nothing
// of: it asks for the end of every task that it has heard of, at once. An agent
// that was killed while it waited for a start has not heard of that task, nor
// one that was killed after a task was destroyed, before it had noted that.
func (s *sweeper) sweepUnheard(now time.Time) {
	listens, since := s.d.agent.since()
	for _, t := range s.d.tasks.all() {
		unheard := listens && !t.waited.Load() && now.Sub(later(t.adopted, since)) >= orphanAge
		if !unheard && (t.running() || !allocationGone(t.state)) {
			continue
		}
		if err := s.d.DestroyTask(t.config.ID, true); err != nil {
			s.d.log.Error("task that Nomad does not know not removed", "task_id", t.config.ID, "error", err)
			continue
		}
		s.d.log.Warn("removed a task that Nomad does not know", "task_id", t.config.ID)
	}
}

func allocationGone(state taskState) bool {
	_, err := os.Stat(state.AllocDir)
	return state.AllocDir != "" && errors.Is(err, os.ErrNotExist)
}
