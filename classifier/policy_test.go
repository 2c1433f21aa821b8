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

var regexpPosition = regexp.MustCompile(`^p\.hcl:\d+,\d+`)
