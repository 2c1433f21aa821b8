// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Package gate is a proxy in front of Nomad's HTTP API that classifies the jobs
// which pass through it, so that nobody has to change how they submit. All else
// (event streams, exec over websockets, logs) passes untouched.
package gate

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/api"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier/jobfile"
)

// maxBody bounds a request that may hold a job.
const maxBody = 32 << 20

// Options set up a gate.
type Options struct {
	// Nomad is the agent behind the gate.
	Nomad *api.Config
	// Decide are the options by which every job is decided.
	Decide classifier.Options
	// Cluster, if given, makes the view of the cluster for one request, given
	// the token that the request came with and the region that it goes to ("":
	// the agent's own).
	Cluster func(token, region string) (classifier.Cluster, error)
	// FailOpen lets a job that cannot be classified pass as it came; otherwise
	// it is refused.
	FailOpen bool
	Log      hclog.Logger
}

// Gate is the proxy.
type Gate struct {
	opts  Options
	proxy *httputil.ReverseProxy
}

// New makes a gate.
func New(o Options) (*Gate, error) {
	target, err := url.Parse(o.Nomad.Address)
	if err != nil || (target.Scheme != "http" && target.Scheme != "https") || target.Host == "" {
		return nil, fmt.Errorf("the gate needs Nomad's address as http://HOST:PORT or https://HOST:PORT, not %q", o.Nomad.Address)
	}
	client := &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
	if err := api.ConfigureTLS(client, o.Nomad.TLSConfig); err != nil {
		return nil, fmt.Errorf("TLS to Nomad: %w", err)
	}
	g := &Gate{opts: o}
	g.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = target.Host
			r.SetXForwarded()
		},
		Transport:     client.Transport,
		FlushInterval: -1, // streams are streams
		ErrorLog:      o.Log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Warn}),
		ErrorHandler:  g.unreachable,
	}
	return g, nil
}

func (g *Gate) unreachable(w http.ResponseWriter, r *http.Request, err error) {
	g.opts.Log.Warn("Nomad did not answer", "path", r.URL.Path, "error", err)
	http.Error(w, fmt.Sprintf("nomad-hybrid: Nomad at %s did not answer: %v", g.opts.Nomad.Address, err), http.StatusBadGateway)
}

// ServeHTTP classifies a job on its way, and hands all else on.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if mayHoldJob(r) {
		if err := g.classify(w, r); err != nil {
			g.opts.Log.Warn("refused", "path", r.URL.Path, "error", err)
			http.Error(w, "nomad-hybrid: "+err.Error(), status(err))
			return
		}
	}
	g.proxy.ServeHTTP(w, r)
}

// mayHoldJob tells whether a request can carry a job: to be registered, planned
// or validated. Which ones do is told by their body.
func mayHoldJob(r *http.Request) bool {
	if r.Method != http.MethodPut && r.Method != http.MethodPost {
		return false
	}
	p := path.Clean("/" + r.URL.Path) // as Nomad's own mux
	return p == "/v1/jobs" || p == "/v1/validate/job" || strings.HasPrefix(p, "/v1/job/")
}

// errTooLarge marks a body beyond maxBody.
var errTooLarge = errors.New("the request is larger than 32 MiB")

// status is the answer's: Nomad's own where it refused a look at the cluster.
func status(err error) int {
	var answer api.UnexpectedResponseError
	switch {
	case errors.Is(err, errTooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.As(err, &answer) && answer.HasStatusCode():
		return answer.StatusCode()
	case errors.Is(err, classifier.ErrCluster):
		return http.StatusBadGateway
	}
	return http.StatusBadRequest
}

// classify puts the rewritten job in place of the one that came.
func (g *Gate) classify(w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	if len(body) > maxBody {
		return errTooLarge
	}
	setBody(r, body)
	if r.Header.Get("Content-Encoding") != "" {
		return g.pass(errors.New("the request is encoded (Content-Encoding); send it plain"))
	}
	if !holdsJob(body) {
		return nil
	}
	result, err := g.decide(r.Context(), r, body)
	if err != nil {
		return g.pass(err)
	}
	setBody(r, result.File.Source)
	for _, t := range result.Report.Tasks {
		g.opts.Log.Info("decided", "job", result.Report.Job, "group", t.Group, "task", t.Task,
			"runtime", t.Decision, "by", t.Rule, "driver", t.NewDriver, "why", strings.Join(t.Reasons, "; "))
	}
	w.Header().Set("X-Nomad-Hybrid", summary(result.Report))
	return nil
}

// pass lets an error through as a warning where the gate fails open.
func (g *Gate) pass(err error) error {
	if !g.opts.FailOpen {
		return err
	}
	g.opts.Log.Warn("passed as it came", "error", err)
	return nil
}

func setBody(r *http.Request, body []byte) {
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	r.Header.Del("Content-Length")
	r.TransferEncoding = nil
}

// holdsJob tells a registration from the other requests below /v1/job/, such as
// scaling and dispatching.
func holdsJob(body []byte) bool {
	var request struct {
		Job *struct{ TaskGroups []json.RawMessage }
	}
	return json.Unmarshal(body, &request) == nil && request.Job != nil
}

func (g *Gate) decide(ctx context.Context, r *http.Request, body []byte) (*classifier.Result, error) {
	f, err := jobfile.Parse(body, jobfile.Options{Path: "request"})
	if err != nil {
		return nil, err
	}
	o := g.opts.Decide
	to := destination(r, body)
	o.Namespace = to.Namespace
	if g.opts.Cluster != nil {
		if o.Cluster, err = g.opts.Cluster(token(r), cmp.Or(to.Region, deref(f.Job.Region))); err != nil {
			return nil, err
		}
	}
	return classifier.Classify(ctx, f, o)
}

// address is where a request sends its job.
type address struct{ Namespace, Region string }

// destination reads where a request sends its job, if not where the job says:
// what the query names counts more than the body, as in Nomad's agent.
func destination(r *http.Request, body []byte) address {
	var to address
	if json.Unmarshal(body, &to) != nil {
		return address{}
	}
	q := r.URL.Query()
	return address{cmp.Or(q.Get("namespace"), to.Namespace), cmp.Or(q.Get("region"), to.Region)}
}

// token is a request's own, in either of the ways that Nomad takes it.
func token(r *http.Request) string {
	if t := r.Header.Get("X-Nomad-Token"); t != "" {
		return t
	}
	scheme, bearer, _ := strings.Cut(strings.TrimSpace(r.Header.Get("Authorization")), " ")
	if !strings.EqualFold(scheme, "bearer") {
		return ""
	}
	return strings.TrimSpace(bearer)
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func summary(r *classifier.Report) string {
	var parts []string
	for _, t := range r.Tasks {
		if t.Changed {
			parts = append(parts, fmt.Sprintf("%s/%s=%s", url.PathEscape(t.Group), url.PathEscape(t.Task), t.Decision))
		}
	}
	if len(parts) == 0 {
		return "unchanged"
	}
	return strings.Join(parts, " ")
}
