// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier"
)

const job = `# kept
job "j" {
  group "g" {
    task "t" {
      driver = "docker"
      config {
        image = "a"
      }
      meta {
        hybrid_complexity      = "COMPLEXITY"
        hybrid_unikernel_image = "local/u"
      }
    }
  }
}
`

func jobFile(t *testing.T, complexity string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "job.hcl")
	must.NoError(t, os.WriteFile(path, []byte(strings.Replace(job, "COMPLEXITY", complexity, 1)), 0o600))
	return path
}

// call runs the tool and returns its status and what it wrote.
func call(t *testing.T, in string, args ...string) (int, string, string) {
	t.Helper()
	var out, errOut bytes.Buffer
	code := run(context.Background(), args, streams{in: strings.NewReader(in), out: &out, err: &errOut})
	return code, out.String(), errOut.String()
}

// TestExit: the statuses that interface.md promises, and messages that say
// what would do.
func TestExit(t *testing.T) {
	low, medium, wrong := jobFile(t, "low"), jobFile(t, "medium"), jobFile(t, "much")
	broken := filepath.Join(t.TempDir(), "broken.hcl")
	must.NoError(t, os.WriteFile(broken, []byte("job \"j\" {\n  group {\n"), 0o600))
	tests := []struct {
		name string
		args []string
		code int
		want string // in standard error
	}{
		{"done", []string{"plan", "-no-images", low}, exitDone, ""},
		{"options behind the job", []string{"plan", low, "-no-images", "-json"}, exitDone, ""},
		{"undecided is done", []string{"plan", "-no-images", medium}, exitDone, ""},
		{"undecided and strict", []string{"plan", "-no-images", "-strict", medium}, exitUndecided, ""},
		{"render strict writes nothing", []string{"render", "-no-images", "-strict", medium}, exitUndecided, "undecided"},
		{"run strict submits nothing", []string{"run", "-no-images", "-strict", medium}, exitUndecided, "Nothing was submitted"},
		{"a wrong hint", []string{"render", "-no-images", wrong}, exitFailed, `"much" will not do; give low, medium, high`},
		{"broken HCL", []string{"plan", broken}, exitFailed, "broken.hcl:2,"},
		{"no such file", []string{"plan", "/nonexistent/job.hcl"}, exitFailed, "no such file"},
		{"no such policy", []string{"plan", "-policy", "/nonexistent", low}, exitFailed, "read the policy"},
		{"a wrong policy", []string{"plan", "-policy", broken, low}, exitFailed, "broken.hcl:2,9"},
		{"an undeclared variable", []string{"plan", "-var", "x=1", low}, exitFailed, `"x"`},
		{"tolerated", []string{"plan", "-no-images", "-hcl2-strict=false", "-var", "x=1", low}, exitDone, ""},
		{"half a variable", []string{"plan", "-var", "x", low}, exitUsage, "give NAME=VALUE"},
		{"no Nomad", []string{"run", "-no-images", "-address", "http://127.0.0.1:1", low}, exitFailed, "Nomad is looked for at http://127.0.0.1:1; -address or NOMAD_ADDR"},
		{"no cluster", []string{"plan", "-cluster", "-no-images", "-address", "http://127.0.0.1:1", low}, exitFailed, "look at the cluster"},
		{"no job", []string{"plan"}, exitUsage, "takes one JOB"},
		{"two jobs", []string{"plan", low, low}, exitUsage, "not 2"},
		{"no such option", []string{"plan", "-nope", low}, exitUsage, "-nope"},
		{"no such command", []string{"decide", low}, exitUsage, `There is no command "decide"`},
		{"no command", nil, exitUsage, "Usage"},
		{"a wrong check-index", []string{"run", "-check-index", "x", low}, exitUsage, "no index"},
		{"-o with run", []string{"run", "-o", "x", low}, exitUsage, "writes no file"},
		{"key without certificate", []string{"serve", "-tls-key", "k"}, exitUsage, "given together"},
		{"help", []string{"render", "-h"}, exitDone, ""},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			code, _, errOut := call(t, "", tc.args...)
			must.Eq(t, tc.code, code, must.Sprint(errOut))
			must.StrContains(t, errOut, tc.want)
		})
	}
}

// TestRender: the job on standard output or in a file, the report aside.
func TestRender(t *testing.T) {
	code, out, report := call(t, strings.Replace(job, "COMPLEXITY", "low", 1), "render", "-no-images", "-")
	must.Eq(t, exitDone, code)
	must.StrHasPrefix(t, "# kept\n", out)
	must.StrContains(t, out, `driver = "unikernel"`)
	must.StrContains(t, report, "docker -> unikernel")

	path := filepath.Join(t.TempDir(), "out.hcl")
	code, stdout, _ := call(t, "", "render", "-no-images", "-o", path, jobFile(t, "low"))
	must.Eq(t, exitDone, code)
	must.Eq(t, "", stdout)
	written, err := os.ReadFile(path)
	must.NoError(t, err)
	must.Eq(t, out, string(written))
	entries, err := os.ReadDir(filepath.Dir(path))
	must.NoError(t, err)
	must.Len(t, 1, entries)
}

// TestPlan shows the diff, in a table or as JSON.
func TestPlan(t *testing.T) {
	code, out, _ := call(t, "", "plan", "-no-images", jobFile(t, "low"))
	must.Eq(t, exitDone, code)
	must.StrContains(t, out, "+      driver = \"unikernel\"")
	must.StrNotContains(t, out, "\x1b[")

	code, out, _ = call(t, "", "plan", "-no-images", "-json", jobFile(t, "low"))
	must.Eq(t, exitDone, code)
	var report classifier.Report
	must.NoError(t, json.Unmarshal([]byte(out), &report))
	must.Eq(t, classifier.ReportVersion, report.Version)
	must.Eq(t, classifier.Unikernel, report.Tasks[0].Decision)
	must.StrContains(t, report.Diff, "+        image = \"local/u\"")
}

// TestWidth: lines fit a narrow terminal, and colour is shown there.
func TestWidth(t *testing.T) {
	var out bytes.Buffer
	p := printer{w: &out, width: 60, color: true}
	p.report(&classifier.Report{Job: "j", Policy: "p", Tasks: []classifier.TaskReport{{
		Group: strings.Repeat("group", 9), Task: strings.Repeat("t", 12), Decision: classifier.Unikernel, Considered: true,
		Reasons: []string{strings.Repeat("because of this ", 20)},
	}}})
	must.StrContains(t, out.String(), "\x1b[32m")
	for line := range strings.Lines(out.String()) {
		line = strings.NewReplacer("\x1b[32m", "", "\x1b[0m", "", "\x1b[1m", "", "\x1b[22m", "", "\n", "").Replace(line)
		must.LessEq(t, 61, utf8.RuneCountInString(line), must.Sprint(line))
	}
}

// TestPolicyCommand prints a policy that is accepted again.
func TestPolicyCommand(t *testing.T) {
	code, out, _ := call(t, "", "policy")
	must.Eq(t, exitDone, code)
	must.Eq(t, string(classifier.DefaultPolicy), out)
	path := filepath.Join(t.TempDir(), "p.hcl")
	must.NoError(t, os.WriteFile(path, []byte(out), 0o600))
	code, id, _ := call(t, "", "policy", "-check", path)
	must.Eq(t, exitDone, code)
	must.Eq(t, classifier.Default().ID()+"\n", id)
}

// TestRemote reads a job from where Nomad would.
func TestRemote(t *testing.T) {
	server := httptest.NewServer(http.FileServer(http.Dir(filepath.Dir(jobFile(t, "low")))))
	defer server.Close()
	code, out, errOut := call(t, "", "plan", "-no-images", server.URL+"/job.hcl")
	must.Eq(t, exitDone, code, must.Sprint(errOut))
	must.StrContains(t, out, "unikernel")
}

// agent is a Nomad agent that fails in chosen ways; the real one is in e2e.
func agent(t *testing.T, answers map[string]string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[r.Method+" "+r.URL.Path]
		if !ok {
			http.Error(w, "no answer for "+r.URL.Path, http.StatusInternalServerError)
			return
		}
		w.Header().Set("X-Nomad-Index", "5")
		if _, err := w.Write([]byte(answer)); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	t.Setenv("NOMAD_ADDR", server.URL)
}

// TestRunFaults: what goes wrong on the way is told, with Nomad's statuses.
func TestRunFaults(t *testing.T) {
	registered := `{"EvalID": "11111111-2222", "Warnings": "watch out"}`
	tests := []struct {
		name    string
		answers map[string]string
		code    int
		out     string
	}{
		{"refused", map[string]string{}, exitFailed, ""},
		{"evaluation out of reach", map[string]string{"PUT /v1/jobs": registered}, exitFailed, "watch out"},
		{"not placed", map[string]string{
			"PUT /v1/jobs": registered,
			"GET /v1/evaluation/11111111-2222": `{"ID": "11111111-2222", "Status": "complete", "BlockedEval": "b",
				"FailedTGAllocs": {"g": {"CoalescedFailures": 1, "NodesEvaluated": 1, "ConstraintFiltered": {"missing drivers": 1}}}}`,
			"GET /v1/evaluation/11111111-2222/allocations": `[]`,
		}, exitUnplaced, `Constraint "missing drivers"`},
		{"deployment failed", map[string]string{
			"PUT /v1/jobs":                                 registered,
			"GET /v1/evaluation/11111111-2222":             `{"ID": "11111111-2222", "Status": "complete", "DeploymentID": "d"}`,
			"GET /v1/evaluation/11111111-2222/allocations": `[{"ID": "a", "TaskGroup": "g", "ClientStatus": "failed"}]`,
			"GET /v1/deployment/d":                         `{"ID": "d", "Status": "failed", "StatusDescription": "Failed due to progress deadline"}`,
		}, exitFailed, "progress deadline"},
		{"placed", map[string]string{
			"PUT /v1/jobs":                                 registered,
			"GET /v1/evaluation/11111111-2222":             `{"ID": "11111111-2222", "Status": "complete", "DeploymentID": "d"}`,
			"GET /v1/evaluation/11111111-2222/allocations": `[{"ID": "a", "TaskGroup": "g", "ClientStatus": "running"}]`,
			"GET /v1/deployment/d":                         `{"ID": "d", "Status": "successful"}`,
		}, exitDone, "successful"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			agent(t, tc.answers)
			code, out, errOut := call(t, "", "run", "-no-images", jobFile(t, "low"))
			must.Eq(t, tc.code, code, must.Sprint(errOut))
			must.StrContains(t, out, tc.out)
		})
	}
	agent(t, map[string]string{"PUT /v1/jobs": registered})
	code, out, _ := call(t, "", "run", "-no-images", "-detach", jobFile(t, "low"))
	must.Eq(t, exitDone, code)
	must.StrContains(t, out, "Evaluation ID: 11111111-2222")
}

// TestSubmission: Nomad keeps what the author wrote, and the job it runs is
// the rewritten one.
func TestSubmission(t *testing.T) {
	var got struct {
		Job struct {
			TaskGroups []struct{ Tasks []struct{ Driver string } }
		}
		Submission struct {
			Source, Format string
			VariableFlags  map[string]string
		}
		EnforceIndex   bool
		JobModifyIndex uint64
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		_, _ = w.Write([]byte(`{}`))
	}))
	defer server.Close()
	src := "variable \"v\" {}\n" + strings.Replace(job, `"COMPLEXITY"`, "var.v", 1)
	code, _, errOut := call(t, src, "run", "-no-images", "-detach", "-address", server.URL, "-var", "v=low", "-check-index", "7", "-")
	must.Eq(t, exitDone, code, must.Sprint(errOut))
	must.Eq(t, src, got.Submission.Source)
	must.Eq(t, "hcl2", got.Submission.Format)
	must.Eq(t, "low", got.Submission.VariableFlags["v"])
	must.Eq(t, "unikernel", got.Job.TaskGroups[0].Tasks[0].Driver)
	must.True(t, got.EnforceIndex)
	must.Eq(t, 7, got.JobModifyIndex)
}

// TestInspect tells what a file is, or that there is none.
func TestInspect(t *testing.T) {
	code, _, errOut := call(t, "", "inspect", "/nonexistent/kernel")
	must.Eq(t, exitFailed, code)
	must.StrContains(t, errOut, "no such file")
	text := jobFile(t, "low")
	code, _, errOut = call(t, "", "inspect", text)
	must.Eq(t, exitFailed, code)
	must.StrContains(t, errOut, "not a kernel")
	must.StrContains(t, errOut, "nor is it an archive of `docker save`")
	code, _, errOut = call(t, "", "inspect", "oci-layout:/nonexistent")
	must.Eq(t, exitFailed, code)
	must.StrContains(t, errOut, "no OCI layout")
	must.Eq(t, 1, strings.Count(errOut, "no OCI layout"))
	code, _, _ = call(t, "", "inspect")
	must.Eq(t, exitUsage, code)
}

// What an image was built without is told in the driver's own words.
func TestInspect_Takes(t *testing.T) {
	var out bytes.Buffer
	p := printer{w: &out, width: 200}
	unikernel := &classifier.UnikernelImage{
		Family: "unikraft", Release: "0.17.0", Arch: []string{"arm64"},
		Features: []string{"CONFIG_LIBUKBOOT=y", "CONFIG_LIBUKCPIO=y", "CONFIG_LIBUKNETDEV_EINFO_LIBPARAM=y"},
	}
	p.inspection(&inspection{Unikernel: unikernel, Takes: takes(unikernel)})
	for _, line := range []string{
		"address: yes (netdev.ip= on its command line)",
		"environment: no (it was built without LIBPOSIX_ENVIRON_LIBPARAM)",
		"files by initrd: yes", "files by 9p: no (it was built without CONFIG_LIBVIRTIO_9P)",
	} {
		must.StrContains(t, out.String(), line)
	}
}
