// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// printReport prints a run's figures on the terminal.
func printReport(out io.Writer, r *report) {
	r.judge()
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintf(w, "\n\t%s\t\n", strings.Join(r.contenders, "\t"))
	for _, m := range metrics {
		_, _ = fmt.Fprintf(w, "%s\t%s\t\n", m.title, strings.Join(r.row(m.key, "-"), "\t"))
	}
	_ = w.Flush()
	_, _ = fmt.Fprintf(out, "\n  Medians of %d rounds. Memory by process, MiB:\n", r.Params.Rounds)
	for _, name := range r.contenders {
		_, _ = fmt.Fprintf(out, "    %-22s %s\n", name, roles(r.memoryByRole(name)))
	}
	_, _ = fmt.Fprintln(out)
	for _, c := range r.Density {
		_, _ = fmt.Fprintf(out, "  %3d %-10s answered %.1f s, stopped %.1f s, %.1f MiB each (QEMU %.1f); plugin %.1f MiB, %.2f %% CPU, %d descriptors; QEMUs %.1f %% CPU %s\n",
			c.Instances, c.Contender, c.Answered, c.Stopped, c.MemoryMiB, c.QEMUMiB, c.PluginMiB, c.PluginCPU, c.PluginFiles, c.IdleCPU, c.Failure)
	}
	_, _ = fmt.Fprintf(out, "  classification: %d tasks in %.1f s, a job of 1,000 in %.1f s\n\n", r.Classification.Tasks, r.Classification.Seconds, r.Classification.OneJob)
	printGoals(out, r)
}

func printGoals(out io.Writer, r *report) {
	for _, g := range r.Goals {
		_, _ = fmt.Fprintf(out, "  %-6s %s: %.2f, goal %.2f (%s)\n", met(g), g.Text, g.Value, g.Limit, g.How)
	}
}

func met(g goal) string {
	if g.Met {
		return "met"
	}
	return "MISSED"
}

// row is a metric of all contenders; none stands where nothing was measured.
func (r *report) row(m metric, none string) []string {
	cells := make([]string, 0, len(r.contenders))
	for _, name := range r.contenders {
		cell := none
		if value, ok := r.median(name, m); ok {
			cell = figure(value)
		}
		cells = append(cells, cell)
	}
	return cells
}

// figure shows three digits, no more than were measured.
func figure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func roles(all []roleMemory) string {
	texts := make([]string, len(all))
	for i, m := range all {
		texts[i] = fmt.Sprintf("%s %.1f", m.Role, m.MiB)
	}
	return strings.Join(texts, ", ")
}
