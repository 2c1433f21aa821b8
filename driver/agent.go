// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"context"
	"sync"
	"time"
)

// agentGrace is how long a plugin lives on without an agent. An agent that was
// killed and comes back takes the plugin up again, or starts another and finds
// all tasks again: a plugin that is left over serves nobody, and would only
// hold on to tasks that are another's.
const agentGrace = 30 * time.Second

// agent tells whether an agent listens: while it does, it has a stream of
// fingerprints open.
type agent struct {
	mu      sync.Mutex
	streams int
	changed time.Time // when the first stream was opened, or the last closed
}

func (a *agent) connect() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.streams++; a.streams == 1 {
		a.changed = time.Now()
	}
}

func (a *agent) disconnect() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.streams--; a.streams == 0 {
		a.changed = time.Now()
	}
}

// since tells whether an agent listens, and since when that is so.
func (a *agent) since() (listens bool, since time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.streams > 0, a.changed
}

// leaveWithAgent ends the plugin some time after its agent.
func (d *Driver) leaveWithAgent(ctx context.Context) {
	if d.agent.outlived(ctx, agentGrace) {
		d.leave()
	}
}

// outlived waits until no agent has listened for the time of grace. It returns
// false when ctx ends first.
func (a *agent) outlived(ctx context.Context, grace time.Duration) bool {
	began := time.Now()
	for {
		listens, since := a.since()
		left := grace
		if !listens {
			left -= time.Since(later(began, since))
		}
		if left <= 0 {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(left):
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
