// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	loadClients = 6
	loadPace    = 4 * time.Millisecond // between two requests of all clients together
	loadWindow  = 200                  // answers that are of late
)

// load asks one URL, which answers with the environment of whoever answers,
// until it is stopped. Each request has a connection of its own and is sent
// once, so that nothing is retried unseen.
type load struct {
	url    string
	began  time.Time
	client *http.Client
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu      sync.Mutex
	spread  spread
	changed chan struct{} // closed and made anew at each answer
}

// instance is one that answered.
type instance struct{ alloc, release string }

// spread is what came of the requests.
type spread struct {
	answers   map[instance]int
	window    []instance       // the latest answers
	recent    map[instance]int // the same, counted
	refused   int              // connections that the client tried again
	again     int              // requests that nginx sent to more than one instance
	failed    []error
	latencies []time.Duration
}

func startLoad(ctx context.Context, url string) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{
		url:     url,
		began:   time.Now(),
		client:  &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second},
		cancel:  cancel,
		spread:  spread{answers: map[instance]int{}, recent: map[instance]int{}},
		changed: make(chan struct{}),
	}
	pace := time.NewTicker(loadPace)
	for range loadClients {
		l.done.Go(func() {
			for {
				select {
				case <-pace.C:
					l.ask(context.WithoutCancel(ctx))
				case <-ctx.Done():
					return
				}
			}
		})
	}
	return l
}

// stop waits for the last answers. It may be called again.
func (l *load) stop() {
	l.cancel()
	l.done.Wait()
}

func (l *load) ask(ctx context.Context) {
	start := time.Now()
	by, asked, err := l.get(ctx)
	for errors.Is(err, syscall.ECONNREFUSED) && time.Since(start) < time.Second {
		l.note(func(s *spread) { s.refused++ })
		by, asked, err = l.get(ctx)
	}
	l.note(func(s *spread) { s.add(by, asked, time.Since(start), err) })
}

// get returns who answered, and how many nginx asked for it.
func (l *load) get(ctx context.Context) (by instance, asked int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url, nil)
	if err != nil {
		return by, 0, err
	}
	res, err := l.client.Do(req)
	if err != nil {
		return by, 0, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	upstream := res.Header.Get("X-Upstream")
	if err != nil || res.StatusCode != http.StatusOK {
		return by, 0, fmt.Errorf("%s by %q: %.100s (%w)", res.Status, upstream, body, err)
	}
	var env map[string]string
	if err := json.Unmarshal(body, &env); err != nil {
		return by, 0, fmt.Errorf("answer %q by %q: %w", body, upstream, err)
	}
	return instance{env["NOMAD_ALLOC_ID"], env["RELEASE"]}, strings.Count(upstream, ",") + 1, nil
}

func (l *load) note(what func(*spread)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	what(&l.spread)
	close(l.changed)
	l.changed = make(chan struct{})
}

func (s *spread) add(by instance, asked int, took time.Duration, err error) {
	if err != nil {
		s.failed = append(s.failed, err)
		return
	}
	s.answers[by]++
	s.latencies = append(s.latencies, took)
	if asked > 1 {
		s.again++
	}
	s.window = append(s.window, by)
	s.recent[by]++
	if len(s.window) > loadWindow {
		oldest := s.window[0]
		s.window = s.window[1:]
		if s.recent[oldest]--; s.recent[oldest] == 0 {
			delete(s.recent, oldest)
		}
	}
}

// await waits until the answers show something.
func (l *load) await(ctx context.Context, what string, until func(*spread) bool) error {
	for {
		l.mu.Lock()
		done, changed := until(&l.spread), l.changed
		l.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for answers of %s: %w; %s", what, context.Cause(ctx), l.report())
		}
	}
}

// failures are the requests that were lost.
func (l *load) failures() []error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.spread.failed)
}

// report sums up all answers so far.
func (l *load) report() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &l.spread
	slices.Sort(s.latencies)
	return fmt.Sprintf("%v, %d answers, %d requests lost, %d connections refused, %d asked of a second instance; median %v, 99 of 100 within %v; by instance %v; errors %v",
		time.Since(l.began).Round(time.Second), len(s.latencies), len(s.failed), s.refused, s.again,
		quantile(s.latencies, 50), quantile(s.latencies, 99), s.perInstance(), s.failed[:min(3, len(s.failed))])
}

func quantile(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)-1)*percent/100].Round(10 * time.Microsecond)
}
