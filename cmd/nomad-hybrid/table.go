// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/fatih/color"
	"github.com/mitchellh/go-wordwrap"
	"golang.org/x/term"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier"
)

// printer shows a report to people.
type printer struct {
	w     *bytes.Buffer
	width int // of the terminal; 0: lines are not wrapped
	color bool
}

// terminal returns the width of a terminal and whether it shows colour.
func terminal(f *os.File) (width int, colour bool) {
	if !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		width = 80
	}
	_, off := os.LookupEnv("NO_COLOR")
	return width, !off && os.Getenv("TERM") != "dumb"
}

func (p *printer) paint(s string, attrs ...color.Attribute) string {
	if !p.color || len(attrs) == 0 {
		return s
	}
	c := color.New(attrs...)
	c.EnableColor()
	return c.Sprint(s)
}

// report prints a row for each task and below it the reasons.
func (p *printer) report(r *classifier.Report) {
	fmt.Fprintf(p.w, "Job %q, policy %s\n\n", r.Job, r.Policy)
	if len(r.Tasks) == 0 {
		fmt.Fprintln(p.w, "The job has no tasks.")
		return
	}
	header := []string{"GROUP", "TASK", "COUNT", "RUNTIME", "SCORE", "BY", "DRIVER"}
	rows := [][]string{header}
	for _, t := range r.Tasks {
		rows = append(rows, row(t))
	}
	widths := fit(columnWidths(rows), p.width)
	fmt.Fprintln(p.w, p.paint(line(header, widths), color.Bold))
	for i, t := range r.Tasks {
		fmt.Fprintln(p.w, p.paint(line(rows[i+1], widths), runtimeColor(t)...))
		p.reasons(t)
	}
	p.summary(r)
}

func row(t classifier.TaskReport) []string {
	score := "-"
	if t.Score != nil {
		score = strconv.Itoa(*t.Score)
	}
	driver := t.Driver
	if t.NewDriver != t.Driver {
		driver += " -> " + t.NewDriver
	}
	return []string{t.Group, t.Task, strconv.Itoa(t.Count), string(t.Decision), score, string(t.Rule), driver}
}

func columnWidths(rows [][]string) []int {
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, cell := range r {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	return widths
}

// Names are cut where a row would be wider than the terminal, but not below
// leastName.
const (
	gap       = 2
	leastName = 8
)

// fit narrows the columns of names (group and task) to the terminal's width.
func fit(widths []int, most int) []int {
	row := -gap
	for _, w := range widths {
		row += w + gap
	}
	for most > 0 && row > most {
		i := 0
		if widths[1] > widths[0] {
			i = 1
		}
		if widths[i] <= leastName {
			break
		}
		widths[i]--
		row--
	}
	return widths
}

// cut shortens a cell to its column.
func cut(cell string, width int) string {
	if runes := []rune(cell); len(runes) > width {
		return string(runes[:width-1]) + "…"
	}
	return cell
}

func line(cells []string, widths []int) string {
	var b strings.Builder
	for i, cell := range cells {
		cell = cut(cell, widths[i])
		b.WriteString(cell)
		b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+gap))
	}
	return strings.TrimRight(b.String(), " ")
}

func runtimeColor(t classifier.TaskReport) []color.Attribute {
	switch {
	case t.Rule == classifier.RuleUndecided:
		return []color.Attribute{color.FgYellow}
	case t.Decision == classifier.Unikernel:
		return []color.Attribute{color.FgGreen}
	case t.Considered:
		return []color.Attribute{color.FgCyan}
	}
	return nil
}

func (p *printer) reasons(t classifier.TaskReport) {
	for _, reason := range t.Reasons {
		p.indented("    ", reason)
	}
	for _, g := range t.Signals {
		weighs := fmt.Sprintf("weighs %.0f %%", g.Share)
		if g.Share == 0 {
			weighs = "not counted, as it would lower the score"
		}
		p.indented("      ", fmt.Sprintf("%s %s (%s): scores %.0f, %s", g.Name, g.Value, g.Source, g.Score, weighs))
	}
	if u := t.UnikernelImage; u != nil {
		p.indented("    ", unikernelImage(u))
	}
	for _, note := range t.Notes {
		p.indented("    ", "note: "+note)
	}
	p.placements(t)
}

// unikernelImage tells which image would run, and what is known of it.
func unikernelImage(u *classifier.NamedImage) string {
	text := fmt.Sprintf("unikernel image %s (%s)", u.Ref, u.From)
	var known []string
	if f := u.Facts; f != nil {
		if f.Family != "" {
			known = append(known, strings.TrimSpace(f.Family+" "+f.Release))
		}
		if len(f.Arch) > 0 {
			known = append(known, "for "+strings.Join(f.Arch, " and "))
		}
		if f.MemoryMiB > 0 {
			known = append(known, fmt.Sprintf("boots in %d MiB", f.MemoryMiB))
		}
		if len(f.Cannot) > 0 {
			known = append(known, "takes no "+strings.Join(f.Cannot, ", no "))
		}
	}
	if len(known) == 0 {
		return text
	}
	return text + ": " + strings.Join(known, ", ")
}

// placements says where the group could go as each runtime, and what it would
// take there.
func (p *printer) placements(t classifier.TaskReport) {
	for _, way := range []struct {
		name string
		at   *classifier.Placement
	}{{"container", t.AsContainer}, {"unikernel", t.AsUnikernel}} {
		if way.at != nil {
			p.indented("    ", fmt.Sprintf("as a %s: %s", way.name, placement(way.at)))
		}
	}
}

func placement(at *classifier.Placement) string {
	text := fmt.Sprintf("%d of %s fit", at.Fit, plural(at.Of, "node"))
	if len(at.Nodes) > 0 {
		names := strings.Join(at.Nodes, ", ")
		if at.Fit > len(at.Nodes) {
			names += ", …"
		}
		text += " (" + names + ")"
	}
	if at.KVM > 0 {
		text += fmt.Sprintf(", %d with KVM", at.KVM)
	}
	text += fmt.Sprintf("; an instance of the group takes %d MHz, %d MiB of memory and %d MiB of disk", at.Takes.CPU, at.Takes.MemoryMiB, at.Takes.DiskMiB)
	if at.Fit > 0 {
		text += fmt.Sprintf(", and there is room for %d", at.Room)
	}
	if len(at.Missing) > 0 {
		text += "; the others: " + strings.Join(at.Missing, ", ")
	}
	return text
}

func (p *printer) indented(indent, text string) {
	if room := p.width - len(indent); p.width > 0 && room > 20 {
		text = wordwrap.WrapString(text, uint(room))
	}
	fmt.Fprintln(p.w, indent+strings.ReplaceAll(text, "\n", "\n"+indent+"  "))
}

func (p *printer) summary(r *classifier.Report) {
	count := map[classifier.Decision]int{}
	for _, t := range r.Tasks {
		count[t.Decision]++
	}
	fmt.Fprintf(p.w, "\n%s: %d container, %d unikernel", plural(len(r.Tasks), "task"), count[classifier.Container], count[classifier.Unikernel])
	if n := count[classifier.AsWritten]; n > 0 {
		fmt.Fprintf(p.w, ", %d as written", n)
	}
	if r.Undecided > 0 {
		fmt.Fprintf(p.w, " (%d of them undecided)", r.Undecided)
	}
	fmt.Fprintln(p.w)
	if slices.ContainsFunc(r.Tasks, func(t classifier.TaskReport) bool { return t.Score != nil }) {
		fmt.Fprintln(p.w, "Scores go from 0 (light: unikernel) to 100 (heavy: container).")
	}
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// diff prints the change of the job.
func (p *printer) diff(diff string) {
	if diff == "" {
		fmt.Fprintln(p.w, "\nThe job stays as it is.")
		return
	}
	fmt.Fprintln(p.w)
	for line := range strings.Lines(diff) {
		text := strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(text, "diff "), strings.HasPrefix(text, "+++"), strings.HasPrefix(text, "---"):
			text = p.paint(text, color.Bold)
		case strings.HasPrefix(text, "@@"):
			text = p.paint(text, color.FgCyan)
		case strings.HasPrefix(text, "+"):
			text = p.paint(text, color.FgGreen)
		case strings.HasPrefix(text, "-"):
			text = p.paint(text, color.FgRed)
		}
		fmt.Fprintln(p.w, text)
	}
}
