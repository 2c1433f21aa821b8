// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package jobfile

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shoenig/test/must"
)

// TestPieces: a job parsed in pieces is the job parsed whole, or is left to be
// parsed whole.
func TestPieces(t *testing.T) {
	tests := []struct {
		name, src string
		pieces    bool
	}{
		{"locals, variables and what the job gives its tasks", `variable "n" { default = 2 }
locals { image = "a:${var.n}" }
job "j" {
  vault { role = "r" }
  # first
  group "a" {
    count = var.n
    task "t" {
      driver = "docker"
      config { image = local.image }
      env { NODE = "${attr.unique.hostname}" }
    }
  }
  meta { between = "groups" }
  group "b" { # second
    task "t" { driver = "docker" }
    task "u" { driver = "docker" }
  } # its end
  group "c" {
    network {
      port "http" { to = 80 }
      port "fixed" { static = 8080 }
    }
  }
  type = "batch"
}
`, true},
		{"groups of one name", "job \"j\" {\n  group \"a\" {}\n  group \"a\" {}\n}\n", true},
		{"one group", "job \"j\" {\n  group \"a\" {}\n}\n", false},
		{"tasks below the job come first", "job \"j\" {\n  group \"a\" {}\n  group \"b\" {}\n  task \"t\" { driver = \"docker\" }\n}\n", false},
		{"dynamic groups", "job \"j\" {\n  group \"a\" {}\n  dynamic \"group\" {\n    for_each = [1]\n    labels = [\"d\"]\n    content {}\n  }\n  group \"b\" {}\n}\n", false},
		{"one value for all groups", "locals { id = uuidv4() }\njob \"j\" {\n  group \"a\" {\n    meta { id = local.id }\n  }\n  group \"b\" {\n    meta { id = local.id }\n  }\n}\n", false},
		{"an error in one group", "job \"j\" {\n  group \"a\" {}\n  group \"b\" { nonsense = 1 }\n}\n", false},
		{"an error beside the groups", "job \"j\" {\n  group \"a\" {}\n  nonsense = 1\n  group \"b\" {}\n}\n", false},
		{"two jobs", "job \"j\" {\n  group \"a\" {}\n}\njob \"k\" {\n  group \"b\" {}\n}\n", false},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			must.Eq(t, tc.pieces, samePieces(t, []byte(tc.src)))
		})
	}
}

// samePieces parses a source in pieces and whole, compares, and tells whether
// it could be parsed in pieces.
func samePieces(t *testing.T, src []byte) bool {
	f := &File{Format: HCL, Source: src, opts: Options{Path: "job", Lax: true}}
	if f.parseTree() != nil {
		return false
	}
	groups, done := groupSpans(f.tree), false
	for n := 2; n <= min(len(groups), 5); n++ {
		job := parsePieces(src, groups, n, f.opts)
		if job == nil {
			continue
		}
		whole, err := parseWhole(src, f.opts)
		must.NoError(t, err)
		must.Eq(t, "", difference(whole, job, nil))
		done = true
	}
	return done
}

// FuzzPieces looks for jobs that mean something else in pieces.
func FuzzPieces(f *testing.F) {
	paths, err := filepath.Glob("../testdata/jobs/*")
	must.NoError(f, err)
	for _, path := range paths {
		src, err := os.ReadFile(path)
		must.NoError(f, err)
		f.Add(src)
	}
	f.Add([]byte("job \"j\" {\n  meta { a = \"${b}\" }\n  group \"a\" {}\n  group \"b\" {}\n}\n"))
	f.Add([]byte("locals { a = 1 }\njob \"j\" {\n  group \"a\" { count = local.a }\n  group \"b\" { meta = { x = \"${y } }\" } }\n}\n"))
	f.Fuzz(func(t *testing.T, src []byte) { samePieces(t, src) })
}

// TestManyGroups rewrites a job that is parsed in pieces where there is more
// than one processor: the groups are found again in what was rewritten.
func TestManyGroups(t *testing.T) {
	const n = 4 * leastPiece
	var src strings.Builder
	src.WriteString("job \"j\" {\n")
	for i := range n {
		fmt.Fprintf(&src, "  group \"g%d\" {\n    task \"t\" {\n      driver = \"docker\"\n      config {}\n    }\n  }\n", i)
	}
	src.WriteString("}\n")
	f, err := Parse([]byte(src.String()), Options{Path: "job"})
	must.NoError(t, err)
	must.Len(t, n, f.Job.TaskGroups)

	var edits []Edit
	for i := 0; i < n; i += 3 {
		edits = append(edits, Edit{
			Ref: Ref{Group: i}, Driver: strings.Repeat("d", i),
			Config: []ConfigChange{{Key: "image", Value: "u"}},
			Meta:   []Pair{{Key: "k", Value: "v"}},
		})
	}
	must.NoError(t, f.open())
	out, err := f.editor.rewrite(edits)
	must.NoError(t, err)
	made := &File{Format: HCL, Source: out.src, opts: f.opts}
	must.NoError(t, made.parseTree())
	must.True(t, slices.Equal(groupSpans(made.tree), out.groups))

	made, err = f.Rewrite(edits)
	must.NoError(t, err)
	must.Eq(t, strings.Repeat("d", 3), made.Job.TaskGroups[3].Tasks[0].Driver)
	must.Eq(t, "docker", f.Job.TaskGroups[3].Tasks[0].Driver)
}
