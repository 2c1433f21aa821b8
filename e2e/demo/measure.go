// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

// measurement is what one instance of a task took.
type measurement struct {
	service  *api.ServiceRegistration
	answer   string
	answered time.Duration // from the job's submission to the first answer
	driver   string
	memory   []harness.ProcessMemory
	image    int64 // bytes
}

// complete adds what can be measured once the instance runs.
func (m *measurement) complete(ctx context.Context, site *harness.Site, node *api.Node, job *api.Job) error {
	alloc, err := site.Nomad.Allocation(ctx, m.service.AllocID)
	if err != nil {
		return err
	}
	task := job.LookupTaskGroup(alloc.TaskGroup).Tasks[0]
	m.driver = task.Driver
	if m.memory, err = site.Nomad.TaskMemory(ctx, site.Docker, alloc.ID, task.Name); err != nil {
		return err
	}
	m.image, err = imageSize(ctx, site, node, task)
	return err
}

// imageSize is what a node must hold to run a task, in bytes.
func imageSize(ctx context.Context, site *harness.Site, node *api.Node, task *api.Task) (int64, error) {
	if task.Driver == "docker" {
		return site.Docker.ImageSize(ctx, task.Config["image"].(string))
	}
	var sum int64
	for _, key := range []string{"image", "initrd"} {
		path, ok := task.Config[key].(string)
		if !ok {
			continue
		}
		info, err := os.Stat(strings.ReplaceAll(path, "${attr.cpu.arch}", node.Attributes["cpu.arch"]))
		if err != nil {
			return 0, err
		}
		sum += info.Size()
	}
	return sum, nil
}

func printTable(out io.Writer, title string, all []measurement) {
	_, _ = fmt.Fprintf(out, "\n%s\n\n", title)
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(w, "  TASK\tRUNTIME\tFIRST ANSWER\tMEMORY\tIMAGE\tMEMORY BY PROCESS, MiB")
	for _, m := range all {
		_, _ = fmt.Fprintf(w, "  %s\t%s\t%d ms\t%s\t%s\t%s\n", m.service.ServiceName, runtimeOf(m.driver),
			m.answered.Milliseconds(), mib(harness.MemoryOf(m.memory)), mib(int(m.image/1024)), byProcess(m.memory))
	}
	_ = w.Flush()
}

// printNotes says how the figures came about, and sums them up.
func printNotes(out io.Writer, node *api.Node, shared []harness.ProcessMemory, containers, mixed []measurement) {
	_, _ = fmt.Fprintf(out, `
  FIRST ANSWER  from the job's submission to the instance's first HTTP answer
  MEMORY        proportional set size (PSS) of all that runs for the task and for no other
  Guests ran under %s. All tasks share, in MiB: %s.

  All instances together: %s as written, %s rewritten.
`, accelerator(node), byProcess(shared), mib(total(containers)), mib(total(mixed)))
}

func total(all []measurement) int {
	sum := 0
	for _, m := range all {
		sum += harness.MemoryOf(m.memory)
	}
	return sum
}

// accelerator is what the driver's fingerprint says for the node's architecture.
func accelerator(node *api.Node) string {
	arch := map[string]string{"amd64": "x86_64", "arm64": "arm64"}[node.Attributes["cpu.arch"]]
	switch node.Attributes["driver.unikernel.arch."+arch] {
	case "kvm":
		return "KVM"
	case "tcg":
		return "TCG, QEMU's emulation of a CPU (" + node.Attributes["driver.unikernel.kvm.reason"] + ")"
	default:
		return "an accelerator that the fingerprint does not tell"
	}
}

func runtimeOf(driver string) string {
	if driver == "docker" {
		return "container"
	}
	return driver
}

// byProcess sums what processes take by their role, the largest first.
func byProcess(all []harness.ProcessMemory) string {
	sums := map[string]int{}
	for _, p := range all {
		sums[p.Role] += p.KiB
	}
	roles := slices.SortedFunc(maps.Keys(sums), func(a, b string) int {
		return cmp.Or(sums[b]-sums[a], strings.Compare(a, b))
	})
	for i, role := range roles {
		roles[i] = fmt.Sprintf("%s %.1f", role, float64(sums[role])/1024)
	}
	return strings.Join(roles, ", ")
}

func mib(kib int) string { return fmt.Sprintf("%.1f MiB", float64(kib)/1024) }
