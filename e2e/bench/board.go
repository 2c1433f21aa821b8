// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	_ "embed" // the page's text
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

//go:embed performance-arm.md.tmpl
var boardText string

// boardPage makes performance-arm.md and its plots from the figures of the
// emulated ARM board. They become ratios, as a clock that is emulated tells
// which of two things takes longer, and not how long either takes. What is in
// MiB stays so.
func boardPage(ctx context.Context, figures, docs string) error {
	layout, err := harness.FindLayout()
	if err != nil {
		return err
	}
	if docs == "" {
		docs = layout.Path("docs")
	}
	r, err := readReport(figures)
	if err != nil {
		return err
	}
	r.Machine.Driver = revision(ctx, layout.Root) // which a board cannot know
	emulator, err := exec.CommandContext(ctx, "qemu-system-aarch64", "--version").Output()
	if err != nil {
		return fmt.Errorf("asking the board's emulator for its version: %w", err)
	}
	version, _, _ := strings.Cut(string(emulator), "\n")
	if err := r.plotBoard(filepath.Join(docs, "performance-arm")); err != nil {
		return err
	}
	page := filepath.Join(docs, "performance-arm.md")
	err = r.fill(page, boardText, map[string]any{
		"Host":    fmt.Sprintf("%d cores of %s", runtime.NumCPU(), cpuName()),
		"QEMU":    version,
		"Metrics": ratioRows(r),
		"Memory":  pageRow{Cells: r.cells(memory, 1)},
		"Crowds":  crowdRows(r),
		"Every":   boardPace.askEvery,
	})
	if err != nil {
		return err
	}
	printGoals(os.Stdout, r)
	fmt.Printf("\n  All figures: %s\n  The page:    %s\n", figures, page)
	return nil
}

// readReport reads what a run has saved.
func readReport(path string) (*report, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &report{contenders: allContenders}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return r, nil
}

func (r *report) plotBoard(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if one, ok := r.median(container, direct); ok {
		if err := r.plotTimes(filepath.Join(dir, "answer.svg"), "container = 1", one); err != nil {
			return err
		}
	}
	return r.plotMemory(filepath.Join(dir, "memory.svg"))
}

// ratioRow is one metric of all contenders, as against one of them.
type ratioRow struct {
	Title string
	One   string // the contender
	Cells []string
}

// ratioRows compares with the container; where that has no such figure, with
// bare QEMU.
func ratioRows(r *report) []ratioRow {
	var rows []ratioRow
	for _, m := range metrics {
		if m.key == memory || m.key == pluginCPU {
			continue // in MiB; nothing to compare with
		}
		one := container
		unit, ok := r.median(one, m.key)
		if !ok {
			one = bare
			unit, ok = r.median(one, m.key)
		}
		if !ok || unit == 0 {
			continue
		}
		title, _, _ := strings.Cut(m.title, ", ")
		rows = append(rows, ratioRow{title, one, r.cells(m.key, unit)})
	}
	return rows
}

// crowdRow is a crowd, its times as against that of containers.
type crowdRow struct {
	crowd

	Answer, Stop float64 // 0: nothing to compare with
}

func crowdRows(r *report) []crowdRow {
	containers := map[int]crowd{}
	for _, c := range r.Density {
		if c.Contender == container && c.Failure == "" {
			containers[c.Instances] = c
		}
	}
	var rows []crowdRow
	for _, c := range r.Density {
		row := crowdRow{crowd: c}
		if one, ok := containers[c.Instances]; ok && one.Answered > 0 && one.Stopped > 0 {
			row.Answer, row.Stop = c.Answered/one.Answered, c.Stopped/one.Stopped
		}
		rows = append(rows, row)
	}
	return rows
}
