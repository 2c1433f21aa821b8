// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package gate_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier/gate"
)

// nomad is an agent that says what it got.
func nomad(t *testing.T, failOpen bool) *httptest.Server {
	t.Helper()
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			conn, buf, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			line, _ := buf.ReadString('\n')
			fmt.Fprint(conn, "echo "+line)
			return
		}
		if r.URL.Path == "/v1/event/stream" {
			fmt.Fprintln(w, "first")
			w.(http.Flusher).Flush()
			<-r.Context().Done() // the stream stays open
			return
		}
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s token=%s %s", r.Method, r.URL.RequestURI(), r.Header.Get("X-Nomad-Token"), body)
	}))
	t.Cleanup(agent.Close)
	g, err := gate.New(gate.Options{
		Nomad: &api.Config{Address: agent.URL, TLSConfig: &api.TLSConfig{}}, FailOpen: failOpen, Log: hclog.NewNullLogger(),
	})
	must.NoError(t, err)
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	return server
}

func send(t *testing.T, method, url, body string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	must.NoError(t, err)
	req.Header.Set("X-Nomad-Token", "secret")
	resp, err := http.DefaultClient.Do(req)
	must.NoError(t, err)
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	must.NoError(t, err)
	return resp.StatusCode, string(got), resp.Header
}

const request = `{"Job": {"ID": "j", "TaskGroups": [{"Name": "g", "Tasks": [{"Name": "t", "Driver": "docker",
 "Config": {"image": "a"}, "Meta": {"hybrid_complexity": %q, "hybrid_unikernel_image": "local/u"}}]}]},
 "EnforceIndex": true, "Submission": {"Source": "job \"j\" {}"}}`

// TestJobs: jobs are rewritten on every way that one can be submitted; all
// else in the request stays.
func TestJobs(t *testing.T) {
	server := nomad(t, false)
	for _, at := range []string{"/v1/jobs", "/v1/jobs?region=eu", "/v1//jobs", "/v1/job/j/plan", "/v1/job/a/b", "/v1/validate/job"} {
		for _, method := range []string{http.MethodPut, http.MethodPost} {
			code, got, header := send(t, method, server.URL+at, fmt.Sprintf(request, "low"))
			must.Eq(t, http.StatusOK, code)
			must.StrContains(t, got, method+" "+at+" token=secret")
			must.StrContains(t, got, `"Driver": "unikernel"`)
			must.StrContains(t, got, ` "EnforceIndex": true, "Submission": {"Source": "job \"j\" {}"}}`)
			must.Eq(t, "g/t=unikernel", header.Get("X-Nomad-Hybrid"))
		}
	}
}

// TestUntouched: what holds no job passes byte for byte.
func TestUntouched(t *testing.T) {
	server := nomad(t, false)
	for _, tc := range []struct{ method, path, body string }{
		{http.MethodGet, "/v1/jobs?prefix=a", ""},
		{http.MethodPost, "/v1/job/j/scale", `{"Count": 1,  "Target": {"Group": "g"}}`},
		{http.MethodPost, "/v1/jobs/parse", `{"JobHCL": "job"}`},
		{http.MethodPut, "/v1/job/j/dispatch", `no JSON`},
		{http.MethodPut, "/v1/var/x", fmt.Sprintf(request, "low")},
		{http.MethodDelete, "/v1/job/j", ""},
	} {
		code, got, _ := send(t, tc.method, server.URL+tc.path, tc.body)
		must.Eq(t, http.StatusOK, code)
		must.Eq(t, tc.method+" "+tc.path+" token=secret "+tc.body, got)
	}
}

// TestFail: a job that cannot be classified is refused, or passes as it came
// where the gate fails open.
func TestFail(t *testing.T) {
	wrong := fmt.Sprintf(request, "heavyish")
	code, got, _ := send(t, http.MethodPut, nomad(t, false).URL+"/v1/jobs", wrong)
	must.Eq(t, http.StatusBadRequest, code)
	must.StrContains(t, got, `hybrid_complexity: "heavyish" will not do`)

	code, got, _ = send(t, http.MethodPut, nomad(t, true).URL+"/v1/jobs", wrong)
	must.Eq(t, http.StatusOK, code)
	must.StrContains(t, got, wrong)

	g, err := gate.New(gate.Options{
		Nomad: &api.Config{Address: "http://127.0.0.1:1", TLSConfig: &api.TLSConfig{}}, Log: hclog.NewNullLogger(),
	})
	must.NoError(t, err)
	down := httptest.NewServer(g)
	defer down.Close()
	code, got, _ = send(t, http.MethodGet, down.URL+"/v1/jobs", "")
	must.Eq(t, http.StatusBadGateway, code)
	must.StrContains(t, got, "did not answer")

	_, err = gate.New(gate.Options{Nomad: &api.Config{Address: "unix:///x"}, Log: hclog.NewNullLogger()})
	must.ErrorContains(t, err, "http://HOST:PORT")
}

// view is a cluster that nobody may look at.
type view struct{ err error }

func (v view) Group(context.Context, classifier.Need) (*classifier.GroupView, error) {
	return nil, v.err
}

// TestCluster: the view is made for the request's token and region, by the
// namespace of the request; what Nomad answers to it is the gate's answer.
func TestCluster(t *testing.T) {
	refused := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "Permission denied", http.StatusForbidden)
	}))
	defer refused.Close()
	client, err := api.NewClient(&api.Config{Address: refused.URL})
	must.NoError(t, err)
	_, _, forbidden := client.Nodes().List(nil)
	must.Error(t, forbidden)

	var token, region string
	var answer error
	g, err := gate.New(gate.Options{
		Nomad: &api.Config{Address: refused.URL, TLSConfig: &api.TLSConfig{}}, Log: hclog.NewNullLogger(),
		Cluster: func(t, r string) (classifier.Cluster, error) {
			token, region = t, r
			return view{answer}, nil
		},
	})
	must.NoError(t, err)
	server := httptest.NewServer(g)
	defer server.Close()
	for _, tc := range []struct {
		err    error
		query  string
		status int
		region string
	}{
		{forbidden, "", http.StatusForbidden, ""},
		{errors.New("no route"), "?region=eu", http.StatusBadGateway, "eu"},
	} {
		answer = tc.err
		code, got, _ := send(t, http.MethodPut, server.URL+"/v1/jobs"+tc.query, fmt.Sprintf(request, "low"))
		must.Eq(t, tc.status, code)
		must.StrContains(t, got, "look at the cluster")
		must.Eq(t, "secret", token)
		must.Eq(t, tc.region, region)
	}
}

// TestNamespace: the policy of the namespace that the request names holds.
func TestNamespace(t *testing.T) {
	policy, err := classifier.ParsePolicy([]byte(string(classifier.DefaultPolicy)+`
override {
  namespace = "edge"
  thresholds {
    unikernel = 1
    container = 2
  }
}`), "policy.hcl")
	must.NoError(t, err)
	agent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer agent.Close()
	g, err := gate.New(gate.Options{
		Nomad: &api.Config{Address: agent.URL, TLSConfig: &api.TLSConfig{}}, Log: hclog.NewNullLogger(), Decide: classifier.Options{Policy: policy},
	})
	must.NoError(t, err)
	server := httptest.NewServer(g)
	defer server.Close()
	job := fmt.Sprintf(request, "low")
	for _, tc := range []struct{ query, body, want string }{
		{"", job, "unikernel"},
		{"?namespace=edge", job, "container"},
		{"", strings.Replace(job, `{"Job"`, `{"Namespace": "edge", "Job"`, 1), "container"},
		{"", strings.Replace(job, `"ID"`, `"Namespace": "edge", "ID"`, 1), "container"},
		{"?namespace=default", strings.Replace(job, `"ID"`, `"Namespace": "edge", "ID"`, 1), "unikernel"},
	} {
		_, _, header := send(t, http.MethodPut, server.URL+"/v1/jobs"+tc.query, tc.body)
		must.Eq(t, "g/t="+tc.want, header.Get("X-Nomad-Hybrid"), must.Sprint(tc.query, tc.body))
	}
}

// TestStreams: an open stream's first line arrives, and a websocket's bytes go
// both ways.
func TestStreams(t *testing.T) {
	server := nomad(t, false)
	resp, err := http.Get(server.URL + "/v1/event/stream")
	must.NoError(t, err)
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	must.NoError(t, err)
	must.Eq(t, "first\n", line)
	must.NoError(t, resp.Body.Close())

	conn, err := net.Dial("tcp", strings.TrimPrefix(server.URL, "http://"))
	must.NoError(t, err)
	defer conn.Close()
	fmt.Fprint(conn, "GET /v1/client/allocation/x/exec HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	r := bufio.NewReader(conn)
	answer, err := http.ReadResponse(r, nil)
	must.NoError(t, err)
	must.Eq(t, http.StatusSwitchingProtocols, answer.StatusCode)
	fmt.Fprintln(conn, "hello")
	line, err = r.ReadString('\n')
	must.NoError(t, err)
	must.Eq(t, "echo hello\n", line)
}
