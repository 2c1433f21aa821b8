// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	_ "embed" // the page's text
	"errors"
	"os"
	"strings"
	"text/template"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

//go:embed performance.md.tmpl
var pageText string

// writePage makes docs/performance.md.
func (r *report) writePage(layout harness.Layout, path string) (err error) {
	levers, err := os.ReadFile(layout.Path("docs", "performance-levers.md"))
	if err != nil {
		return err
	}
	page, err := template.New("performance.md").Funcs(template.FuncMap{
		"figure": figure,
		"roles":  roles,
		"met":    met,
		"join":   func(cells []string) string { return strings.Join(cells, " | ") },
		"kib":    func(n int64) int64 { return (n + 512) / 1024 },
	}).Parse(pageText)
	if err != nil {
		return err
	}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	r.judge()
	return page.Execute(out, map[string]any{
		"R": r, "Metrics": pageRows(r), "Contenders": r.contenders, "Levers": strings.TrimSpace(string(levers)),
	})
}

// pageRow is one metric of all contenders.
type pageRow struct {
	Title, Meaning string
	Cells          []string
}

func pageRows(r *report) []pageRow {
	var rows []pageRow
	for _, m := range metrics {
		row := pageRow{Title: m.title, Meaning: m.meaning}
		for _, name := range r.contenders {
			cell := ""
			if value, ok := r.median(name, m.key); ok {
				least, most := r.spread(name, m.key)
				cell = figure(value) + " (" + figure(least) + "–" + figure(most) + ")"
			}
			row.Cells = append(row.Cells, cell)
		}
		rows = append(rows, row)
	}
	return rows
}

// MemoryOf is for the page.
func (r *report) MemoryOf(contender string) string { return roles(r.memoryByRole(contender)) }
