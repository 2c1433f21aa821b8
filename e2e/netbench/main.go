// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Command netbench measures what the ways to a task cost: one application, as a
// container on Docker's bridge and others, and as a unikernel in host and in
// bridge mode. The node has a network of its own, so what asks comes from
// outside, as an operator's clients do. It writes docs/performance-network.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

const siteName = "netbench"

func main() {
	rounds := flag.Int("rounds", 5, "rounds, in each of which every way is measured once")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	ctx, stop := context.WithTimeout(ctx, 15*time.Minute)
	defer stop()
	if err := run(ctx, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "netbench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, rounds int) (err error) {
	busy, err := loadAverage()
	if err != nil {
		return err
	}
	site, err := harness.OpenSite(ctx, siteName, say)
	if err != nil {
		return err
	}
	defer func() {
		say("Stopping everything")
		err = errors.Join(err, site.Close())
	}()
	b := &bench{site: site, figures: map[figure][]float64{}, load: busy}
	if err := b.start(ctx); err != nil {
		return err
	}
	for round := range rounds + 1 {
		// The first one fills caches and does not count.
		say(fmt.Sprintf("Round %d of %d", round, rounds))
		for _, w := range ways {
			if err := b.measure(ctx, w, round > 0); err != nil {
				return fmt.Errorf("round %d, %s: %w", round, w.title, err)
			}
		}
	}
	return b.write(ctx, rounds)
}

// loadAverage is how many processes have wanted a core of late.
func loadAverage() (string, error) {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "", err
	}
	first, _, _ := strings.Cut(string(data), " ")
	return first, nil
}

func say(what string) { fmt.Println("==> " + what) }
