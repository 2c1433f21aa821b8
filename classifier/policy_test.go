// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package classifier_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier"
)

// TestWrongPolicy: a wrong policy is refused with line and column.
func TestWrongPolicy(t *testing.T) {
	good := string(classifier.DefaultPolicy)
	tests := []struct{ name, from, to, want string }{
		{"syntax", "thresholds {", "thresholds [", "p.hcl:"},
		{"missing block", "complexity {", "# complexity {\nmemory {", "p.hcl:"},
		{"unknown key", "evidence = 25", "evidence = 25\n  evidense = 1", `"evidense"`},
		{"not a number", "low    = 10", "low    = \"x\"", "p.hcl:"},
		{"borders crossed", "unikernel = 40", "unikernel = 70", "not below container = 60"},
		{"out of range", "high   = 90", "high   = 190", "high = 190 is not between 0 and 100"},
		{"words that do not rise", "medium = 50", "medium = 5", "do not rise"},
		{"negative weight", "workload   = 40", "workload   = -1", "workload = -1 is negative"},
		{"unknown scale", `scale "cpu"`, `scale "cpus"`, "did you mean cpu?"},
		{"points fall", "[500, 30]", "[500, 1]", "must not fall"},
		{"figures fall", "[500, 30]", "[50, 30]", "must rise"},
		{"half a point", "[500, 30]", "[500]", "not a pair"},
		{"workload twice", `workload "web"`, `workload "proxy"`, "given twice"},
		{"name with a slash", `name = "default"`, `name = "a/b"`, "give one word"},
		{"catalog without image", "# catalog", "catalog \"a\" {\n unikernel = \"\"\n}\n# catalog", "unikernel of catalog"},
		{"catalog guest", "# catalog", "catalog \"a\" {\n unikernel = \"u\"\n guest = \"osv\"\n}\n# catalog", `guest "osv" will not do`},
		{"override of nothing", "# override {", "override {\n}\n# override {", "names a namespace"},
		{"unknown signal", "stop_signal = 3", "stop_signals = 3", `there is no signal "stop_signals" (did you mean stop_signal?)`},
		{"half a weight", "stop_signal = 3", "stop_signal = 3.5", "p.hcl:"},
		{"no figure", "stop_signal = 3", "stop_signal = \"much\"", "number is required"},
		{"a weight without scale", "scale \"layers\" {\n  points = [[5, 10], [30, 60]]\n}", "", `layers has a weight, but the block scale "layers" is missing`},
		{"a weight without scores", "scores \"type\" {\n  system   = 70\n  sysbatch = 60\n}", "", `type has a weight, but the block scores "type" is missing`},
		{"a weight without score", "shell           = 55", "", `shell has a weight, but shell in the block scores "found" is missing`},
		{"unknown scores", `scores "type"`, `scores "types"`, `there are no scores "types" (did you mean type?)`},
		{"scores twice", `scores "type"`, "scores \"network\" {\n}\nscores \"type\"", "given twice"},
		{"unknown finding", "privileged      = 100", "priviledged     = 100", `no signal "priviledged" is found or not (did you mean privileged?)`},
		{"score out of range", "jvm     = 90", "jvm     = 900", "jvm = 900 is not between 0 and 100"},
		{"an override that crosses the borders", "# override {", "override {\n namespace = \"a\"\n thresholds {\n unikernel = 80\n }\n}\n# override {", "not below container = 60"},
		{"an override of no signal", "# override {", "override {\n namespace = \"a\"\n weights {\n memmory = 1\n }\n}\n# override {", "did you mean memory?"},
		{"negative floor", "jit_floor = 256", "jit_floor = -1", "jit_floor is negative"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			must.StrContains(t, good, tc.from)
			_, err := classifier.ParsePolicy([]byte(strings.Replace(good, tc.from, tc.to, 1)), "p.hcl")
			must.ErrorContains(t, err, tc.want)
			must.RegexMatch(t, regexpPosition, err.Error())
		})
	}
}

// TestComplaints: all that is wrong is told at once.
func TestComplaints(t *testing.T) {
	src := strings.NewReplacer("jvm     = 90", "jvm     = 900", "count        = 5", "counts       = 5").Replace(string(classifier.DefaultPolicy))
	_, err := classifier.ParsePolicy([]byte(src), "p.hcl")
	must.ErrorContains(t, err, "jvm = 900")
	must.ErrorContains(t, err, `no signal "counts"`)
	must.Eq(t, 2, len(strings.Split(err.Error(), "\n")))
}

// TestOverride: an override changes what it names, for the jobs that it names;
// later ones count more.
func TestOverride(t *testing.T) {
	p, err := classifier.ParsePolicy([]byte(string(classifier.DefaultPolicy)+`
override {
  namespace = "default"
  weights {
    memory = 1
  }
}
override {
  node_pool = "edge"
  thresholds {
    container = 50
  }
}
override {
  namespace = "prod"
  node_pool = "edge"
  thresholds {
    unikernel = 10
  }
  weights {
    memory = 2
    cpu    = 0
  }
}`), "p.hcl")
	must.NoError(t, err)
	base := classifier.Default()
	for _, tc := range []struct {
		namespace, pool      string
		unikernel, container int
		memory, cpu          int
	}{
		{"", "", 40, 60, 1, 15},
		{"default", "default", 40, 60, 1, 15},
		{"prod", "", 40, 60, 20, 15},
		{"", "edge", 40, 50, 1, 15},
		{"prod", "edge", 10, 50, 2, 0},
	} {
		got := p.For(tc.namespace, tc.pool)
		must.Eq(t, classifier.Thresholds{Unikernel: tc.unikernel, Container: tc.container, Evidence: base.Thresholds.Evidence}, *got.Thresholds)
		must.Eq(t, tc.memory, got.Weights.Values["memory"])
		must.Eq(t, tc.cpu, got.Weights.Values["cpu"])
		must.Eq(t, base.Weights.Values["complexity"], got.Weights.Values["complexity"])
		must.Eq(t, p.ID(), got.ID())
	}
	must.Eq(t, 20, p.Weights.Values["memory"])
}

var regexpPosition = regexp.MustCompile(`^p\.hcl:\d+,\d+`)
