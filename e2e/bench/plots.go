// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"image/color"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	_ "gonum.org/v1/plot/vg/vgsvg" // the plots' format
)

const (
	plotWidth  = 7 * vg.Inch
	plotHeight = 3.5 * vg.Inch
)

// plot draws what a picture tells better than a table.
func (r *report) plot(dir string) error {
	if err := r.plotTimes(filepath.Join(dir, "answer.svg"), "ms", 1); err != nil {
		return err
	}
	if err := r.plotMemory(filepath.Join(dir, "memory.svg")); err != nil {
		return err
	}
	return r.plotDensity(filepath.Join(dir, "density.svg"))
}

func newPlot(title, x, y string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = color.White
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.Legend.Top = true
	p.Y.Min = 0
	return p
}

// plotTimes draws each round's time to the first answer, in a unit of so many
// milliseconds.
func (r *report) plotTimes(path, unit string, each float64) error {
	p := newPlot("Submit to first answer", "", unit)
	for i, name := range r.contenders {
		var all plotter.Values
		for _, s := range r.Samples {
			if v, ok := s.Values[direct]; ok && s.Contender == name {
				all = append(all, v/each)
			}
		}
		if len(all) == 0 {
			continue
		}
		box, err := plotter.NewBoxPlot(vg.Points(40), float64(i), all)
		if err != nil {
			return err
		}
		box.FillColor = plotutil.SoftColors[i%len(plotutil.SoftColors)]
		p.Add(box)
	}
	p.NominalX(r.contenders...)
	return p.Save(plotWidth, plotHeight, path)
}

// plotMemory stacks what the processes of a task take.
func (r *report) plotMemory(path string) error {
	p := newPlot("Memory of all that runs for one task (PSS)", "", "MiB")
	var below *plotter.BarChart
	for i, role := range r.allRoles() {
		heights := make(plotter.Values, len(r.contenders))
		for j, name := range r.contenders {
			for _, m := range r.memoryByRole(name) {
				if m.Role == role {
					heights[j] = m.MiB
				}
			}
		}
		bar, err := plotter.NewBarChart(heights, vg.Points(40))
		if err != nil {
			return err
		}
		bar.Color, bar.LineStyle.Width = plotutil.SoftColors[i%len(plotutil.SoftColors)], 0
		if below != nil {
			bar.StackOn(below)
		}
		below = bar
		p.Add(bar)
		p.Legend.Add(role, bar)
	}
	p.NominalX(r.contenders...)
	return p.Save(plotWidth, plotHeight, path)
}

// allRoles lists the roles that any contender has, each once.
func (r *report) allRoles() []string {
	var all []string
	known := map[string]bool{}
	for _, name := range r.contenders {
		for _, m := range r.memoryByRole(name) {
			if !known[m.Role] {
				known[m.Role] = true
				all = append(all, m.Role)
			}
		}
	}
	return all
}

// plotDensity draws how long it takes until a crowd answers.
func (r *report) plotDensity(path string) error {
	p := newPlot("Until all instances answer", "instances", "s")
	p.Legend.Left = true
	lines := map[string]plotter.XYs{}
	for _, c := range r.Density {
		if c.Failure == "" {
			lines[c.Contender] = append(lines[c.Contender], plotter.XY{X: float64(c.Instances), Y: c.Answered})
		}
	}
	var args []any
	for _, name := range r.contenders {
		if len(lines[name]) > 0 {
			args = append(args, name, lines[name])
		}
	}
	if err := plotutil.AddLinePoints(p, args...); err != nil {
		return err
	}
	return p.Save(plotWidth, plotHeight, path)
}
