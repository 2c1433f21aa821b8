// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package classifier_test

import (
	"context"
	"errors"
	"flag"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier/jobfile"
)

var corpus = flag.String("corpus", "testdata/jobs", "a folder of job files to run over, of any origin")

// eagerPolicy makes every docker task a unikernel that can be one: it puts the
// rewriter to work on jobs that know nothing of it.
func eagerPolicy(t testing.TB) *classifier.Policy {
	t.Helper()
	src := strings.NewReplacer("unikernel = 40", "unikernel = 99", "container = 60", "container = 100", "evidence = 25", "evidence = 0",
		`name = "default"`, `name = "eager"`).Replace(string(classifier.DefaultPolicy)) +
		"\nscale \"cpu\" {\n points = [[1, 1]]\n}\ncatalog \"*\" {\n unikernel = \"local/$${attr.cpu.arch}/uk\"\n memory = 64\n}\n"
	src = regexp.MustCompile(`(?s)scale "cpu" \{\n  points.*?\}\n`).ReplaceAllString(src, "")
	p, err := classifier.ParsePolicy([]byte(src), "eager.hcl")
	must.NoError(t, err)
	return p
}

var looksLikeJob = regexp.MustCompile(`(?m)^\s*job\s+"|"TaskGroups"|^\s*"job"`)

// TestCorpus runs over a folder of jobs. A job without hints must come out as
// it went in; under a policy that rewrites all it can, what comes out must
// still mean the same but for the decided tasks, which Rewrite checks.
func TestCorpus(t *testing.T) {
	count := map[string]int{}
	eager := eagerPolicy(t)
	root, err := filepath.Abs(*corpus)
	must.NoError(t, err)
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		src, err := os.ReadFile(path)
		if err != nil || !looksLikeJob.Match(src) {
			return err
		}
		count["files"]++
		t.Chdir(filepath.Dir(path)) // where a job's author calls file()
		f, err := parseWithVariables(t, src, path)
		if err != nil {
			count["not parsed by Nomad's own parser"]++
			t.Logf("not parsed: %s", firstLine(err))
			return nil
		}
		count["parsed "+string(f.Format)]++
		runOne(t, count, path, f, nil)
		runOne(t, count, path, f, eager)
		return nil
	})
	must.NoError(t, err)
	must.Positive(t, count["files"])
	for _, k := range sortedKeys(count) {
		t.Logf("%6d %s", count[k], k)
	}
}

// small says of every image that it is a small static program.
type small struct{}

func (small) Container(_ context.Context, ref string) (*classifier.ContainerImage, error) {
	return &classifier.ContainerImage{Ref: ref, SizeMiB: 1, Runtime: "static"}, nil
}

func (small) Unikernel(context.Context, string) (*classifier.UnikernelImage, error) { return nil, nil }

func runOne(t *testing.T, count map[string]int, path string, f *jobfile.File, p *classifier.Policy) {
	t.Helper()
	label := "default: "
	if p != nil {
		label = "eager: "
	}
	o := classifier.Options{Policy: p}
	if p != nil {
		o.Images = small{} // else there would be too little to decide by
	}
	r, err := classifier.Classify(context.Background(), f, o)
	if errors.Is(err, jobfile.ErrVerify) || (err != nil && !errors.Is(err, classifier.ErrRefused) && !errors.Is(err, jobfile.ErrNotEditable)) {
		t.Errorf("%s%s: %v", label, path, err)
		return
	}
	if err != nil {
		count[label+"refused"]++
		t.Logf("%srefused: %s: %v", label, path, err)
		return
	}
	for _, task := range r.Report.Tasks {
		count[label+"tasks "+string(task.Decision)+" by "+string(task.Rule)]++
		if p != nil && task.Rule == classifier.RuleUndecided {
			t.Logf("%sundecided: %s: %s", label, path, strings.Join(task.Reasons, "; "))
		}
	}
	if !r.Report.Changed {
		count[label+"jobs unchanged"]++
		must.Eq(t, string(f.Source), string(r.File.Source), must.Sprint(path))
		return
	}
	count[label+"jobs rewritten"]++
	again, err := classifier.Classify(context.Background(), r.File, o)
	must.NoError(t, err, must.Sprint(path))
	must.Eq(t, string(r.File.Source), string(again.File.Source), must.Sprint(path))
}

// parseWithVariables gives variables without a default some value, of
// whatever type the job takes. Files that it reads are looked for beside it.
func parseWithVariables(t *testing.T, src []byte, path string) (*jobfile.File, error) {
	t.Helper()
	f, err := parseWithValues(src, path, "1")
	if err != nil { // a variable may name a file: there is one of this name
		if f, again := parseWithValues(src, path, filepath.Base(path)); again == nil {
			return f, nil
		}
	}
	return f, err
}

func parseWithValues(src []byte, path, first string) (*jobfile.File, error) {
	values := []string{first, `["a"]`, "true", "{}", `[]`}
	tried := map[string]int{}
	for {
		opts := jobfile.Options{Path: filepath.Base(path), Lax: true, AllowFS: true}
		for name, n := range tried {
			opts.Vars = append(opts.Vars, name+"="+values[n])
		}
		f, err := jobfile.Parse(src, opts)
		if err == nil {
			return f, nil
		}
		m := wantsVariable.FindStringSubmatch(err.Error())
		if m == nil {
			return nil, err
		}
		name := m[1] + m[2]
		n, known := tried[name]
		if known {
			n++
		}
		if n >= len(values) {
			return nil, err
		}
		tried[name] = n
	}
}

var wantsVariable = regexp.MustCompile(`Unset variable "([^"]+)"|value for var\.(\S+) from arguments`)

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

func sortedKeys(m map[string]int) []string {
	return slices.Sorted(maps.Keys(m))
}
