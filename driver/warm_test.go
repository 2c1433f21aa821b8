// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/shoenig/test/must"
	"golang.org/x/sys/unix"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// warmHarness is a driver that keeps saved guests in a folder of the test's.
type warmHarness struct {
	*harness
	dir    string
	events <-chan *drivers.TaskEvent
}

func warmOption(dir string) string { return fmt.Sprintf("warm {\n dir = %q\n}", dir) }

func newWarmHarness(t *testing.T, dir string) *warmHarness {
	t.Helper()
	h := &warmHarness{harness: newHarness(t, runDir(t), warmOption(dir)), dir: dir}
	h.quiet = true
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	events, err := h.driver.TaskEvents(ctx)
	must.NoError(t, err)
	kept := make(chan *drivers.TaskEvent, 1000) // an event that nobody takes for 2 s is dropped
	go func() {
		for event := range events {
			kept <- event
		}
	}()
	h.events = kept
	return h
}

// warmTask is always the same task of the same job, in another allocation.
func (h *warmHarness) warmTask(arch guest.Arch, more string) (*drivers.TaskConfig, string) {
	h.t.Helper()
	task, port := h.newTask(stepsConfig(h.t, arch, `ports = ["http"]
		warm = true
		ready {
			port = "http"
		}
		`+more))
	task.Namespace, task.JobID, task.TaskGroupName = "default", "steps", "steps"
	task.Env["NOMAD_ALLOC_ID"] = task.AllocID
	return task, fmt.Sprintf("http://127.0.0.1:%d", port)
}

// told waits for an event of a task and returns all until it.
func (h *warmHarness) told(task *drivers.TaskConfig, what string) string {
	h.t.Helper()
	var all []string
	timeout := time.After(patience)
	for {
		select {
		case event := <-h.events:
			if event.TaskID != task.ID {
				continue
			}
			all = append(all, event.Message)
			if strings.HasPrefix(event.Message, what) {
				return strings.Join(all, "\n")
			}
		case <-timeout:
			h.t.Fatalf("no event %q, but %q", what, all)
		}
	}
}

func (h *warmHarness) end(task *drivers.TaskConfig) {
	h.t.Helper()
	must.NoError(h.t, h.StopTask(task.ID, 10*time.Second, "SIGTERM"))
	must.Eq(h.t, 15, h.wait(task).Signal)
	must.NoError(h.t, h.DestroyTask(task.ID, false))
}

func (h *warmHarness) states() []string {
	h.t.Helper()
	found, err := filepath.Glob(filepath.Join(h.dir, "*"))
	must.NoError(h.t, err)
	return found
}

func TestWarm_SecondStartRestores(t *testing.T) {
	for _, arch := range guest.Arches {
		t.Run(string(arch), func(t *testing.T) {
			h := newWarmHarness(t, filepath.Join(t.TempDir(), "warm"))
			first, url := h.warmTask(arch, "")
			h.start(first)
			h.told(first, "Booted")
			top := get(t, url+"/top")
			must.Len(t, 1, h.states())

			// Beside the first, and after it.
			for range 2 {
				again, url := h.warmTask(arch, "")
				h.start(again)
				h.told(again, "Restored a saved unikraft guest")
				must.Eq(t, top, get(t, url+"/top"))
				must.StrContains(t, get(t, url+"/env"), `"LOG":"info"`)
				h.end(again)
			}
			must.Eq(t, top, get(t, url+"/top"))
			must.Len(t, 1, h.states())
			h.end(first)
		})
	}
}

// What is restored behind a tap was saved behind another one.
func TestWarm_Bridge(t *testing.T) {
	h := newWarmHarness(t, filepath.Join(t.TempDir(), "warm"))
	for _, how := range []string{"Booted", "Restored"} {
		netns, path := newNetns(t)
		task := h.newBridgeTask(path, stepsConfig(t, guest.ARM64, `ports = ["http"]
			warm = true
			ready {
				port = "http"
			}`))
		task.JobID = "steps"
		h.start(task)
		h.told(task, how)
		answersIn(t, netns)
		h.end(task)
	}
}

func TestWarm_AnotherGuestBoots(t *testing.T) {
	h := newWarmHarness(t, filepath.Join(t.TempDir(), "warm"))
	first, _ := h.warmTask(guest.ARM64, "")
	h.start(first)
	h.told(first, "Booted")
	h.end(first)
	changes := map[string]func(task *drivers.TaskConfig){
		"environment": func(task *drivers.TaskConfig) { task.Env["LOG"] = "debug" },
		"job":         func(task *drivers.TaskConfig) { task.JobID = "other" },
		"namespace":   func(task *drivers.TaskConfig) { task.Namespace = "other" },
		"memory":      func(task *drivers.TaskConfig) { task.Resources.NomadResources.Memory.MemoryMB++ },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			task, _ := h.warmTask(guest.ARM64, "")
			change(task)
			h.start(task)
			h.told(task, "Booted")
			h.end(task)
		})
	}
	t.Run("arguments", func(t *testing.T) {
		task, _ := h.warmTask(guest.ARM64, `args = ["--other"]`)
		h.start(task)
		h.told(task, "Booted")
		h.end(task)
	})
}

// A state that cannot be used costs a boot, not the task.
func TestWarm_DamagedState(t *testing.T) {
	h := newWarmHarness(t, filepath.Join(t.TempDir(), "warm"))
	first, _ := h.warmTask(guest.ARM64, "")
	h.start(first)
	h.end(first)
	states := h.states()
	must.Len(t, 1, states)
	must.NoError(t, os.Truncate(states[0], 10000))

	task, url := h.warmTask(guest.ARM64, "")
	h.start(task)
	must.StrContains(t, h.told(task, "Booted"), "it is damaged")
	must.Eq(t, "ok\n", get(t, url+"/healthz"))
	h.end(task)

	again, _ := h.warmTask(guest.ARM64, "")
	h.start(again)
	h.told(again, "Restored")
	h.end(again)
}

// A full disk costs the state, not the task.
func TestWarm_NoRoom(t *testing.T) {
	dir := t.TempDir()
	must.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { must.NoError(t, unix.Unmount(dir, 0)) })
	h := newWarmHarness(t, dir)
	task, url := h.warmTask(guest.ARM64, "")
	h.start(task)
	must.StrContains(t, h.told(task, "Booted"), "not saved for warm starts")
	must.Eq(t, "ok\n", get(t, url+"/healthz"))
	must.SliceEmpty(t, h.states())
	h.end(task)
}

// A plugin that is killed in the middle of saving leaves neither half a state
// nor the machine.
func TestWarm_PluginDiesInASave(t *testing.T) {
	for _, at := range []step{stepSaving, stepSaved} {
		t.Run(string(at), func(t *testing.T) {
			h := newWarmHarness(t, filepath.Join(t.TempDir(), "warm"))
			task, _ := h.warmTask(guest.ARM64, "")
			dieAt(t, h.driver.runDir, task, at, warmOption(h.dir))
			must.SliceEmpty(t, h.states())

			s := &sweeper{d: h.driver, unowned: make(map[string]time.Time)}
			now := time.Now()
			s.sweep(t.Context(), now)
			s.sweep(t.Context(), now.Add(orphanAge))
			must.SliceEmpty(t, processesOf(t, h.driver.runDir))

			again, _ := h.warmTask(guest.ARM64, "")
			h.start(again)
			h.told(again, "Booted")
			h.end(again)
		})
	}
}

func TestWarm_Refuses(t *testing.T) {
	cases := []struct {
		name, options, config, say string
		change                     func(task *drivers.TaskConfig)
	}{
		{"forbidden", "warm {\n enabled = false\n}", "ready {\n port = \"http\"\n}", "warm.enabled", nil},
		{"never ready", "", "", "ready { port }", nil},
		{"port without to", "", "ready {\n port = \"http\"\n}", "no `to`", func(task *drivers.TaskConfig) {
			(*task.Resources.Ports)[0].To = 0
		}},
		{"allocation's ID", "", "ready {\n port = \"http\"\n}", "allocation's ID", func(task *drivers.TaskConfig) {
			task.Env["ME"] = task.AllocID
		}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			h := newHarness(t, runDir(t), tc.options)
			h.quiet = true
			task, _ := h.newTask(stepsConfig(t, guest.ARM64, "ports = [\"http\"]\n warm = true\n"+tc.config))
			if tc.change != nil {
				tc.change(task)
			}
			_, _, err := h.StartTask(task)
			must.ErrorContains(t, err, "config.warm")
			must.ErrorContains(t, err, tc.say)
		})
	}
}
