// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Command demo shows what the project is for: it starts a Nomad agent with the
// driver, has nomad-hybrid rewrite the hybrid example, runs it, asks every
// instance, and compares what a container and a unikernel cost.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

const siteName = "demo"

func main() {
	keep := flag.Bool("keep", false, "leave all running, to look around")
	stop := flag.Bool("stop", false, "stop what a run with -keep left running")
	flag.Parse()

	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, *keep, *stop); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, keep, stop bool) (err error) {
	if stop {
		layout, err := harness.FindLayout()
		if err != nil {
			return err
		}
		return harness.CloseLeftover(ctx, layout, siteName, say)
	}
	site, err := harness.OpenSite(ctx, siteName, say)
	if err != nil {
		return err
	}
	kept := false
	defer func() {
		if !kept {
			say("Stopping everything")
			err = errors.Join(err, site.Close())
		}
	}()

	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	err = show(ctx, site, keep)
	if errors.Is(ctx.Err(), context.Canceled) {
		return errors.New("interrupted; all that ran is stopped")
	}
	if err != nil {
		return err
	}
	if keep {
		kept = true
		lookAround(site)
	}
	return nil
}

func say(what string) { fmt.Println("==> " + what) }

// lookAround says how to see what was left running.
func lookAround(site *harness.Site) {
	fmt.Printf(`
All is left running. To look around:

    export NOMAD_ADDR=%s
    alias nomad=%s
    nomad job status hybrid
    nomad service info steps
    nomad node status -self -verbose | grep unikernel
    %s plan -cluster -var images=%s %s

    make demo-stop     stops it
`, site.Nomad.Address, site.Nomad.Program, site.Layout.Build("bin", "nomad-hybrid"), site.ImageDir(), jobPath(site))
}
