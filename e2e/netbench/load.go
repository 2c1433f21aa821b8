// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	_ "embed" // what wrk reports
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// load is one way of asking.
type load struct {
	name, title string
	page        string
	clients     string
	argv        []string // what else wrk is told
}

// loads are in the order in which they are put on a task: what is left of the
// connections of the last one is gone when it is asked again.
var loads = []load{
	{name: "one", title: "one connection", page: "/healthz", clients: "1"},
	{name: "eight", title: "eight connections", page: "/healthz", clients: "8"},
	{name: "bulk", title: "one connection, pages of a MB", page: "/average", clients: "1"},
	{name: "new", title: "a connection for each request, eight at a time", page: "/healthz", clients: "8", argv: []string{"-H", "Connection: close"}},
}

const loadFor = "2s"

// report has wrk print what it measured as JSON.
//
//go:embed report.lua
var report []byte

// measure puts each load on a way in turn.
func (b *bench) measure(ctx context.Context, w way, counts bool) error {
	at, err := b.at(ctx, w)
	if err != nil {
		return err
	}
	for _, l := range loads {
		values, err := b.wrk(ctx, l, fmt.Sprintf("http://%s:%d%s", at.Address, at.Port, l.page))
		if err != nil {
			return fmt.Errorf("%s: %w", l.title, err)
		}
		if !counts {
			continue
		}
		for name, value := range values {
			key := figure{w.name, l.name, name}
			b.figures[key] = append(b.figures[key], value)
		}
	}
	return nil
}

// wrk asks as fast as the application answers. It is small enough to leave the
// machine to what it measures.
func (b *bench) wrk(ctx context.Context, l load, url string) (map[string]float64, error) {
	script := filepath.Join(filepath.Dir(b.site.State), "report.lua")
	if err := os.WriteFile(script, report, 0o644); err != nil {
		return nil, err
	}
	argv := append([]string{"-t1", "-c" + l.clients, "-d" + loadFor, "--timeout", "5s", "-s", script}, l.argv...)
	said, err := exec.CommandContext(ctx, "wrk", append(argv, url)...).Output()
	if err != nil {
		return nil, fmt.Errorf("wrk, which `make bench-net` installs: %w: %s", err, said)
	}
	var values map[string]float64
	line := said[lastLine(said):]
	if err := json.Unmarshal(line, &values); err != nil {
		return nil, fmt.Errorf("wrk's report %q: %w", said, err)
	}
	if values["rate"] == 0 {
		return nil, fmt.Errorf("no answer from %s: %s", url, said)
	}
	return values, nil
}

// lastLine is where the last line begins that is not empty.
func lastLine(text []byte) int {
	end := len(text)
	for end > 0 && text[end-1] == '\n' {
		end--
	}
	for i := end - 1; i >= 0; i-- {
		if text[i] == '\n' {
			return i + 1
		}
	}
	return 0
}
