// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import "fmt"

// goal is a promise, as a ratio of two figures of the same run or as a bound.
type goal struct {
	Text  string  `json:"text"`
	Limit float64 `json:"limit"`
	Value float64 `json:"value"`
	Met   bool    `json:"met"`
	How   string  `json:"how"` // the figures behind the value
}

// judge compares what was measured with what was promised.
func (r *report) judge() {
	r.Goals = nil
	r.ratio("StartTask returns, as against bare QEMU's monitor answering", 1.10, best, start, bare, start)
	r.ratio("first console byte from the beginning of StartTask, as against bare QEMU", 1.10, best, firstByte, bare, firstByte)
	r.ratio("submit to first answer, as against the container", 0.35, best, direct, container, direct)
	r.ratio("submit to first answer with a warm start, as against the container", 0.35, warm, direct, container, direct)
	r.ratio("memory of all that runs for the task, as against Nomad's qemu driver", 0.5, best, memory, qemuDriver, memory)
	r.ratio("memory of all that runs for the task, as against the container", 1, best, memory, container, memory)
	r.ratio("stop, as against the container", 0.2, best, stopping, container, stopping)
	for i := len(r.Density) - 1; i >= 0; i-- {
		if c := r.Density[i]; c.Contender != container {
			r.crowdGoals(c)
			return
		}
	}
}

// best is the contender that the goals speak of.
const best = lean

func (r *report) ratio(text string, limit float64, of string, m metric, to string, n metric) {
	a, measured := r.median(of, m)
	b, compared := r.median(to, n)
	if !measured || !compared || b == 0 {
		return
	}
	r.Goals = append(r.Goals, goal{
		Text: text, Limit: limit, Value: a / b, Met: a/b <= limit,
		How: fmt.Sprintf("%s %.1f, %s %.1f", of, a, to, b),
	})
}

func (r *report) crowdGoals(c crowd) {
	add := func(text string, limit, value float64, how string) {
		met := c.Failure == "" && value <= limit
		r.Goals = append(r.Goals, goal{Text: text, Limit: limit, Value: value, Met: met, How: how})
	}
	at := fmt.Sprintf("%d instances on %d cores", c.Instances, r.Machine.Cores)
	lost := 0.0
	if c.Failure != "" {
		lost = 1
	}
	add(at+": none lost", 0, lost, fmt.Sprintf("all answered after %.1f s, all stopped after %.1f s", c.Answered, c.Stopped))
	add(at+": plugin's memory, MiB", 60, c.PluginMiB, fmt.Sprintf("%d descriptors", c.PluginFiles))
	if r.Params.Board {
		return // the rest is about cores, and these are emulated
	}
	add(at+": plugin's CPU at rest, % of a core", 3, c.PluginCPU, fmt.Sprintf("all QEMUs together %.0f %%", c.IdleCPU))
}
