// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

// report is all that a run measured.
type report struct {
	Date           time.Time            `json:"date"`
	Machine        host                 `json:"machine"`
	Params         params               `json:"params"`
	Images         map[string]imageSize `json:"images"`
	Samples        []*sample            `json:"samples"`
	Failures       map[string]string    `json:"failures,omitempty"` // by contender
	Classification classification       `json:"classification"`
	Density        []crowd              `json:"density"`
	Goals          []goal               `json:"goals"`

	contenders  []string
	overheadMiB int
}

// host is what the run was made on, and with which versions.
type host struct {
	CPU         string `json:"cpu"`
	Cores       int    `json:"cores"`
	MemoryMiB   int    `json:"memory_mib"`
	Kernel      string `json:"kernel"`
	System      string `json:"system"`
	Nomad       string `json:"nomad"`
	QEMU        string `json:"qemu"`
	Docker      string `json:"docker"`
	Driver      string `json:"driver"`
	Accelerator string `json:"accelerator"`

	accelerator string // kvm or tcg
}

func newReport(ctx context.Context, site *harness.Site, p params) (*report, error) {
	node, err := site.Nomad.NodeInfo(ctx)
	if err != nil {
		return nil, err
	}
	overhead, err := strconv.Atoi(node.Attributes["driver.unikernel.memory_overhead_mib"])
	if err != nil {
		return nil, fmt.Errorf("the node's attribute driver.unikernel.memory_overhead_mib: %w", err)
	}
	docker, err := site.Docker.Client.ServerVersion(ctx)
	if err != nil {
		return nil, err
	}
	arch := map[string]string{"amd64": "x86_64", "arm64": "arm64"}[runtime.GOARCH]
	total, _ := strconv.Atoi(field("/proc/meminfo", "MemTotal:"))
	m := host{
		CPU:         cpuName(),
		Cores:       runtime.NumCPU(),
		MemoryMiB:   total / 1024,
		Kernel:      node.Attributes["kernel.version"],
		System:      node.Attributes["os.name"] + " " + node.Attributes["os.version"],
		Nomad:       node.Attributes["nomad.version"],
		QEMU:        node.Attributes["driver.unikernel.qemu."+arch+".version"],
		Docker:      docker.Version,
		Driver:      revision(ctx, site.Layout.Root),
		accelerator: node.Attributes["driver.unikernel.arch."+arch],
	}
	m.Accelerator = "KVM"
	if m.accelerator == "tcg" {
		m.Accelerator = "TCG, QEMU's emulation of a CPU (" + node.Attributes["driver.unikernel.kvm.reason"] + ")"
	}
	return &report{
		Date: time.Now().UTC().Truncate(time.Second), Machine: m, Params: p,
		Images: map[string]imageSize{}, Failures: map[string]string{}, overheadMiB: overhead,
		contenders: allContenders,
	}, nil
}

// field is the word after a name at the beginning of a line.
func field(path, name string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == name {
			return fields[1]
		}
	}
	return ""
}

func cpuName() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// revision is the commit that was built, where git tells.
func revision(ctx context.Context, root string) string {
	out, err := exec.CommandContext(ctx, "git", "-C", root, "describe", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// save writes the figures.
func (r *report) save(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

// write writes the figures, the plots and the page.
func (r *report) write(layout harness.Layout, docs string) error {
	results := layout.Build(siteName, figuresFile)
	if err := r.save(results); err != nil {
		return err
	}
	plots := filepath.Join(docs, "performance")
	if err := os.MkdirAll(plots, 0o755); err != nil {
		return err
	}
	if err := r.plot(plots); err != nil {
		return err
	}
	page := filepath.Join(docs, "performance.md")
	if err := r.writePage(layout, page); err != nil {
		return err
	}
	fmt.Printf("\n  All figures: %s\n  The page:    %s\n", results, page)
	return nil
}
