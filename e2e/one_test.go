// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// otherArch is the architecture that this machine is not.
func otherArch() string {
	if runtime.GOARCH == "arm64" {
		return "x86_64"
	}
	return "arm64"
}

// runOne runs jobs/one.nomad.hcl to its end and returns its allocation.
func runOne(t *testing.T, ctx context.Context, vars map[string]string) *api.Allocation {
	t.Helper()
	all := map[string]string{"image": filepath.Join(site.ImageDir(), "steps-"+runtime.GOARCH)}
	maps.Copy(all, vars)
	job, err := harness.ParseJobFile(site.Layout.Path("e2e", "jobs", "one.nomad.hcl"), all)
	must.NoError(t, err)
	return runToEnd(t, ctx, job)
}

func runToEnd(t *testing.T, ctx context.Context, job *api.Job) *api.Allocation {
	t.Helper()
	purge(t, *job.ID)
	must.NoError(t, site.Nomad.Submit(ctx, job))
	allocs, err := site.Nomad.WaitAllocs(ctx, *job.ID, harness.Ended)
	must.NoError(t, err)
	must.Len(t, 1, allocs)
	alloc, err := site.Nomad.Allocation(ctx, allocs[0].ID)
	must.NoError(t, err)
	return alloc
}

// Each mistake is refused with words that name the field, the value and what
// would do, and leaves nothing behind.
func TestRefused(t *testing.T) {
	noise := filepath.Join(site.ScratchImages(), "noise")
	must.NoError(t, os.WriteFile(noise, bytes.Repeat([]byte{0x5a, 0xa5, 0x00, 0x17}, 4096), 0o644))
	cases := []struct {
		name string
		vars map[string]string
		says []string
	}{
		{"missing image", map[string]string{"image": filepath.Join(site.ImageDir(), "absent")}, []string{"image", "absent"}},
		{"image outside the allowed folders", map[string]string{"image": "/etc/passwd"}, []string{"image", "/etc/passwd", "image_paths"}},
		{"noise instead of a kernel", map[string]string{"image": noise}, []string{"image", "noise"}},
		{"unknown architecture", map[string]string{"arch": "riscv64"}, []string{"arch", "riscv64", "arm64", "x86_64"}},
		{"image for another architecture", map[string]string{"arch": otherArch()}, []string{"arch", otherArch()}},
		{"unknown guest", map[string]string{"guest": "plan9"}, []string{"guest", "plan9", "unikraft", "mirage"}},
		{"unknown accelerator", map[string]string{"accelerator": "hvf"}, []string{"accelerator", "hvf", "tcg"}},
		{"port that the group lacks", map[string]string{"ports": `["https"]`}, []string{"ports", "https", "http"}},
		{"too little memory", map[string]string{"memory": "20"}, []string{"memory", "20"}},
		{"comma in an option", map[string]string{"machine": "virt,accel=kvm"}, []string{"machine.type", "virt,accel=kvm"}},
		{"machine type that QEMU lacks", map[string]string{"machine": "virt-1.0"}, []string{"machine.type", "virt-1.0", "use one of"}},
		{"quote in an option", map[string]string{"machine": `pc\"`}, []string{"machine.type", `pc`}},
		{"missing initrd", map[string]string{"initrd": filepath.Join(site.ImageDir(), "absent.cpio")}, []string{"initrd", "absent.cpio"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before := lookAtMachine(t)
			t.Cleanup(func() { nothingNew(t, before) }) // after the purge
			alloc := runOne(t, limit(t, time.Minute), c.vars)
			must.Eq(t, "failed", alloc.ClientStatus)
			said := failure(alloc)
			t.Log(said)
			for _, word := range c.says {
				must.StrContains(t, said, word)
			}
		})
	}
}

// failure is what Nomad shows of a task that could not be started.
func failure(alloc *api.Allocation) string {
	var said []string
	for _, state := range alloc.TaskStates {
		for _, event := range state.Events {
			if event.Type == "Driver Failure" || event.Type == "Setup Failure" || event.Type == "Failed Validation" {
				said = append(said, event.DisplayMessage)
			}
		}
	}
	return strings.Join(said, "\n")
}

// An image of another architecture than the node's runs under emulation.
func TestOtherArchitecture(t *testing.T) {
	alloc := runOne(t, limit(t, time.Minute), map[string]string{
		"image": filepath.Join(site.ImageDir(), "steps-"+otherArch()),
	})
	must.Eq(t, "complete", alloc.ClientStatus, must.Sprint(failure(alloc)))
	booted := events(alloc)
	must.StrContains(t, booted, "Booted unikraft guest on "+otherArch())
	must.StrContains(t, booted, "under tcg (emulation)")
	must.StrContains(t, booted, "this node is "+string(guest.HostArch()))
}

// events are all that Nomad shows of a task's life.
func events(alloc *api.Allocation) string {
	var said []string
	for _, state := range alloc.TaskStates {
		for _, event := range state.Events {
			said = append(said, event.DisplayMessage)
		}
	}
	return strings.Join(said, "\n")
}

// A guest's own return value is the task's.
func TestReturnValue(t *testing.T) {
	for _, c := range []struct{ arg, status string }{{"--exit=0", "complete"}, {"--exit=3", "failed"}, {"--crash", "failed"}} {
		t.Run(c.arg, func(t *testing.T) {
			alloc := runOne(t, limit(t, time.Minute), map[string]string{"args": `["` + c.arg + `"]`})
			must.Eq(t, c.status, alloc.ClientStatus)
		})
	}
}

// The smallest example boots, prints and returns 0, and its console is in
// Nomad's logs.
func TestHello(t *testing.T) {
	ctx := limit(t, time.Minute)
	job, err := harness.ParseJobFile(site.Layout.Path("examples", "hello", "hello.nomad.hcl"), map[string]string{"images": site.ImageDir()})
	must.NoError(t, err)
	alloc := runToEnd(t, ctx, job)
	must.Eq(t, "complete", alloc.ClientStatus, must.Sprint(failure(alloc)))
	logs, err := site.Nomad.Logs(ctx, alloc, "hello", "stdout")
	must.NoError(t, err)
	must.StrContains(t, logs, "main returned 0")
}
