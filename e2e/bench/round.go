// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

// nomadRound runs a contender once as a task of Nomad's.
func (b *bench) nomadRound(ctx context.Context, c contender) (*sample, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, b.pace.round, fmt.Errorf("the round's limit of %v is over", b.pace.round))
	defer cancel()
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	job := jobOf("bench", c.task(), 1, port)
	s := newSample(c.name)
	alloc, err := b.firstAnswers(ctx, job, port, s)
	if err == nil {
		err = b.observe(ctx, alloc, port, s)
	}
	if err == nil {
		err = b.stop(ctx, job, alloc.ID, s)
	}
	if err == nil && c.isOurs() {
		err = b.readDriverLog(alloc.ID, s)
	}
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, b.site.Nomad.Describe(context.WithoutCancel(ctx), *job.ID))
	}
	return s, errors.Join(err, b.site.Nomad.Purge(context.WithoutCancel(ctx), *job.ID))
}

// firstAnswers submits a job and waits for its first right answers: at the
// address that is known beforehand, and at the one that service discovery tells.
func (b *bench) firstAnswers(ctx context.Context, job *api.Job, port int, s *sample) (*api.Allocation, error) {
	submitted := time.Now()
	type arrival struct {
		what  metric
		after time.Duration
		err   error
	}
	arrivals := make(chan arrival, 2)
	go func() {
		err := b.pace.awaitAnswer(ctx, fmt.Sprintf("127.0.0.1:%d", port), b.answer)
		arrivals <- arrival{direct, time.Since(submitted), err}
	}()
	go func() {
		at, err := b.site.Nomad.Instances(ctx, serviceName, 1)
		if err == nil {
			err = b.pace.awaitAnswer(ctx, fmt.Sprintf("%s:%d", at[0].Address, at[0].Port), b.answer)
		}
		arrivals <- arrival{discovered, time.Since(submitted), err}
	}()
	if err := b.site.Nomad.Submit(ctx, job); err != nil {
		return nil, err
	}
	for range 2 {
		a := <-arrivals
		if a.err != nil {
			return nil, a.err
		}
		s.Values[a.what] = ms(a.after)
	}
	alloc, err := b.runs(ctx, *job.ID)
	if err != nil {
		return nil, err
	}
	events := alloc.TaskStates[taskName].Events
	began, started := eventTime(events, api.TaskReceived), eventTime(events, api.TaskStarted)
	s.Values[running] = ms(started.Sub(submitted))
	s.Values[setup] = ms(started.Sub(began))
	return alloc, nil
}

// runs waits until the server knows that a job's task was started: the client
// tells it a little later.
func (b *bench) runs(ctx context.Context, jobID string) (*api.Allocation, error) {
	allocs, err := b.site.Nomad.WaitAllocs(ctx, jobID, func(allocs []*api.AllocationListStub) bool {
		return len(allocs) == 1 && allocs[0].ClientStatus == api.AllocClientStatusRunning
	})
	if err != nil {
		return nil, err
	}
	return b.site.Nomad.Allocation(ctx, allocs[0].ID)
}

func eventTime(events []*api.TaskEvent, kind string) time.Time {
	for _, e := range events {
		if e.Type == kind {
			return time.Unix(0, e.Time)
		}
	}
	return time.Time{}
}

// observe measures a running task: at rest, then under load.
func (b *bench) observe(ctx context.Context, alloc *api.Allocation, port int, s *sample) error {
	if err := pause(ctx, b.pace.settle); err != nil {
		return err
	}
	memory, err := b.site.Nomad.TaskMemory(ctx, b.site.Docker, alloc.ID, taskName)
	if err != nil {
		return err
	}
	s.addMemory(memory)
	plugin, err := b.plugin()
	if err != nil {
		return err
	}
	var pids []int
	for _, p := range memory {
		pids = append(pids, p.PID)
	}
	idle, err := cpuOver(ctx, b.pace.idle, pids, []int{plugin})
	if err != nil {
		return err
	}
	s.Values[idleCPU], s.Values[pluginCPU] = idle[0], idle[1]
	return loadTest(ctx, fmt.Sprintf("127.0.0.1:%d", port), s)
}

// plugin is the driver's process.
func (b *bench) plugin() (int, error) {
	shared, err := b.site.Nomad.NodeMemory(b.site.Docker)
	if err != nil {
		return 0, err
	}
	for _, p := range shared {
		if p.Role == "unikernel driver" {
			return p.PID, nil
		}
	}
	return 0, errors.New("the client runs no driver plugin")
}

// stop stops a job and reads when its task had ended, as the client saw it:
// the server hears of it later.
func (b *bench) stop(ctx context.Context, job *api.Job, allocID string, s *sample) error {
	asked := time.Now()
	if _, _, err := b.site.Nomad.Client.Jobs().Deregister(*job.ID, false, (&api.WriteOptions{}).WithContext(ctx)); err != nil {
		return err
	}
	if _, err := b.site.Nomad.WaitAllocs(ctx, *job.ID, harness.Ended); err != nil {
		return err
	}
	alloc, err := b.site.Nomad.Allocation(ctx, allocID)
	if err != nil {
		return err
	}
	s.Values[stopping] = ms(alloc.TaskStates[taskName].FinishedAt.Sub(asked))
	if killing := eventTime(alloc.TaskStates[taskName].Events, api.TaskKilling); !killing.IsZero() {
		s.Values[killed] = ms(alloc.TaskStates[taskName].FinishedAt.Sub(killing))
	}
	return nil
}

var totalMS = regexp.MustCompile(`\btotal_ms=([0-9.]+)`)

// readDriverLog reads what the driver said of how long the start took.
func (b *bench) readDriverLog(allocID string, s *sample) error {
	log, err := os.ReadFile(b.site.Nomad.Node.Log)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(log)) {
		match := totalMS.FindStringSubmatch(line)
		if match == nil || !strings.Contains(line, allocID) {
			continue
		}
		value, err := strconv.ParseFloat(match[1], 64)
		if err != nil {
			return err
		}
		switch {
		case strings.Contains(line, "guest started"):
			s.Values[start] = value
		case strings.Contains(line, "guest printed"):
			s.Values[firstByte] = value
		}
	}
	if s.Values[start] == 0 {
		return fmt.Errorf("the driver's log %s does not tell how long the start of allocation %s took", b.site.Nomad.Node.Log, allocID)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
