// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package classifier

import (
	"fmt"
	"math"
	"strings"
)

// Signal is one thing known about a task and what it says.
type Signal struct {
	// Name is the signal's name in the policy's weights.
	Name string `json:"name"`
	// Value is what was found.
	Value string `json:"value"`
	// Source is where it was read, such as "task meta" or "resources.cpu".
	Source string `json:"source"`
	// Score is 0 (light: unikernel) to 100 (heavy: container).
	Score float64 `json:"score"`
	// Weight is the policy's.
	Weight int `json:"weight"`
	// Share is the part of the task's score that comes from it, in percent of
	// all weights.
	Share float64 `json:"share"`
}

func (g Signal) String() string {
	return fmt.Sprintf("%s %s: %.0f, %.0f %%", g.Name, g.Value, g.Score, g.Share)
}

// collect gathers the signals of a task and the score they make.
func (s *subject) collect() {
	w := s.policy.Weights
	s.hintSignals(w)
	s.resourceSignals(w)
	s.imageSignals(w)
	s.clusterSignals(w)
	s.sum()
}

func (s *subject) signal(name, value, source string, score float64, weight int) {
	if weight > 0 {
		s.signals = append(s.signals, Signal{Name: name, Value: value, Source: source, Score: score, Weight: weight})
	}
}

// scaled adds a signal whose score the policy's scale gives.
func (s *subject) scaled(name string, figure float64, unit, source string, weight int) {
	if score, ok := s.policy.scale(name, figure); ok {
		s.signal(name, strings.TrimSpace(fmt.Sprintf("%g %s", figure, unit)), source, score, weight)
	}
}

func (s *subject) hintSignals(w *Weights) {
	if h, ok := s.hints[HintComplexity]; ok {
		score, _ := s.policy.complexity(h.Value)
		s.signal("complexity", h.Value, h.Level+" meta", score, w.Complexity)
	}
	if h, ok := s.hints[HintWorkload]; ok {
		kind, _ := s.policy.workload(h.Value)
		s.signal("workload", h.Value, h.Level+" meta", float64(kind.Score), w.Workload)
	}
}

// resourceSignals reads what the author asked for. What was left to Nomad's
// defaults says nothing about the application.
func (s *subject) resourceSignals(w *Weights) {
	if r := s.task.Resources; r != nil {
		if r.CPU != nil && deref(r.Cores) == 0 {
			s.scaled("cpu", float64(*r.CPU), "MHz", "resources.cpu", w.CPU)
		}
		if deref(r.Cores) > 0 {
			s.scaled("cores", float64(*r.Cores), "", "resources.cores", w.Cores)
		}
		if r.MemoryMB != nil {
			mib, source := *r.MemoryMB, "resources.memory"
			if most := deref(r.MemoryMaxMB); most > mib {
				mib, source = most, "resources.memory_max"
			}
			s.scaled("memory", float64(mib), "MiB", source, w.Memory)
		}
	}
	if n := deref(s.group.Count); n > 1 {
		s.scaled("count", float64(n), "instances", "group count", w.Count)
	}
}

// sum weighs the signals. A task without any has no score.
func (s *subject) sum() {
	total, points := 0, 0.0
	for _, g := range s.signals {
		total += g.Weight
		points += g.Score * float64(g.Weight)
	}
	if total == 0 {
		return
	}
	for i := range s.signals {
		s.signals[i].Share = math.Round(1000*float64(s.signals[i].Weight)/float64(total)) / 10
	}
	score := int(math.Round(points / float64(total)))
	s.score = &score
}

// evidence is the weight of all that is known.
func (s *subject) evidence() int {
	total := 0
	for _, g := range s.signals {
		total += g.Weight
	}
	return total
}
