// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

// bench is one run: one agent, all contenders.
type bench struct {
	site     *harness.Site
	params   params
	pace     pace
	platform platform
	answer   string                      // the right one
	restore  func(context.Context) error // of the client's configuration
	report   *report
}

// contender is a way of running the application.
type contender struct {
	name  string
	round func(context.Context, contender) (*sample, error)
	task  taskMaker // nil: not a task of Nomad's
}

func newBench(ctx context.Context, site *harness.Site, p params) (*bench, error) {
	b := &bench{site: site, params: p, pace: hostPace, platform: hostPlatform(site.ImageDir())}
	if p.Board {
		b.pace = boardPace
	}
	var err error
	if b.answer, err = rightAnswer(site.Layout.Path("examples", "steps", "data", "steps.csv")); err != nil {
		return nil, err
	}
	if b.report, err = newReport(ctx, site, p); err != nil {
		return nil, err
	}
	return b, nil
}

// The contenders' names.
const (
	container  = "container"
	unikernel  = "unikernel"
	lean       = "unikernel, own logs"
	warm       = "unikernel, warm"
	qemuDriver = "qemu driver"
	bare       = "bare QEMU"
)

// allContenders are in the order of the tables.
var allContenders = []string{container, unikernel, lean, warm, qemuDriver, bare}

// isOurs tells whether the driver of this project runs a contender.
func (c contender) isOurs() bool { return c.name == unikernel || c.name == lean || c.name == warm }

// measure runs all parts: rounds with the plugin's default options first, then
// with its own log files, as that is for the whole node.
func (b *bench) measure(ctx context.Context) error {
	if err := b.measureImages(ctx); err != nil {
		return err
	}
	asContainer := contender{container, b.nomadRound, b.containerTask}
	asBare := contender{bare, b.bareRound, nil}
	err := b.rounds(ctx, []contender{
		asContainer, {unikernel, b.nomadRound, b.unikernelTask}, {qemuDriver, b.nomadRound, b.qemuTask}, asBare,
	})
	if err != nil {
		return err
	}
	say("Starting the client again, with the driver's own logs")
	if err := b.reconfigure(ctx, "driver"); err != nil {
		return err
	}
	err = b.rounds(ctx, []contender{
		asContainer, {lean, b.nomadRound, b.unikernelTask}, {warm, b.nomadRound, b.warmTask}, asBare,
	})
	if err != nil {
		return err
	}
	if b.params.Tasks > 0 {
		if err := b.classify(ctx); err != nil {
			return err
		}
	}
	return b.density(ctx)
}

// reconfigure starts the client anew with another log collector.
func (b *bench) reconfigure(ctx context.Context, collector string) error {
	if b.restore != nil {
		if err := b.restore(ctx); err != nil {
			return err
		}
	}
	var err error
	b.restore, err = b.site.Nomad.Reconfigure(ctx, harness.NodeExtras{
		QEMUImages: b.site.ImageDir(), TotalMHz: 100_000, // room for a crowd
		Driver: fmt.Sprintf("logs {\n  collector = %q\n}\nwarm {\n  dir = %q\n}\n", collector, b.warmDir()),
	})
	return err
}

// warmDir keeps saved guests of this run.
func (b *bench) warmDir() string { return filepath.Join(filepath.Dir(b.site.State), "warm") }

// rounds are interleaved, so that what else the machine does meanwhile hits
// every contender alike. The first one fills caches and does not count. A
// contender that fails is left out from there on, and the report says so.
func (b *bench) rounds(ctx context.Context, all []contender) error {
	for round := range b.params.Rounds + 1 {
		if round > 0 {
			say(fmt.Sprintf("Round %d of %d", round, b.params.Rounds))
		}
		for _, c := range all {
			if b.report.Failures[c.name] != "" {
				continue
			}
			s, err := c.round(ctx, c)
			if ctx.Err() != nil {
				return fmt.Errorf("round %d of %s: %w", round, c.name, err)
			}
			if err != nil {
				say(fmt.Sprintf("%s fails in round %d: %v", c.name, round, err))
				b.report.Failures[c.name] = err.Error()
				continue
			}
			if round > 0 {
				b.report.Samples = append(b.report.Samples, s)
			}
		}
	}
	return nil
}
