// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"testing"

	"github.com/shoenig/test/must"
)

func TestRightAnswer(t *testing.T) {
	answer, err := rightAnswer("../../examples/steps/data/steps.csv")
	must.NoError(t, err)
	must.Eq(t, `{"id":"8877689391","days":1,"average":29326.00}`, answer)
}

func TestReadWrk(t *testing.T) {
	s := newSample(bare)
	must.NoError(t, readWrk([]byte(`Running 2s test @ http://127.0.0.1:8080/top
  Latency Distribution
     50%  310.00us
     75%  420.00us
     90%    1.20ms
     99%   41.36ms
  17411 requests in 2.01s, 2.51MB read
Requests/sec:   8662.19
`), s))
	must.Eq(t, map[metric]float64{rate: 8662.19, p50: 0.31, p99: 41.36}, s.Values)
	must.Error(t, readWrk([]byte("unable to connect"), s))
}

func TestGoals(t *testing.T) {
	r := &report{Density: []crowd{{Contender: lean, Instances: 200, PluginMiB: 61, PluginCPU: 2}}}
	for contender, ms := range map[string]float64{lean: 34, container: 100} {
		s := newSample(contender)
		s.Values[direct] = ms
		r.Samples = append(r.Samples, s)
	}
	r.judge()
	met := map[float64]bool{}
	for _, g := range r.Goals {
		met[g.Value] = g.Met
	}
	must.Eq(t, map[float64]bool{0.34: true, 0: true, 61: false, 2: true}, met)
}

func TestMiddle(t *testing.T) {
	for want, all := range map[float64][]float64{1: {1}, 2: {3, 1, 2}, 2.5: {4, 1, 3, 2}} {
		got, ok := middle(all)
		must.True(t, ok)
		must.Eq(t, want, got)
	}
	_, ok := middle(nil)
	must.False(t, ok)
}
