// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

func TestReady_Pattern(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	task, _ := h.newTask(stepsConfig(t, guest.ARM64, `ready {
		pattern = "listening on port [0-9]+"
	}`))
	h.start(task)
}

// A guest whose port accepts answers the first request, without a retry.
func TestReady_Port(t *testing.T) {
	for _, arch := range guest.Arches {
		t.Run(string(arch), func(t *testing.T) {
			h := newHarness(t, runDir(t), "")
			task, port := h.newTask(stepsConfig(t, arch, `ports = ["http"]
				args = ["--start-delay=1"]
				ready { port = "http" }`))
			h.start(task)
			response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/healthz", port))
			must.NoError(t, err)
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			must.NoError(t, err)
			must.Eq(t, "ok\n", string(body))
		})
	}
}

func TestReady_Never(t *testing.T) {
	cases := []struct {
		name   string
		config string
		say    []string
	}{
		{"another line", `ready {
			pattern = "never said"
			timeout = "1s"
		}`, []string{"ready.pattern", "never said", "1s", "listening on port"}},
		{"another port", `ports = ["http"]
			args = ["--port=9999"]
			ready {
				port    = "http"
				timeout = "1s"
			}`, []string{"ready.port", "http", "8080", "1s", "listening on port 9999"}},
		{"hangs before it has a network", `ports = ["http"]
			args = ["--start-delay=1000"]
			ready {
				port    = "http"
				timeout = "1s"
			}`, []string{"ready.port", "accepted no connection", "1s"}},
		{"ends before it listens", `ports = ["http"]
			args = ["--exit=3"]
			ready { port = "http" }`, []string{"ended before it was ready", "returned 3"}},
		{"ends before it says so", `args = ["--crash"]
			ready { pattern = "never said" }`, []string{"ended before it was ready", "crashed"}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			h := newHarness(t, runDir(t), "")
			h.quiet = true
			task, _ := h.newTask(stepsConfig(t, guest.ARM64, tc.config))
			_, _, err := h.StartTask(task)
			for _, say := range tc.say {
				must.ErrorContains(t, err, say)
			}
			t.Log(err)
		})
	}
}

// QEMU that is killed in the middle of a start says so, and not that it hung up.
func TestStartTask_OutOfMemory(t *testing.T) {
	h := newHarness(t, runDir(t), `memory_overhead = "1MiB"`)
	h.quiet = true
	task, _ := h.newTask(stepsConfig(t, guest.ARM64, `ready { pattern = "never said" }`))
	task.Resources.NomadResources.Memory.MemoryMB = 9
	_, _, err := h.StartTask(task)
	must.ErrorContains(t, err, "out of memory")
	must.ErrorContains(t, err, "resources.memory")
	t.Log(err)
}
