// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

// services are the example's services, and what is asked of each.
var services = []struct {
	name, ask string
	instances int
}{
	{name: "vision", ask: "/detect", instances: 1},
	{name: "steps", ask: "/top", instances: 3},
}

func jobPath(site *harness.Site) string {
	return site.Layout.Path("examples", "hybrid", "hybrid.nomad.hcl")
}

// show runs the example as containers, and then as nomad-hybrid renders it:
// what is left running, if anything is, is the latter.
func show(ctx context.Context, site *harness.Site, keep bool) error {
	vars := map[string]string{"images": site.ImageDir()}
	node, err := site.Nomad.NodeInfo(ctx)
	if err != nil {
		return err
	}
	plain, err := harness.ParseJobFile(jobPath(site), vars)
	if err != nil {
		return err
	}
	say("Running the job as it is written: all containers")
	containers, err := runJob(ctx, site, node, plain)
	if err != nil {
		return err
	}
	if err := site.Nomad.Purge(ctx, *plain.ID); err != nil {
		return err
	}

	say("Asking nomad-hybrid where each task should run")
	rendered, err := site.Render(ctx, jobPath(site), vars)
	if err != nil {
		return err
	}
	fmt.Println(indent(rendered.Report))
	hybrid, err := harness.ParseJob(jobPath(site), rendered.Job, vars)
	if err != nil {
		return err
	}
	say("Running the job as it was rewritten")
	mixed, err := runJob(ctx, site, node, hybrid)
	if err != nil {
		return err
	}
	shared, err := site.Nomad.NodeMemory(site.Docker)
	if err != nil {
		return err
	}
	printTable(os.Stdout, "As written, all containers", containers)
	printTable(os.Stdout, "Rewritten by nomad-hybrid", mixed)
	printNotes(os.Stdout, node, shared, containers, mixed)
	if keep {
		return nil
	}
	return site.Nomad.Purge(ctx, *hybrid.ID)
}

// runJob runs a job, asks every instance of its services, and measures each.
func runJob(ctx context.Context, site *harness.Site, node *api.Node, job *api.Job) ([]measurement, error) {
	start := time.Now()
	if err := site.Nomad.Submit(ctx, job); err != nil {
		return nil, err
	}
	type arrival struct {
		of  measurement
		err error
	}
	arrivals := make(chan arrival)
	expected := 0
	for _, service := range services {
		found, err := site.Nomad.Instances(ctx, service.name, service.instances)
		if err != nil {
			return nil, fmt.Errorf("%w\n%s", err, site.Nomad.Describe(ctx, *job.ID))
		}
		for _, at := range found {
			expected++
			go func() {
				answer, err := firstAnswer(ctx, fmt.Sprintf("http://%s:%d%s", at.Address, at.Port, service.ask))
				arrivals <- arrival{measurement{service: at, answered: time.Since(start), answer: answer}, err}
			}()
		}
	}
	var all []measurement
	var failed error
	for range expected {
		a := <-arrivals
		if a.err != nil {
			failed = a.err
		}
		all = append(all, a.of)
	}
	if failed != nil {
		return nil, fmt.Errorf("%w\n%s", failed, site.Nomad.Describe(context.WithoutCancel(ctx), *job.ID))
	}
	for i := range all {
		if err := all[i].complete(ctx, site, node, job); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all, func(a, b measurement) int {
		return strings.Compare(a.service.ServiceName, b.service.ServiceName)
	})
	for _, m := range all {
		fmt.Printf("    %-7s %s:%d  %s\n", m.service.ServiceName, m.service.Address, m.service.Port, m.answer)
	}
	return all, nil
}

// firstAnswer asks until there is an answer: a connection alone says nothing,
// for both Docker's proxy and QEMU's network take it before the application
// listens.
func firstAnswer(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		answer, err := ask(ctx, url)
		if err == nil {
			return answer, nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("no answer from %s: %w", url, err)
		case <-ticker.C:
		}
	}
}

func ask(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err == nil && (res.StatusCode != http.StatusOK || !json.Valid(body)) {
		err = fmt.Errorf("%s: %q", res.Status, body)
	}
	return strings.TrimSpace(string(body)), err
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ")
}
