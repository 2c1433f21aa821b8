// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package classifier_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier/jobfile"
)

// job writes a job of one task.
func job(driver, task string) string {
	return fmt.Sprintf("job \"j\" {\n  group \"g\" {\n    task \"t\" {\n      driver = %q\n%s\n    }\n  }\n}\n", driver, task)
}

func parse(t *testing.T, src string) *jobfile.File {
	t.Helper()
	f, err := jobfile.Parse([]byte(src), jobfile.Options{Path: "job.hcl"})
	must.NoError(t, err)
	return f
}

// meta writes a docker task's config and meta.
func meta(pairs ...string) string {
	var b strings.Builder
	b.WriteString("config { image = \"a:1\" }\nmeta {\n")
	for i := 0; i < len(pairs); i += 2 {
		fmt.Fprintf(&b, "%s = %q\n", pairs[i], pairs[i+1])
	}
	return b.String() + "}\n"
}

const image = "hybrid_unikernel_image"

// TestDecide shows the order of a decision: fixed, impossible, score, record.
func TestDecide(t *testing.T) {
	tests := []struct {
		name, driver, task string
		decision           classifier.Decision
		rule               classifier.Rule
		reason             string
	}{
		{"no hint", "docker", `config { image = "a" }`, "container", "untouched", "no hint"},
		{"another driver", "exec", meta("hybrid_complexity", "low"), "as written", "untouched", `driver "exec"`},
		{"low", "docker", meta("hybrid_complexity", "low", image, "u"), "unikernel", "application", "light; the policy makes 40 and below"},
		{"high", "docker", meta("hybrid_complexity", "high", image, "u"), "container", "application", "heavy; the policy makes 60 and above"},
		{"medium", "docker", meta("hybrid_complexity", "medium", image, "u"), "container", "undecided", "neither light"},
		{"little known", "docker", meta(image, "u"), "container", "undecided", "too little is known"},
		{"no unikernel", "docker", meta("hybrid_complexity", "low"), "container", "impossible", "no unikernel image"},
		{"fixed container", "docker", meta("hybrid_complexity", "low", image, "u", "hybrid_runtime", "container"), "container", "fixed", "hybrid_runtime"},
		{"fixed unikernel", "docker", meta("hybrid_complexity", "high", image, "u", "hybrid_runtime", "unikernel"), "unikernel", "fixed", "hybrid_runtime"},
		{"auto says nothing", "docker", meta("hybrid_complexity", "low", image, "u", "hybrid_runtime", "auto"), "unikernel", "application", "light; the policy makes 40 and below"},
		{"was container, now between", "docker", meta("hybrid_complexity", "medium", image, "u", "hybrid_decision", "container"), "container", "kept", "before"},
		{"was unikernel, now between", "docker", meta("hybrid_complexity", "medium", image, "u", "hybrid_decision", "unikernel"), "unikernel", "kept", "before"},
		{"rewritten before", "unikernel", meta("hybrid_complexity", "high", "hybrid_decision", "unikernel"), "unikernel", "kept", "render the original"},
		{"a unikernel of the author's", "unikernel", `config { image = "u" }`, "unikernel", "untouched", "named the driver"},
		{"back to a container", "unikernel", meta("hybrid_complexity", "high", "hybrid_container_image", "c"), "container", "application", "heavy; the policy makes 60 and above"},
		{"no way back", "unikernel", meta("hybrid_complexity", "high"), "unikernel", "impossible", "no container image"},
		{"a script check", "docker", meta("hybrid_complexity", "low", image, "u") +
			"service {\n check {\n type = \"script\"\n name = \"c\"\n command = \"x\"\n interval = \"1s\"\n timeout = \"1s\"\n }\n}", "container", "impossible", "script check"},
		{"a user", "docker", meta("hybrid_complexity", "low", image, "u") + "user = \"app\"\n", "container", "impossible", "no users"},
		{"a hook", "docker", meta("hybrid_complexity", "low", image, "u") + "lifecycle {\n hook = \"prestart\"\n}", "container", "impossible", "lifecycle"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			r, err := classifier.Classify(context.Background(), parse(t, job(tc.driver, tc.task)), classifier.Options{})
			must.NoError(t, err)
			got := r.Report.Tasks[0]
			must.Eq(t, tc.decision, got.Decision)
			must.Eq(t, tc.rule, got.Rule)
			must.StrContains(t, strings.Join(got.Reasons, "\n"), tc.reason)
		})
	}
}

// TestRefused: what cannot be is told with its place, its value and what would do.
func TestRefused(t *testing.T) {
	tests := []struct {
		name, src string
		want      []string
	}{
		{"unknown runtime", job("docker", meta("hybrid_runtime", "vm")),
			[]string{`job "j", group "g", task "t": meta hybrid_runtime: "vm" will not do; give auto, container or unikernel`}},
		{"complexity out of range", job("docker", meta("hybrid_complexity", "101")), []string{`"101"`, "0 to 100"}},
		{"misspelt workload", job("docker", meta("hybrid_workload", "computer-visoin")), []string{"did you mean computer-vision?", "data-science"}},
		{"misspelt hint", job("docker", meta("hybrid_complexty", "low")), []string{"no such hint", "did you mean hybrid_complexity?"}},
		{"memory", job("docker", meta("hybrid_unikernel_memory", "1GB")), []string{`"1GB"`, "MiB, such as 32"}},
		{"guest", job("docker", meta("hybrid_unikernel_guest", "osv")), []string{`"osv"`, "unikraft, mirage, solo5 or linux"}},
		{"unbalanced quote", job("docker", meta("hybrid_unikernel_args", "a 'b")), []string{`"a 'b"`, "JSON list"}},
		{"two wrong hints at once", job("docker", meta("hybrid_runtime", "vm", "hybrid_complexity", "x")), []string{"hybrid_runtime", "hybrid_complexity"}},
		{"fixed and impossible", job("docker", "config {\n image = \"a\"\n privileged = true\n}\nuser = \"root\"\nmeta {\n hybrid_runtime = \"unikernel\"\n}"),
			[]string{"a unikernel cannot run it", "config.privileged", `user = "root"`, "no unikernel image is known"}},
		{"fixed for another driver", job("exec", "config {}\n"+meta("hybrid_runtime", "unikernel")[len("config { image = \"a:1\" }\n"):]), []string{`driver "exec" cannot be translated`}},
		{"one side only", job("hybrid", "config {\n container {\n image = \"a\"\n }\n}"), []string{"config.unikernel", "both sides"}},
		{"a key beside the sides", job("hybrid", "config {\n image = \"a\"\n container {\n image = \"a\"\n }\n unikernel {\n image = \"b\"\n }\n}"), []string{"config.image", "container block and a unikernel block only"}},
		{"a side without image", job("hybrid", "config {\n container {}\n unikernel {\n image = \"b\"\n }\n}"), []string{"config.container.image is missing"}},
		{"a record that is none of ours", job("docker", meta("hybrid_decision", "maybe")), []string{`hybrid_decision: "maybe" will not do`}},
		{"memory_max too small", job("docker", meta("hybrid_runtime", "unikernel", image, "u", "hybrid_unikernel_memory", "64")+
			"resources {\n memory = 16\n memory_max = 32\n}"), []string{"memory_max = 32", "64 MiB"}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			f, err := jobfile.Parse([]byte(tc.src), jobfile.Options{Path: "job.hcl"})
			must.NoError(t, err)
			_, err = classifier.Classify(context.Background(), f, classifier.Options{})
			must.ErrorIs(t, err, classifier.ErrRefused)
			for _, want := range tc.want {
				must.StrContains(t, err.Error(), want)
			}
		})
	}
}

// TestHintOnce: a wrong hint of the job is told once, not for every task.
func TestHintOnce(t *testing.T) {
	f := parse(t, `job "j" {
  meta { hybrid_runtime = "vm" }
  group "g" {
    task "a" { driver = "docker" }
    task "b" { driver = "docker" }
  }
}`)
	_, err := classifier.Classify(context.Background(), f, classifier.Options{})
	must.ErrorContains(t, err, `job "j": meta hybrid_runtime`)
	must.Eq(t, 1, strings.Count(err.Error(), "hybrid_runtime"))
}

// TestMonotone: more complexity, memory or CPU never moves a task toward the
// unikernel.
func TestMonotone(t *testing.T) {
	for _, what := range []string{"complexity", "memory", "cpu", "cores"} {
		last := -1
		for n := 1; n <= 100; n++ {
			complexity, cpu, memory, cores := 30, 300, 200, ""
			switch what {
			case "complexity":
				complexity = n
			case "memory":
				memory = n * 50
			case "cpu":
				cpu = n * 50
			case "cores":
				cores = fmt.Sprintf("cores = %d\n", n)
			}
			if cores == "" {
				cores = fmt.Sprintf("cpu = %d\n", cpu)
			}
			src := job("docker", meta("hybrid_complexity", strconv.Itoa(complexity), image, "u")+
				fmt.Sprintf("resources {\n%smemory = %d\n}", cores, memory))
			r, err := classifier.Classify(context.Background(), parse(t, src), classifier.Options{})
			must.NoError(t, err)
			score := *r.Report.Tasks[0].Score
			must.GreaterEq(t, last, score, must.Sprintf("%s %d", what, n))
			last = score
		}
	}
}

// TestHysteresis: between the borders, what runs is not flipped.
func TestHysteresis(t *testing.T) {
	p := classifier.Default()
	for n := 0; n <= 100; n++ {
		for _, before := range []string{"container", "unikernel"} {
			src := job("docker", meta("hybrid_complexity", strconv.Itoa(n), image, "u", "hybrid_decision", before))
			r, err := classifier.Classify(context.Background(), parse(t, src), classifier.Options{})
			must.NoError(t, err)
			want := before
			if n <= p.Thresholds.Unikernel {
				want = "unikernel"
			} else if n >= p.Thresholds.Container {
				want = "container"
			}
			must.Eq(t, want, string(r.Report.Tasks[0].Decision), must.Sprintf("complexity %d, before %s", n, before))
		}
	}
}

// TestCatalog: the operator's catalog serves jobs that name no unikernel.
func TestCatalog(t *testing.T) {
	src := string(classifier.DefaultPolicy) + `
catalog "nginx:*" {
  unikernel = "unikraft.org/nginx:1.15"
  guest     = "unikraft"
  arch      = ["x86_64"]
  memory    = 32
}
override {
  namespace = "prod"
  thresholds {
    unikernel = 1
    container = 2
    evidence  = 0
  }
}`
	p, err := classifier.ParsePolicy([]byte(src), "p.hcl")
	must.NoError(t, err)
	must.NotEq(t, classifier.Default().ID(), p.ID())

	light := job("docker", "config { image = \"docker.io/library/nginx:1.27\" }\nresources {\n cpu = 100\n memory = 64\n}")
	r, err := classifier.Classify(context.Background(), parse(t, light), classifier.Options{Policy: p})
	must.NoError(t, err)
	must.Eq(t, classifier.Unikernel, r.Report.Tasks[0].Decision)
	out := string(r.File.Source)
	for _, want := range []string{`image = "unikraft.org/nginx:1.15"`, `guest = "unikraft"`, "memory = 32", "arch.x86_64"} {
		must.StrContains(t, out, want)
	}

	prod := strings.Replace(light, "job \"j\" {", "job \"j\" {\n  namespace = \"prod\"", 1)
	r, err = classifier.Classify(context.Background(), parse(t, prod), classifier.Options{Policy: p})
	must.NoError(t, err)
	must.Eq(t, classifier.Container, r.Report.Tasks[0].Decision)
}

// FuzzRewrite: whatever parses is rewritten without a panic, means the same
// but for the decided tasks (Rewrite checks it), and a second run changes
// nothing.
func FuzzRewrite(f *testing.F) {
	f.Add(job("docker", meta("hybrid_complexity", "low", image, "u")))
	f.Add(job("hybrid", "config {\n container {\n image = \"a\"\n }\n unikernel { image = \"b\" }\n}"))
	f.Add(job("docker", "config {}\nmeta = merge({}, { hybrid_runtime = \"container\" })"))
	f.Add(`{"ID":"a","TaskGroups":[{"Tasks":[{"Driver":"docker","Config":{"image":"a"},"Meta":{"hybrid_complexity":"1","hybrid_unikernel_image":"u"}}]}]}`)
	f.Add("job \"j\" {\n dynamic \"group\" {\n for_each = [1]\n labels = [\"g\"]\n content {\n task \"t\" {\n driver = \"docker\"\n" + meta("hybrid_complexity", "low", image, "u") + "}\n}\n}\n}")
	f.Add(`{"job":{"j":{"meta":{"hybrid_unikernel_image":"u${attr.x}"},"group":{"g":[{"task":{"t":{"driver":"docker","config":{"image":"a"}}}}]}}}}`)
	jobs, err := filepath.Glob("testdata/jobs/*")
	must.NoError(f, err)
	for _, path := range jobs {
		src, err := os.ReadFile(path)
		must.NoError(f, err)
		f.Add(string(src))
	}
	eager := eagerPolicy(f)
	f.Fuzz(func(t *testing.T, src string) {
		file, err := jobfile.Parse([]byte(src), jobfile.Options{Path: "fuzz"})
		if err != nil {
			return
		}
		fuzzOne(t, file, src, classifier.Options{})
		fuzzOne(t, file, src, classifier.Options{Policy: eager, Images: small{}})
	})
}

func fuzzOne(t *testing.T, file *jobfile.File, src string, o classifier.Options) {
	t.Helper()
	r, err := classifier.Classify(context.Background(), file, o)
	if err != nil {
		must.ErrorIs(t, err, classifier.ErrRefused)
		return
	}
	if !r.Report.Changed {
		must.Eq(t, src, string(r.File.Source))
		return
	}
	again, err := classifier.Classify(context.Background(), r.File, o)
	must.NoError(t, err)
	must.Eq(t, string(r.File.Source), string(again.File.Source))
}

// FuzzPolicy: no text makes the reader of policies panic, and what it accepts
// decides.
func FuzzPolicy(f *testing.F) {
	f.Add(string(classifier.DefaultPolicy))
	f.Add("name = \"x\"\nweights {\n cpu = 1e99\n}\nscale \"cpu\" {\n points = [[1]]\n}")
	f.Fuzz(func(t *testing.T, src string) {
		p, err := classifier.ParsePolicy([]byte(src), "p.hcl")
		if err != nil {
			return
		}
		file := parse(t, job("docker", meta("hybrid_complexity", "50", image, "u")+"resources {\n cpu = 100\n memory = 64\n}"))
		_, err = classifier.Classify(context.Background(), file, classifier.Options{Policy: p, Images: small{}})
		must.NoError(t, err)
	})
}

// processorTime is what this process has used: on a machine that does other
// things at the same time it tells more than the time that passed.
func processorTime(b *testing.B) time.Duration {
	var used syscall.Rusage
	must.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// BenchmarkThousandTasks renders a job of 1,000 tasks, in each format.
func BenchmarkThousandTasks(b *testing.B) {
	var hcl, api, hclJSON strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&hcl, "group \"g%d\" {\n  task \"t\" {\n    driver = \"docker\"\n    config {\n      image = \"a:%d\"\n      ports = [\"http\"]\n    }\n"+
			"    meta {\n      hybrid_complexity = \"low\"\n      hybrid_unikernel_image = \"local/u\"\n    }\n    resources {\n      cpu = 100\n      memory = 64\n    }\n  }\n}\n", i, i)
		fmt.Fprintf(&api, `{"Name": "g%d", "Tasks": [{"Name": "t", "Driver": "docker", "Config": {"image": "a:%d", "ports": ["http"]},
			"Meta": {"hybrid_complexity": "low", "hybrid_unikernel_image": "local/u"}, "Resources": {"CPU": 100, "MemoryMB": 64}}]},`, i, i)
		fmt.Fprintf(&hclJSON, `"g%d": {"task": {"t": {"driver": "docker", "config": {"image": "a:%d", "ports": ["http"]},
			"meta": {"hybrid_complexity": "low", "hybrid_unikernel_image": "local/u"}, "resources": {"cpu": 100, "memory": 64}}}},`, i, i)
	}
	for _, job := range []struct{ name, src string }{
		{"hcl", "job \"big\" {\n" + hcl.String() + "}\n"},
		{"json", `{"ID": "big", "TaskGroups": [` + strings.TrimSuffix(api.String(), ",") + "]}"},
		{"hcl-json", `{"job": {"big": {"group": {` + strings.TrimSuffix(hclJSON.String(), ",") + "}}}}"},
	} {
		b.Run(job.name, func(b *testing.B) {
			before := processorTime(b)
			for b.Loop() {
				file, err := jobfile.Parse([]byte(job.src), jobfile.Options{Path: "big"})
				must.NoError(b, err)
				must.Eq(b, job.name, string(file.Format))
				r, err := classifier.Classify(context.Background(), file, classifier.Options{})
				must.NoError(b, err)
				must.True(b, r.Report.Changed)
			}
			b.ReportMetric(float64((processorTime(b)-before).Milliseconds())/float64(b.N), "cpu-ms/op")
		})
	}
}
