// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	_ "embed" // the page
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/hashicorp/nomad/api"
	"golang.org/x/sys/unix"
)

//go:embed page.md.tmpl
var page string

// write makes the page of what was measured.
func (b *bench) write(ctx context.Context, rounds int) error {
	node, _, err := b.fleet.Client.Nodes().Info(b.fleet.Nodes[0].ID, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return err
	}
	var kernel unix.Utsname
	if err := unix.Uname(&kernel); err != nil {
		return err
	}
	arch := map[string]string{"amd64": "x86_64", "arm64": "arm64"}[runtime.GOARCH]
	var out bytes.Buffer
	err = template.Must(template.New("page").Parse(page)).Execute(&out, map[string]any{
		"Date":   time.Now().UTC().Format(time.DateOnly),
		"Rounds": rounds, "For": loadFor,
		"CPU": node.Attributes["cpu.modelname"], "Cores": node.Attributes["cpu.numcores"], "Arch": arch,
		"Kernel": strings.TrimRight(string(kernel.Release[:]), "\x00"),
		"Nomad":  node.Attributes["nomad.version"], "Docker": node.Attributes["driver.docker.version"],
		"QEMU": node.Attributes["driver.unikernel.qemu."+arch+".version"], "Accelerator": strings.ToUpper(node.Attributes["driver.unikernel.arch."+arch]),
		"Commit": commit(ctx), "Load": b.load,
		"One": b.table("one", "rate", "p50", "p99"), "Eight": b.table("eight", "rate", "p50", "p99"),
		"New": b.table("new", "rate", "p50", "p99", "failed"), "Bulk": b.table("bulk", "mb"),
	})
	if err != nil {
		return err
	}
	path := b.site.Layout.Path("docs", "performance-network.md")
	say("Writing " + path)
	fmt.Println(out.String())
	return os.WriteFile(path, out.Bytes(), 0o644)
}

// commit names what was measured, where git knows.
func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

var columns = map[string]string{
	"rate": "requests/s", "p50": "median, µs", "p99": "99 of 100 within, µs", "mb": "MB/s", "failed": "failed, of all rounds",
}

// table has a line for each way: the median of the rounds, and the least and
// the most.
func (b *bench) table(load string, values ...string) string {
	var out strings.Builder
	out.WriteString("| |")
	for _, value := range values {
		fmt.Fprintf(&out, " %s |", columns[value])
	}
	out.WriteString("\n|---|" + strings.Repeat("---|", len(values)) + "\n")
	for _, w := range ways {
		fmt.Fprintf(&out, "| %s |", w.title)
		for _, value := range values {
			fmt.Fprintf(&out, " %s |", cell(value, b.figures[figure{w.name, load, value}]))
		}
		out.WriteString("\n")
	}
	return out.String()
}

func cell(value string, rounds []float64) string {
	if value == "failed" {
		sum := 0.0
		for _, n := range rounds {
			sum += n
		}
		return fmt.Sprintf("%.0f", sum)
	}
	sorted := slices.Sorted(slices.Values(rounds))
	return fmt.Sprintf("%.0f (%.0f to %.0f)", sorted[len(sorted)/2], sorted[0], sorted[len(sorted)-1])
}
