// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package classifier_test

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier/jobfile"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden renders every job of testdata/jobs and compares job and report
// with the files beside them; `go test -update` writes these after a look.
func TestGolden(t *testing.T) {
	jobs, err := filepath.Glob("testdata/jobs/*")
	must.NoError(t, err)
	must.Greater(t, 5, len(jobs))
	for _, path := range jobs {
		t.Run(filepath.Base(path), func(t *testing.T) {
			src, err := os.ReadFile(path)
			must.NoError(t, err)
			r := classify(t, src, path)

			report, err := json.MarshalIndent(r.Report, "", "  ")
			must.NoError(t, err)
			golden(t, path, ".rendered", r.File.Source)
			golden(t, path, ".report", append(report, '\n'))

			again := classify(t, r.File.Source, path)
			must.Eq(t, string(r.File.Source), string(again.File.Source), must.Sprint("a second run changes something"))
			must.False(t, again.Report.Changed)

			same := classify(t, src, path)
			must.Eq(t, r.Report, same.Report)
			must.Eq(t, string(r.File.Source), string(same.File.Source))
		})
	}
}

func classify(t *testing.T, src []byte, path string) *classifier.Result {
	t.Helper()
	f, err := jobfile.Parse(src, jobfile.Options{Path: path})
	must.NoError(t, err)
	r, err := classifier.Classify(context.Background(), f, classifier.Options{})
	must.NoError(t, err)
	return r
}

func golden(t *testing.T, job, kind string, got []byte) {
	t.Helper()
	path := strings.Replace(job, "jobs", "golden", 1) + kind
	if *update {
		must.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must.NoError(t, os.WriteFile(path, got, 0o644))
		return
	}
	want, err := os.ReadFile(path)
	must.NoError(t, err)
	must.Eq(t, string(want), string(got))
}
