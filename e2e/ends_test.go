// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

// ending is a row of docs/ends.md, and how it is made happen to a task.
type ending struct {
	what string
	vars map[string]string
	do   func(*ended) // to the running task; nil: it ends by itself
	then []string     // the types of the events after Task Setup
}

// ended is a task that comes to such an end.
type ended struct {
	*testing.T
	ctx   context.Context
	jobID string
	alloc *api.Allocation
}

var (
	gaveUp  = []string{"Started", "Terminated", "Not Restarting"}
	refused = []string{"Driver Failure", "Not Restarting"}
	stopped = []string{"Started", "Killing", "Terminated", "Killed"}
)

// endings has a row of each kind. TestEnds in driver has all, and what the
// driver itself answers.
var endings = []ending{
	{what: "over the task's memory limit", vars: args("--start-delay=10", "--fill-memory"), do: (*ended).takeMemory, then: gaveUp},
	{what: "the application returned 0", vars: args("--exit=0"), then: gaveUp[:2]},
	{what: "the application returned 7", vars: args("--exit=7"), then: gaveUp},
	{what: "the guest crashed or panicked", vars: args("--crash"), then: gaveUp},
	{what: "the guest powered off and its console told no status", vars: with(args("--exit=0"), "guest", "linux"), then: gaveUp},
	{what: "it never printed its `ready` line", vars: with(nil, "ready", "never said"), then: refused},
	{what: "it ended before it was ready", vars: with(args("--exit=3"), "ready", "never said"), then: refused},
	{what: "QEMU refused its arguments", vars: with(nil, "cpu_model", "no-such-processor"), then: refused},
	{what: "QEMU was killed", do: kill(syscall.SIGKILL), then: gaveUp},
	{what: "QEMU aborted", do: kill(syscall.SIGABRT), then: gaveUp},
	{what: "someone on the host sent QEMU SIGTERM", do: kill(syscall.SIGTERM), then: gaveUp},
	{what: "killed by `nomad alloc signal -s SIGKILL`", do: signalled("SIGKILL"), then: []string{"Started", "Signaling", "Terminated", "Not Restarting"}},
	{what: "stopped by Nomad", do: (*ended).stop, then: stopped},
	{what: "stopped by Nomad, and QEMU did not quit in time", do: (*ended).stopStill, then: stopped},
}

func args(args ...string) map[string]string {
	return map[string]string{"args": `["` + strings.Join(args, `", "`) + `"]`}
}

func with(vars map[string]string, name, value string) map[string]string {
	all := map[string]string{name: value}
	maps.Copy(all, vars)
	return all
}

// Nomad shows each kind of end as docs/ends.md says: exit code, signal, OOM
// flag and message, and the events of the task's life. The tasks run side by
// side.
func TestEnds(t *testing.T) {
	rows := documentedEnds(t)
	ctx := limit(t, 2*time.Minute)
	before := lookAtMachine(t)
	t.Cleanup(func() { nothingNew(t, before) }) // after the purges
	tasks := make([]*ended, len(endings))
	for i, row := range endings {
		must.MapContainsKey(t, rows, row.what)
		tasks[i] = &ended{T: t, ctx: ctx, jobID: fmt.Sprintf("ends-%d", i)}
		tasks[i].submit(row.vars)
	}
	for i, row := range endings {
		if row.do != nil {
			tasks[i].awaitRunning()
			row.do(tasks[i])
		}
	}
	var table strings.Builder
	out := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	for i, row := range endings {
		t.Run(row.what, func(t *testing.T) {
			tasks[i].T = t
			tasks[i].awaitEnd()
			got, types := tasks[i].shown()
			fmt.Fprintf(out, "%s\t%s\t%s\n", row.what, strings.Join(types, ", "), got.message)
			rows[row.what].compare(t, got)
			must.Eq(t, append([]string{"Received", "Task Setup"}, row.then...), types)
		})
	}
	must.NoError(t, out.Flush())
	t.Log("\n" + table.String())
}

// A start that failed on the way is tried again as the restart block says; one
// that the job's own mistake made impossible is not.
func TestEnds_StartIsTriedAgain(t *testing.T) {
	ctx := limit(t, time.Minute)
	for _, c := range []struct {
		name string
		vars map[string]string
		want string
	}{
		{"never ready", with(args("--exit=3"), "ready", "never said"), "Received, Task Setup, Driver Failure, Restarting, Driver Failure, Not Restarting"},
		{"too little memory", with(nil, "memory", "20"), "Received, Task Setup, Driver Failure, Not Restarting"},
	} {
		t.Run(c.name, func(t *testing.T) {
			task := &ended{T: t, ctx: ctx, jobID: "ends-again"}
			task.submit(with(c.vars, "restarts", "1"))
			task.awaitEnd()
			shown, types := task.shown()
			must.EqOp(t, c.want, strings.Join(types, ", "), must.Sprint(shown.message))
		})
	}
}

func (e *ended) submit(vars map[string]string) {
	e.Helper()
	job, err := harness.ParseJobFile(site.Layout.Path("e2e", "jobs", "ends.nomad.hcl"),
		with(vars, "image", filepath.Join(site.ImageDir(), "steps-"+runtime.GOARCH)))
	must.NoError(e, err)
	job.ID, job.Name = &e.jobID, &e.jobID
	purge(e.T, e.jobID)
	must.NoError(e, site.Nomad.Submit(e.ctx, job))
}

func (e *ended) awaitRunning() {
	e.Helper()
	e.await(func(allocs []*api.AllocationListStub) bool { return harness.Running(allocs, 1) })
}

func (e *ended) awaitEnd() {
	e.Helper()
	e.await(harness.Ended)
}

func (e *ended) await(until func([]*api.AllocationListStub) bool) {
	e.Helper()
	allocs, err := site.Nomad.WaitAllocs(e.ctx, e.jobID, until)
	must.NoError(e, err)
	must.Len(e, 1, allocs)
	e.alloc, err = site.Nomad.Allocation(e.ctx, allocs[0].ID)
	must.NoError(e, err)
}

// shown is what Nomad shows of the end, and the types of the events. The
// driver's own come when they come: they are only looked for.
func (e *ended) shown() (documentedEnd, []string) {
	e.Helper()
	var end documentedEnd
	var types []string
	booted := false
	for _, event := range e.alloc.TaskStates["ends"].Events {
		switch event.Type {
		case "Driver":
			booted = booted || strings.HasPrefix(event.DisplayMessage, "Booted ")
			continue
		case "Terminated":
			must.True(e, booted, must.Sprint("no event tells what was booted"))
			end = documentedEnd{code: event.Details["exit_code"], message: event.DisplayMessage}
			if signal := event.Details["signal"]; signal != "0" {
				end.signal = signal
			}
			if event.Details["oom_killed"] == "true" {
				end.oom = "yes"
			}
		case "Driver Failure", "Failed Validation":
			end = documentedEnd{code: "start fails", message: event.DisplayMessage}
		}
		types = append(types, event.Type)
	}
	return end, types
}

// qemu is the process that runs the guest.
func (e *ended) qemu() int {
	e.Helper()
	all, err := harness.QEMUs()
	must.NoError(e, err)
	for _, qemu := range all {
		if qemu.Task() == e.alloc.ID+".ends" {
			return qemu.PID
		}
	}
	e.Fatalf("no QEMU of allocation %s among %v\n%s", e.alloc.ID, all, site.Nomad.Describe(e.ctx, e.jobID))
	return 0
}

func kill(signal syscall.Signal) func(*ended) {
	return func(e *ended) { must.NoError(e, syscall.Kill(e.qemu(), signal)) }
}

func signalled(name string) func(*ended) {
	return func(e *ended) {
		must.NoError(e, site.Nomad.Client.Allocations().Signal(e.alloc, (&api.QueryOptions{}).WithContext(e.ctx), "ends", name))
	}
}

func (e *ended) stopStill() {
	kill(syscall.SIGSTOP)(e)
	e.stop()
}

func (e *ended) stop() {
	_, _, err := site.Nomad.Client.Jobs().Deregister(e.jobID, false, (&api.WriteOptions{}).WithContext(e.ctx))
	must.NoError(e, err)
}

// takeMemory leaves QEMU 8 MiB more than it uses now.
func (e *ended) takeMemory() {
	const more = 8 << 20
	dir, limit, usage := memoryGroup(e.T, e.qemu())
	data, err := os.ReadFile(filepath.Join(dir, usage))
	must.NoError(e, err)
	used, err := strconv.Atoi(strings.TrimSpace(string(data)))
	must.NoError(e, err)
	must.NoError(e, os.WriteFile(filepath.Join(dir, limit), []byte(strconv.Itoa(used+more)), 0))
}

// memoryGroup is a process's memory cgroup, and the names of its files.
func memoryGroup(t *testing.T, pid int) (dir, limit, usage string) {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	must.NoError(t, err)
	for line := range strings.Lines(string(data)) { // 9:memory:/nomad/…
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch fields[1] {
		case "memory":
			return "/sys/fs/cgroup/memory" + fields[2], "memory.limit_in_bytes", "memory.usage_in_bytes"
		case "":
			dir = "/sys/fs/cgroup" + fields[2] // of v2, if no other
		}
	}
	return dir, "memory.max", "memory.current"
}

// documentedEnd is a row of the first table in docs/ends.md.
type documentedEnd struct{ code, signal, oom, message string }

func (d documentedEnd) compare(t *testing.T, got documentedEnd) {
	t.Helper()
	must.EqOp(t, d.code, got.code, must.Sprint(got.message))
	must.EqOp(t, d.signal, got.signal)
	must.EqOp(t, d.oom, got.oom)
	if got.code == "0" {
		return // Nomad shows no message of a success; the driver's event has it
	}
	rest := got.message
	for part := range strings.SplitSeq(d.message, "…") {
		_, after, found := strings.Cut(rest, strings.TrimSpace(part))
		must.True(t, found, must.Sprintf("no %q in %q", part, got.message))
		rest = after
	}
}

func documentedEnds(t *testing.T) map[string]documentedEnd {
	t.Helper()
	text, err := os.ReadFile(site.Layout.Path("docs", "ends.md"))
	must.NoError(t, err)
	_, table, found := strings.Cut(string(text), "|---|---|---|---|---|---|\n")
	must.True(t, found)
	table, _, _ = strings.Cut(table, "\n\n")
	rows := map[string]documentedEnd{}
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		must.Len(t, 6, cells, must.Sprint(line))
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows[cells[0]] = documentedEnd{cells[1], cells[2], cells[3], cells[4]}
	}
	return rows
}
