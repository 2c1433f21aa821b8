// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"slices"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

// metric is one thing that a round measures.
type metric string

// The metrics.
const (
	running    metric = "running_ms"
	direct     metric = "answer_direct_ms"
	discovered metric = "answer_discovered_ms"
	setup      metric = "setup_ms"
	start      metric = "start_ms"
	firstByte  metric = "first_byte_ms"
	stopping   metric = "stop_ms"
	killed     metric = "kill_ms"
	memory     metric = "memory_mib"
	idleCPU    metric = "idle_cpu_percent"
	pluginCPU  metric = "plugin_cpu_percent"
	rate       metric = "requests_per_second"
	p50        metric = "latency_p50_ms"
	p99        metric = "latency_p99_ms"

	cpuToAnswer metric = "cpu_to_answer_ms" // of a bare QEMU: what a busy machine does not change
)

// metrics are all, in the order of the tables, with what they mean.
var metrics = []struct {
	key     metric
	title   string
	meaning string
}{
	{running, "submit to started, ms", "from the job's submission to Nomad's event Started"},
	{direct, "submit to first answer, ms", "from the job's submission to the first right answer, asked for every 4 ms at a port that is known beforehand"},
	{discovered, "the same by service discovery, ms", "the port learned from Nomad's services"},
	{setup, "received to started, ms", "from Nomad's event Received to Started: folders, log collectors and the driver"},
	{start, "start, ms", "the driver's StartTask, by its own log; bare: until QEMU's monitor answers, when the guest runs"},
	{firstByte, "first console byte, ms", "from the beginning of StartTask, or of the process, until the guest's first byte was read"},
	{stopping, "stop, ms", "from the request to the task's end"},
	{killed, "kill, ms", "the part of it from Nomad's event Killing on"},
	{memory, "memory, MiB", "proportional set size (PSS) of all that runs for the task and for no other"},
	{idleCPU, "CPU at rest, %", "of a core, by all that runs for the task"},
	{pluginCPU, "plugin's CPU meanwhile, %", "of a core, by the driver's plugin"},
	{rate, "requests per second", "wrk, one thread, 8 connections"},
	{p50, "latency p50, ms", "the same"},
	{p99, "latency p99, ms", "the same"},
}

// sample is what one round of a contender measured.
type sample struct {
	Contender string                  `json:"contender"`
	Values    map[metric]float64      `json:"values"`
	Memory    []harness.ProcessMemory `json:"memory"` // by process, the guest's RAM apart
}

func newSample(name string) *sample { return &sample{Contender: name, Values: map[metric]float64{}} }

func (s *sample) addMemory(all []harness.ProcessMemory) {
	s.Values[memory] = float64(harness.MemoryOf(all)) / 1024
	s.Memory = splitGuests(all)
}

// median is the middle of what a contender's rounds measured; false: nothing.
func (r *report) median(contender string, m metric) (float64, bool) {
	var all []float64
	for _, s := range r.Samples {
		if v, ok := s.Values[m]; ok && s.Contender == contender {
			all = append(all, v)
		}
	}
	return middle(all)
}

func middle(all []float64) (float64, bool) {
	if len(all) == 0 {
		return 0, false
	}
	slices.Sort(all)
	n := len(all)
	return (all[(n-1)/2] + all[n/2]) / 2, true
}

// spread is the least and the most that a contender's rounds measured.
func (r *report) spread(contender string, m metric) (least, most float64) {
	first := true
	for _, s := range r.Samples {
		v, ok := s.Values[m]
		if !ok || s.Contender != contender {
			continue
		}
		if first {
			least, most, first = v, v, false
		}
		least, most = min(least, v), max(most, v)
	}
	return least, most
}

// memoryByRole is a contender's memory by the role of its processes, MiB, the
// median of its rounds, the largest first.
func (r *report) memoryByRole(contender string) []roleMemory {
	rounds := map[string][]float64{}
	for _, s := range r.Samples {
		if s.Contender != contender {
			continue
		}
		sums := map[string]float64{}
		for _, p := range s.Memory {
			sums[p.Role] += float64(p.KiB) / 1024
		}
		for role, sum := range sums {
			rounds[role] = append(rounds[role], sum)
		}
	}
	var all []roleMemory
	for role, sums := range rounds {
		mib, _ := middle(sums)
		all = append(all, roleMemory{role, mib})
	}
	slices.SortFunc(all, func(a, b roleMemory) int { return compare(b.MiB, a.MiB) })
	return all
}

type roleMemory struct {
	Role string
	MiB  float64
}

func compare(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
