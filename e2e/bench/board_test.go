// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/shoenig/test/must"
)

// boardReport is what a board measured: its container takes 4 s, all else half
// of it or a multiple.
func boardReport() *report {
	r := &report{
		Params:     params{Board: true, Rounds: 1},
		Failures:   map[string]string{qemuDriver: "it had no luck"},
		contenders: allContenders,
		Density: []crowd{
			{Contender: container, Instances: 5, Answered: 20, Stopped: 10},
			{Contender: lean, Instances: 5, Answered: 5, Stopped: 1, PluginMiB: 35, PluginCPU: 50},
		},
	}
	for name, values := range map[string]map[metric]float64{
		container: {direct: 4000, memory: 60, stopping: 100, pluginCPU: 0.01},
		lean:      {direct: 1000, start: 315, memory: 30, stopping: 10, pluginCPU: 4},
		bare:      {direct: 500, start: 300, memory: 29, stopping: 5},
	} {
		s := newSample(name)
		s.Values = values
		r.Samples = append(r.Samples, s)
	}
	return r
}

func TestRatioRows(t *testing.T) {
	rows := map[string]ratioRow{}
	for _, row := range ratioRows(boardReport()) {
		rows[row.Title] = row
	}
	must.MapLen(t, 3, rows) // neither memory, nor what the container has not to compare with
	must.Eq(t, ratioRow{"submit to first answer", container, []string{
		"1.00 (1.00–1.00)", "", "0.25 (0.25–0.25)", "", "", "0.12 (0.12–0.12)",
	}}, rows["submit to first answer"])
	must.Eq(t, ratioRow{"start", bare, []string{"", "", "1.05 (1.05–1.05)", "", "", "1.00 (1.00–1.00)"}}, rows["start"])
}

func TestCrowdRows(t *testing.T) {
	rows := crowdRows(boardReport())
	must.Eq(t, []float64{1, 1, 0.25, 0.1}, []float64{rows[0].Answer, rows[0].Stop, rows[1].Answer, rows[1].Stop})
}

// On a board no goal is about its cores, which are emulated.
func TestBoardGoals(t *testing.T) {
	r := boardReport()
	r.judge()
	for _, g := range r.Goals {
		must.True(t, g.Met, must.Sprint(g.Text, g.Value))
	}
	must.Len(t, 6, r.Goals)
}

// The page is made where the board is not: from a file.
func TestBoardPage(t *testing.T) {
	dir := t.TempDir()
	figures := filepath.Join(dir, figuresFile)
	must.NoError(t, boardReport().save(figures))
	must.NoError(t, boardPage(t.Context(), figures, dir))
	page, err := os.ReadFile(filepath.Join(dir, "performance-arm.md"))
	must.NoError(t, err)
	for _, want := range []string{
		"| submit to first answer, as against the container | 0.25 | 0.35 | met |",
		"| memory, MiB | | 60.0 (60.0–60.0) |  | 30.0 (30.0–30.0) |",
		"qemu driver failed", "it had no luck",
		"| 5 | unikernel, own logs | 0.25 | 0.10 |",
	} {
		must.StrContains(t, string(page), want)
	}
	must.FileExists(t, filepath.Join(dir, "performance-arm", "memory.svg"))
}
