// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build board

package suite

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"
)

const (
	plugin = "/usr/bin/nomad-driver-unikernel"
	qemu   = "/usr/bin/qemu-system-aarch64"

	// patience bounds each wait: the board is emulated, on a machine that
	// may have other work.
	patience = 3 * time.Minute
)

// What docs/arm.md tells an owner to install, as the board's script "start" did.
const (
	agentConfig  = "/etc/nomad.d/agent.hcl"     // the board's own
	driverConfig = "/etc/nomad.d/unikernel.hcl" // the package's example
	pluginDir    = "/opt/nomad/data/plugins"
	images       = "/opt/unikernels"
)

// otherConfig stands in for driverConfig where a test is about an option.
const otherConfig = `
telemetry {
  publish_allocation_metrics = true
}
plugin "nomad-driver-unikernel" {
  config {
    image_paths = [%q]
    %s
  }
}
`

// agent is a Nomad agent on the board.
type agent struct {
	*api.Client
	dir    string
	config string // of the driver
	cmd    *exec.Cmd
}

// startAgent starts an agent whose plugin has the given options (none: the
// package's example), waits until its node is ready, and stops it, with all its
// jobs, when the test ends.
func startAgent(t *testing.T, options string) *agent {
	t.Helper()
	client, err := api.NewClient(&api.Config{Address: "http://127.0.0.1:4646"})
	must.NoError(t, err)
	dir, err := os.MkdirTemp("", "agent-") // stays: Nomad mounts in it, and the board is thrown away
	must.NoError(t, err)
	a := &agent{Client: client, dir: dir, config: driverConfig}
	if options != "" {
		a.config = filepath.Join(dir, "unikernel.hcl")
		must.NoError(t, os.WriteFile(a.config, fmt.Appendf(nil, otherConfig, images, options), 0o600))
	}
	a.start(t)
	t.Cleanup(func() {
		a.stopJobs(t)
		a.stop(t)
	})
	return a
}

// start runs the agent; its log goes to the test's when the test failed.
func (a *agent) start(t *testing.T) {
	t.Helper()
	path := filepath.Join(a.dir, "log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must.NoError(t, err)
	defer log.Close()
	a.cmd = exec.Command("nomad", "agent", "-config", agentConfig, "-config", a.config,
		"-data-dir", filepath.Join(a.dir, "data"), "-plugin-dir", pluginDir)
	a.cmd.Stdout, a.cmd.Stderr = log, log
	must.NoError(t, a.cmd.Start())
	t.Cleanup(func() {
		if text, err := os.ReadFile(path); err == nil && t.Failed() {
			t.Logf("the agent's log:\n%s", text)
		}
	})
	eventually(t, "the node is ready", func() error {
		nodes, _, err := a.Nodes().List(nil)
		if err != nil {
			return err
		}
		if len(nodes) != 1 || nodes[0].Status != "ready" {
			return fmt.Errorf("nodes: %d", len(nodes))
		}
		return nil
	})
	eventually(t, "the plugin was asked", func() error {
		_, known := a.node(t).Drivers["unikernel"]
		if !known {
			return fmt.Errorf("the node knows no driver unikernel yet")
		}
		return nil
	})
}

// stop ends the agent as a service manager does: tasks go on.
func (a *agent) stop(t *testing.T) {
	t.Helper()
	must.NoError(t, a.cmd.Process.Signal(syscall.SIGTERM))
	_ = a.cmd.Wait() // its status tells nothing
}

// node is the agent's own node.
func (a *agent) node(t *testing.T) *api.Node {
	t.Helper()
	nodes, _, err := a.Nodes().List(nil)
	must.NoError(t, err)
	must.Len(t, 1, nodes)
	node, _, err := a.Nodes().Info(nodes[0].ID, nil)
	must.NoError(t, err)
	return node
}

// eventually asks again until there is no error.
func eventually(t *testing.T, what string, ask func() error) {
	t.Helper()
	// Not t.Context(), which has ended when a test cleans up.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	again := time.NewTicker(500 * time.Millisecond)
	defer again.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			t.Fatalf("waited %s until %s: %v", patience, what, err)
		}
	}
}

// pidsOf lists the processes that run a program.
func pidsOf(t *testing.T, program string) []int {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	must.NoError(t, err)
	var pids []int
	for _, link := range links {
		if exe, err := os.Readlink(link); err != nil || exe != program {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(link, "/proc/%d/exe", &pid); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// guestPIDs lists the QEMU processes of tasks: a probe's has no console.
func guestPIDs(t *testing.T) []int {
	t.Helper()
	return slices.DeleteFunc(pidsOf(t, qemu), func(pid int) bool {
		return !strings.Contains(commandLine(pid), "-chardev")
	})
}

// commandLine is a process's arguments; empty where it has ended.
func commandLine(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return ""
	}
	return strings.ReplaceAll(string(text), "\x00", " ")
}
