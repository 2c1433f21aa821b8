// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	_ "embed" // the page's text
	"errors"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

//go:embed performance.md.tmpl
var pageText string

// writePage makes docs/performance.md.
func (r *report) writePage(layout harness.Layout, path string) error {
	levers, err := os.ReadFile(layout.Path("docs", "performance-levers.md"))
	if err != nil {
		return err
	}
	return r.fill(path, pageText, map[string]any{"Metrics": pageRows(r), "Levers": strings.TrimSpace(string(levers))})
}

// fill makes a page from its text, the report and more values.
func (r *report) fill(path, text string, values map[string]any) (err error) {
	page, err := template.New(filepath.Base(path)).Funcs(template.FuncMap{
		"figure": figure,
		"met":    met,
		"join":   func(cells []string) string { return strings.Join(cells, " | ") },
		"kib":    func(n int64) int64 { return (n + 512) / 1024 },
	}).Parse(text)
	if err != nil {
		return err
	}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	r.judge()
	values["R"], values["Contenders"] = r, r.contenders
	return page.Execute(out, values)
}

// pageRow is one metric of all contenders.
type pageRow struct {
	Title, Meaning string
	Cells          []string
}

func pageRows(r *report) []pageRow {
	var rows []pageRow
	for _, m := range metrics {
		rows = append(rows, pageRow{m.title, m.meaning, r.cells(m.key, 1)})
	}
	return rows
}

// cells are a metric's median, least and most of all contenders, in a unit.
func (r *report) cells(m metric, unit float64) []string {
	var cells []string
	for _, name := range r.contenders {
		cell := ""
		if value, ok := r.median(name, m); ok {
			least, most := r.spread(name, m)
			cell = figure(value/unit) + " (" + figure(least/unit) + "–" + figure(most/unit) + ")"
		}
		cells = append(cells, cell)
	}
	return cells
}

// MemoryOf is for the page.
func (r *report) MemoryOf(contender string) string { return roles(r.memoryByRole(contender)) }
