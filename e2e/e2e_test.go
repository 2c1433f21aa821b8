// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

// Package e2e tests the driver and nomad-hybrid under a real Nomad agent, with
// real QEMU and a real Docker daemon. Its jobs are files under jobs/ and the
// examples.
package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

// site is the one site that all tests share: an agent takes seconds to start,
// and leftovers of one job disturb the next, as on a real node.
var site *harness.Site

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var err error
	site, err = harness.OpenSite(ctx, "e2e", func(step string) { fmt.Println("    " + step) })
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	status := m.Run()
	if err := site.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "closing the site:", err)
		return 1
	}
	return status
}

// limit bounds one test: a wait that never ends becomes a message.
func limit(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), d, fmt.Errorf("the test's limit of %v is over", d))
	t.Cleanup(cancel)
	return ctx
}

// purge stops a job when the test ends, however it ends.
func purge(t *testing.T, jobID string) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		must.NoError(t, site.Nomad.Purge(ctx, jobID))
	})
}

func lookAtMachine(t *testing.T) harness.Machine {
	t.Helper()
	now, err := site.LookAtMachine()
	must.NoError(t, err)
	return now
}

// nothingNew fails the test if something is left that was not there before.
func nothingNew(t *testing.T, before harness.Machine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	must.NoError(t, site.AwaitNothingNew(ctx, before))
}

// eventually repeats what nobody tells when it will do, until ctx ends.
func eventually(ctx context.Context, do func() error) error {
	for {
		err := do()
		if err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// get asks one instance of a service, and decodes its JSON answer.
func get(ctx context.Context, at *api.ServiceRegistration, path string, into any) error {
	url := fmt.Sprintf("http://%s:%d%s", at.Address, at.Port, path)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", url, res.Status, body)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("%s: %w in %s", url, err, body)
	}
	return nil
}
