// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

// A unikernel's log reaches `nomad alloc logs`, without a process for it where
// the driver collects logs, and its console `nomad alloc exec`; it is saved,
// and started again from what was saved.
func TestConsole(t *testing.T) {
	ctx := limit(t, 4*time.Minute)
	before := lookAtMachine(t)
	t.Cleanup(func() { nothingNew(t, before) })
	withNode(t, harness.NodeExtras{Driver: fmt.Sprintf(`
		logs {
			collector = "driver"
		}
		warm {
			dir = %q
		}`, filepath.Join(t.TempDir(), "warm"))})
	job := parseJob(t, site.Layout.Path("e2e", "jobs", "console.nomad.hcl"), map[string]string{"images": site.ImageDir()})
	purge(t, *job.ID)

	alloc := runConsole(t, ctx, job)
	checkEvent(t, alloc, "Booted")
	checkEvent(t, alloc, "Saved the guest for warm starts")
	must.SliceEmpty(t, logmons(t, alloc.ID))
	checkLogs(t, ctx, alloc, "listening on port")
	checkConsole(t, ctx, alloc)
	checkLogs(t, ctx, alloc, `typed "hello there"`)

	_, err := site.Nomad.Client.Allocations().Stop(alloc, nil)
	must.NoError(t, err)
	again := awaitConsole(t, ctx, *job.ID, alloc.ID)
	checkEvent(t, again, "Restored a saved unikraft guest")
	checkConsole(t, ctx, again)
	checkTop(t, ctx)
}

func checkTop(t *testing.T, ctx context.Context) {
	t.Helper()
	at, err := site.Nomad.Instances(ctx, "console", 1)
	must.NoError(t, err)
	var top userAverage
	must.NoError(t, get(ctx, at[0], "/top", &top))
	must.Eq(t, averages(t).top(), top)
}

func runConsole(t *testing.T, ctx context.Context, job *api.Job) *api.Allocation {
	t.Helper()
	must.NoError(t, site.Nomad.RunService(ctx, job))
	return awaitConsole(t, ctx, *job.ID, "")
}

// awaitConsole waits for an allocation that runs, and is not a certain one.
func awaitConsole(t *testing.T, ctx context.Context, jobID, not string) *api.Allocation {
	t.Helper()
	var id string
	_, err := site.Nomad.WaitAllocs(ctx, jobID, func(all []*api.AllocationListStub) bool {
		for _, alloc := range all {
			if alloc.ClientStatus == "running" && alloc.ID != not {
				id = alloc.ID
			}
		}
		return id != ""
	})
	must.NoError(t, err)
	alloc, err := site.Nomad.Allocation(ctx, id)
	must.NoError(t, err)
	return alloc
}

func checkEvent(t *testing.T, alloc *api.Allocation, text string) {
	t.Helper()
	var messages []string
	for _, event := range alloc.TaskStates["steps"].Events {
		messages = append(messages, event.DisplayMessage)
	}
	must.StrContains(t, strings.Join(messages, "\n"), text)
}

// logmons are Nomad's log processes of an allocation.
func logmons(t *testing.T, allocID string) []string {
	t.Helper()
	pipes, err := filepath.Glob("/proc/[0-9]*/fd/*")
	must.NoError(t, err)
	var found []string
	for _, pipe := range pipes {
		target, _ := os.Readlink(pipe) // some have gone meanwhile
		if strings.Contains(target, allocID) && strings.HasSuffix(target, ".fifo") {
			found = append(found, pipe+" -> "+target)
		}
	}
	return found
}

func checkLogs(t *testing.T, ctx context.Context, alloc *api.Allocation, text string) {
	t.Helper()
	frames, errs := site.Nomad.Client.AllocFS().Logs(alloc, true, "steps", "stdout", "start", 0, ctx.Done(), nil)
	var log strings.Builder
	for !strings.Contains(log.String(), text) {
		select {
		case frame := <-frames:
			must.NotNil(t, frame, must.Sprintf("the log ended without %q: %s", text, &log))
			log.Write(frame.Data)
		case err := <-errs:
			must.NoError(t, err)
		case <-ctx.Done():
			t.Fatalf("no %q in the log: %s", text, &log)
		}
	}
}

// checkConsole types a line as `nomad alloc exec ALLOC console` does.
func checkConsole(t *testing.T, ctx context.Context, alloc *api.Allocation) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, typed := io.Pipe()
	shown, out := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := site.Nomad.Client.Allocations().Exec(ctx, alloc, "steps", false, []string{"console"}, in, out, out, nil, nil)
		out.CloseWithError(io.EOF)
		ended <- err
	}()
	go func() { _, _ = io.WriteString(typed, "hello there\n") }()
	var all strings.Builder
	buffer := make([]byte, 1024)
	for !strings.Contains(all.String(), `typed "hello there"`) {
		n, err := shown.Read(buffer)
		all.Write(buffer[:n])
		must.NoError(t, err, must.Sprint(&all))
	}
	must.StrContains(t, all.String(), "Console of steps")
	cancel()
	shown.Close()
	<-ended

	status, said := tool(t, t.Context(), []string{"NOMAD_ADDR=" + site.Nomad.Address},
		"nomad", "alloc", "exec", "-i=false", "-t=false", alloc.ID, "/bin/sh")
	must.Eq(t, 127, status)
	must.StrContains(t, said, "nomad alloc exec ALLOC console")
}
