// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build board

package suite

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"
)

// Client states of an allocation.
const (
	running  = api.AllocClientStatusRunning
	complete = api.AllocClientStatusComplete
	failed   = api.AllocClientStatusFailed
)

// hostGIC is the one interrupt controller that the board's KVM offers.
func hostGIC(t *testing.T) string {
	t.Helper()
	gic := os.Getenv("BOARD_GIC")
	must.NotEq(t, "", gic, must.Sprint("BOARD_GIC is not set: run this by `make e2e-arm`"))
	return gic
}

func TestBoard(t *testing.T) {
	a := startAgent(t, "")
	for _, test := range []struct {
		name string
		run  func(*testing.T, *agent)
	}{
		{"fingerprint", testFingerprint},
		{"host network", testHostNetwork},
		{"bridge network", testBridgeNetwork},
		{"guest fills its memory", testFullMemory},
		{"limits", testLimits},
		{"ends", testEnds},
		{"GIC that the host lacks", testOtherGIC},
		{"image for another GIC", testImageForOtherGIC},
		{"another architecture", testEmulationForbidden},
		{"plugin killed", testPluginKilled},
		{"agent restarted", testAgentRestarted},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Cleanup(func() { a.stopJobs(t) })
			test.run(t, a)
		})
	}
}

func testFingerprint(t *testing.T, a *agent) {
	node := a.node(t)
	driver := node.Drivers["unikernel"]
	must.True(t, driver.Healthy, must.Sprint(driver.HealthDescription))
	for name, want := range map[string]string{
		"driver.unikernel.kvm":        "true",
		"driver.unikernel.gic":        hostGIC(t),
		"driver.unikernel.arch.arm64": "kvm",
		// What a guest gets whose job says nothing of it.
		"driver.unikernel.machine.arm64":  "virt",
		"driver.unikernel.machines.arm64": "virt",
		"driver.unikernel.cpu.arm64":      "host",
		"driver.unikernel.virtio.arm64":   "mmio",
	} {
		must.Eq(t, want, node.Attributes[name], must.Sprint(name))
	}
	must.StrHasPrefix(t, "7.", node.Attributes["driver.unikernel.qemu.arm64.version"])
	must.MapNotContainsKey(t, node.Attributes, "driver.unikernel.kvm.reason")
	must.StrHasPrefix(t, "7.", node.Attributes["driver.unikernel.qemu.x86_64.version"])
	must.MapNotContainsKey(t, node.Attributes, "driver.unikernel.arch.x86_64") // the package's example forbids emulation
}

func testHostNetwork(t *testing.T, a *agent) {
	alloc := a.run(t, ``, running)
	address := a.address(t)
	mustAnswer(t, address)
	mustRunUnderKVM(t)
	must.StrContains(t, told(alloc), fmt.Sprintf("under kvm: virt, cpu host, GICv%s, virtio over MMIO", hostGIC(t)))

	var memory *api.MemoryStats
	var cpu *api.CpuStats
	eventually(t, "there are figures", func() error {
		usage, err := a.Allocations().Stats(alloc, nil)
		if err != nil {
			return err
		}
		memory, cpu = usage.ResourceUsage.MemoryStats, usage.ResourceUsage.CpuStats
		if len(memory.Measured) == 0 || cpu.Percent == 0 {
			return fmt.Errorf("memory %+v, cpu %+v", memory, cpu)
		}
		return nil
	})
	t.Logf("memory %+v", memory)
	t.Logf("cpu %+v", cpu)
	must.Between(t, 8<<20, max(memory.RSS, memory.Usage), 64<<20)
	t.Log(told(alloc))
}

func testBridgeNetwork(t *testing.T, a *agent) {
	a.run(t, `mode = "bridge"
to = 8080`, running)
	mustAnswer(t, a.address(t))
	mustRunUnderKVM(t)
}

// mustRunUnderKVM looks at the one QEMU that runs.
func mustRunUnderKVM(t *testing.T) {
	t.Helper()
	pids := guestPIDs(t)
	must.Len(t, 1, pids)
	args := commandLine(pids[0])
	must.StrContains(t, args, "kvm")
	must.StrNotContains(t, args, "tcg")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pids[0]))
	must.NoError(t, err)
	must.StrNotContains(t, string(status), "Uid:\t0") // an unprivileged user
}

// A guest that writes to all its memory goes on.
func testFullMemory(t *testing.T, a *agent) {
	a.run(t, `args = ["--fill-memory"]`, running)
	mustAnswer(t, a.address(t))
}

// Each end is told as the guest told it. To a service job every end is a
// failure, so the event is looked at.
func testEnds(t *testing.T, a *agent) {
	for _, test := range []struct {
		arg      string
		exitCode string
		told     string
	}{
		{"--exit=0", "0", "returned 0"},
		{"--exit=7", "7", "returned 7"},
		{"--crash", "134", "crashed"},
	} {
		t.Run(test.arg, func(t *testing.T) {
			alloc := a.run(t, fmt.Sprintf("args = [%q]", test.arg), failed)
			t.Log(told(alloc))
			must.Eq(t, test.exitCode, end(t, alloc).Details["exit_code"])
			must.StrContains(t, told(alloc), test.told)
		})
	}
}

// otherGIC is the version that the host's KVM does not offer.
func otherGIC(t *testing.T) string {
	t.Helper()
	return map[string]string{"2": "3", "3": "2"}[hostGIC(t)]
}

// A job that asks for an interrupt controller which the host lacks.
func testOtherGIC(t *testing.T, a *agent) {
	alloc := a.run(t, fmt.Sprintf(`gic = %q`, otherGIC(t)), failed)
	t.Log(told(alloc))
	must.StrContains(t, told(alloc), fmt.Sprintf("config.machine.gic = %q, and KVM on this node offers its guests GICv%s only", otherGIC(t), hostGIC(t)))
}

// An image that drives one interrupt controller, on a host that has the other:
// refused before QEMU starts, where it would hang. The image is steps without
// the name by which it finds the host's.
func testImageForOtherGIC(t *testing.T, a *agent) {
	kernel, err := os.ReadFile(filepath.Join(images, "steps-arm64"))
	must.NoError(t, err)
	name := map[string]string{"2": "arm,cortex-a15-gic", "3": "arm,gic-v3"}[hostGIC(t)]
	must.StrContains(t, string(kernel), name)
	blind := bytes.ReplaceAll(kernel, []byte(name), bytes.Repeat([]byte("-"), len(name)))
	path := filepath.Join(images, "steps-blind")
	must.NoError(t, os.WriteFile(path, blind, 0o644))

	alloc := a.run(t, fmt.Sprintf(`image = %q`, path), failed)
	t.Log(told(alloc))
	must.StrContains(t, told(alloc), fmt.Sprintf("the image's kernel drives GICv%s only, and KVM on this node offers its guests GICv%s only", otherGIC(t), hostGIC(t)))
}

// The package's example forbids emulation, without which no guest of another
// architecture runs.
func testEmulationForbidden(t *testing.T, a *agent) {
	alloc := a.run(t, fmt.Sprintf(`image = "%s/steps-x86_64"`, images), failed)
	t.Log(told(alloc))
	must.StrContains(t, told(alloc), "a guest for x86_64 cannot run on this node")
	must.StrContains(t, told(alloc), "emulation = false")
}

// QEMU outlives the plugin, and the next plugin finds it.
func testPluginKilled(t *testing.T, a *agent) {
	alloc := a.run(t, ``, running)
	address := a.address(t)
	mustAnswer(t, address)
	before := guestPIDs(t)
	plugins := pidsOf(t, plugin)
	must.Len(t, 1, plugins)
	must.NoError(t, syscall.Kill(plugins[0], syscall.SIGKILL))

	eventually(t, "there is a new plugin", func() error {
		if now := pidsOf(t, plugin); len(now) != 1 || now[0] == plugins[0] {
			return fmt.Errorf("plugins: %v", now)
		}
		return nil
	})
	mustAnswer(t, address)
	mustStop(t, a, alloc, before)
}

// QEMU outlives the agent, and the next agent finds it.
func testAgentRestarted(t *testing.T, a *agent) {
	alloc := a.run(t, ``, running)
	address := a.address(t)
	mustAnswer(t, address)
	before := guestPIDs(t)
	a.stop(t)
	mustAnswer(t, address)
	a.start(t)
	mustAnswer(t, address)
	mustStop(t, a, alloc, before)
}

// mustStop checks that the same QEMU runs on, and that Nomad can end it.
func mustStop(t *testing.T, a *agent, alloc *api.Allocation, before []int) {
	t.Helper()
	must.Eq(t, before, guestPIDs(t))
	alloc = a.await(t, alloc.ID, running)
	a.stopJobs(t)
	alloc = a.await(t, alloc.ID, complete, failed)
	t.Log(told(alloc))
	must.Eq(t, complete, alloc.ClientStatus)
	must.SliceEmpty(t, guestPIDs(t))
}
