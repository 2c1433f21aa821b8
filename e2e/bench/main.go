// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Command bench measures what a unikernel costs beside what an operator would
// use instead: the same application as a container, under Nomad's own qemu
// driver, and in a bare QEMU without Nomad. It prints a table and writes JSON,
// plots and docs/performance.md; from what it measured on the emulated ARM
// board, docs/performance-arm.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

const siteName = "bench"

// params is how much is measured.
type params struct {
	Rounds  int   `json:"rounds"`
	Density []int `json:"density"` // instances of each step
	Tasks   int   `json:"tasks"`   // to classify, in jobs of 1,000
	Short   bool  `json:"short"`
	Board   bool  `json:"board"` // on the emulated ARM board
}

func main() {
	var p params
	var density, out, figures string
	var levers bool
	flag.IntVar(&p.Rounds, "rounds", 0, "rounds of the comparison (default 5, short 2)")
	flag.StringVar(&density, "density", "", "numbers of instances at once, such as 10,50 (default 10,50,100,200, short 10)")
	flag.BoolVar(&p.Short, "short", false, "measure less, in three minutes")
	flag.BoolVar(&levers, "levers", false, "try ways of starting a bare QEMU instead, each beside the usual one")
	flag.BoolVar(&p.Board, "board", false, "measure on the emulated ARM board, whose clock is emulated too, and write nothing but figures")
	flag.StringVar(&figures, "page", "", "make performance-arm.md from the figures that a board wrote to this file")
	limit := flag.Duration("limit", 25*time.Minute, "end after this long")
	flag.StringVar(&out, "out", "", "folder for performance.md and its plots, or for a board's figures (default docs, short build/bench/docs)")
	flag.Parse()

	err := p.complete(density)
	if err == nil {
		ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		defer cancel()
		ctx, stop := context.WithTimeout(ctx, *limit)
		defer stop()
		switch {
		case levers:
			err = tryLevers(ctx, p.Rounds)
		case figures != "":
			err = boardPage(ctx, figures, out)
		default:
			err = run(ctx, p, out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (p *params) complete(density string) error {
	rounds, counts, tasks := 5, "10,50,100,200", 5000
	if p.Short {
		rounds, counts, tasks = 2, "10", 1000
	}
	if p.Board {
		rounds, counts, tasks = 2, "5", 0
	}
	if p.Rounds == 0 {
		p.Rounds = rounds
	}
	if density == "" {
		density = counts
	}
	p.Tasks = tasks
	for _, field := range strings.Split(density, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(field))
		if err != nil || n < 1 {
			return fmt.Errorf("-density %q: give numbers of instances, such as 10,50", density)
		}
		p.Density = append(p.Density, n)
	}
	return nil
}

func run(ctx context.Context, p params, out string) (err error) {
	site, err := harness.OpenSite(ctx, siteName, say, containerImage)
	if err != nil {
		return err
	}
	defer func() {
		say("Stopping everything")
		err = errors.Join(err, site.Close())
	}()
	b, err := newBench(ctx, site, p)
	if err != nil {
		return err
	}
	if err := b.reconfigure(ctx, "nomad"); err != nil {
		return err
	}
	err = b.measure(ctx)
	if p.Board { // it is thrown away: what was measured until then is kept
		return errors.Join(err, b.report.save(filepath.Join(out, figuresFile)))
	}
	if err != nil {
		return err
	}
	if out == "" {
		out = site.Layout.Path("docs")
		if p.Short {
			out = site.Layout.Build(siteName, "docs")
		}
	}
	printReport(os.Stdout, b.report)
	return b.report.write(site.Layout, out)
}

// figuresFile keeps all that was measured.
const figuresFile = "results.json"

func say(what string) { fmt.Println("==> " + what) }
