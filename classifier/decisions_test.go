// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package classifier_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier"
)

// wellKnown is one case of the evaluation: an image as its publisher makes it,
// in a job as people write it, and what a careful engineer would choose.
type wellKnown struct {
	Image     string   `json:"image"`
	Hints     []string `json:"hints,omitempty"` // key=value
	CPU       int      `json:"cpu"`
	Memory    int      `json:"memory"`
	Count     int      `json:"count,omitempty"`
	Extra     string   `json:"extra,omitempty"` // HCL in the task
	Runtime   string   `json:"runtime"`
	SizeMiB   float64  `json:"size_mib"`
	Libraries []string `json:"libraries,omitempty"`
	Forks     []string `json:"forks,omitempty"`
	Processes []string `json:"processes,omitempty"`
	Engineer  string   `json:"engineer"`
	Because   string   `json:"because"`
	Differs   string   `json:"differs,omitempty"` // why the tool chooses otherwise
}

// facts answers for the images of the evaluation: they are written down, so
// that it runs without a registry.
type facts map[string]wellKnown

func (f facts) Container(_ context.Context, ref string) (*classifier.ContainerImage, error) {
	w := f[ref]
	return &classifier.ContainerImage{
		Ref: ref, SizeMiB: w.SizeMiB, Runtime: w.Runtime, Libraries: w.Libraries, Forks: w.Forks, Processes: w.Processes,
	}, nil
}

func (facts) Unikernel(context.Context, string) (*classifier.UnikernelImage, error) { return nil, nil }

func (w wellKnown) job() string {
	meta := "hybrid_unikernel_image = \"local/unikernel\"\n"
	for _, h := range w.Hints {
		k, v, _ := strings.Cut(h, "=")
		meta += fmt.Sprintf("%s = %q\n", k, v)
	}
	return fmt.Sprintf("job \"j\" {\n group \"g\" {\n count = %d\n task \"t\" {\n driver = \"docker\"\n config {\n image = %q\n }\n meta {\n%s }\n"+
		"resources {\n cpu = %d\n memory = %d\n }\n%s\n}\n}\n}\n", max(w.Count, 1), w.Image, meta, w.CPU, w.Memory, w.Extra)
}

const decisionsDoc = "../docs/decisions.md"

// TestDecisions compares the tool's choices with an engineer's and keeps
// docs/decisions.md in step with both. A new difference has to be explained.
func TestDecisions(t *testing.T) {
	raw, err := os.ReadFile("testdata/decisions.json")
	must.NoError(t, err)
	var cases []wellKnown
	must.NoError(t, json.Unmarshal(raw, &cases))
	must.GreaterEq(t, 30, len(cases))

	known := facts{}
	for _, w := range cases {
		known[w.Image] = w
	}
	must.MapLen(t, len(cases), known)

	var table strings.Builder
	table.WriteString("| image | job | engineer | tool | by | score | why the engineer |\n|---|---|---|---|---|---|---|\n")
	agree := 0
	var differences strings.Builder
	for _, w := range cases {
		r, err := classifier.Classify(context.Background(), parse(t, w.job()), classifier.Options{Images: known})
		must.NoError(t, err)
		got := r.Report.Tasks[0]
		score := "-"
		if got.Score != nil {
			score = fmt.Sprint(*got.Score)
		}
		job := fmt.Sprintf("%d MHz, %d MiB", w.CPU, w.Memory)
		if len(w.Hints) > 0 {
			job += ", " + strings.Join(w.Hints, ", ")
		}
		tool := string(got.Decision)
		if tool == w.Engineer {
			agree++
			must.Eq(t, "", w.Differs, must.Sprintf("%s: nothing to explain", w.Image))
		} else {
			tool = "**" + tool + "**"
			must.NotEq(t, "", w.Differs, must.Sprintf("%s: the tool chooses %s (%s, score %s); say in testdata/decisions.json why", w.Image, got.Decision, got.Rule, score))
			fmt.Fprintf(&differences, "- `%s`: %s\n", w.Image, w.Differs)
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s | %s | %s | %s |\n", w.Image, job, w.Engineer, tool, got.Rule, score, w.Because)
	}
	text := fmt.Sprintf("%s\n%d of %d agree. Where they differ, and why:\n\n%s", table.String(), agree, len(cases), differences.String())
	between(t, decisionsDoc, "evaluation", text)
}

// between compares the part of a document between two markers with what it
// should be, or writes it with -update.
func between(t *testing.T, path, name, text string) {
	t.Helper()
	doc, err := os.ReadFile(path)
	must.NoError(t, err)
	begin, end := "<!-- "+name+": made by go test -update -->\n", "<!-- end of "+name+" -->"
	head, rest, ok := strings.Cut(string(doc), begin)
	must.True(t, ok, must.Sprintf("%s lacks %s", path, begin))
	old, tail, ok := strings.Cut(rest, end)
	must.True(t, ok, must.Sprintf("%s lacks %s", path, end))
	if *update {
		must.NoError(t, os.WriteFile(path, []byte(head+begin+text+end+tail), 0o644))
		return
	}
	must.Eq(t, text, old, must.Sprintf("%s is out of step: go test -update", path))
}
