// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build board

package suite

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/shoenig/test/must"
)

// QEMU's cgroup has what the job reserves and no more: memory_max where one is
// given, the cores that Nomad chose, and as many threads as the driver allows.
func testLimits(t *testing.T, a *agent) {
	config, _, err := a.Operator().SchedulerGetConfiguration(nil)
	must.NoError(t, err)
	config.SchedulerConfig.MemoryOversubscriptionEnabled = true
	_, _, err = a.Operator().SchedulerSetConfiguration(config.SchedulerConfig, nil)
	must.NoError(t, err)

	const reserves = "cpu    = 100\n"
	must.StrContains(t, stepsJob, reserves)
	job := strings.Replace(stepsJob, reserves, "cores = 1\nmemory_max = 160\n", 1)
	alloc := a.runHCL(t, job, `args = ["--fill-memory"]`, running)
	mustAnswer(t, a.address(t))
	must.Eq(t, 160, alloc.AllocatedResources.Tasks["steps"].Memory.MemoryMaxMB)

	pids := guestPIDs(t)
	must.Len(t, 1, pids)
	_, core := cgroupValue(t, pids[0], "cpuset/cpuset.cpus", "cpuset.cpus")
	_, err = strconv.Atoi(core) // one of the board's
	must.NoError(t, err)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pids[0]))
	must.NoError(t, err)
	must.StrContains(t, string(status), "Cpus_allowed_list:\t"+core+"\n")
	for _, limit := range []struct{ v1, v2, value string }{
		{"memory/memory.limit_in_bytes", "memory.max", strconv.Itoa(160 << 20)},
		{"memory/memory.soft_limit_in_bytes", "memory.low", strconv.Itoa(64 << 20)},
		{"pids/pids.max", "pids.max", "64"},
	} {
		path, value := cgroupValue(t, pids[0], limit.v1, limit.v2)
		t.Log(path, value)
		must.EqOp(t, limit.value, value, must.Sprint(path))
	}
}

// cgroupValue reads a limit of a process: on cgroup v1 in the group of the
// controller that v1 begins with, else in its only group.
func cgroupValue(t *testing.T, pid int, v1, v2 string) (path, value string) {
	t.Helper()
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	must.NoError(t, err)
	controller, file, _ := strings.Cut(v1, "/")
	for line := range strings.Lines(string(groups)) { // 9:memory:/…, or 0::/…
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case fields[1] == controller:
			path = filepath.Join("/sys/fs/cgroup", controller, fields[2], file)
		case fields[1] == "" && path == "":
			path = filepath.Join("/sys/fs/cgroup", fields[2], v2)
		}
	}
	text, err := os.ReadFile(path)
	must.NoError(t, err)
	return path, strings.TrimSpace(string(text))
}

// QEMU over its limit ends, and Nomad says why.
func TestOutOfMemory(t *testing.T) {
	a := startAgent(t, `memory_overhead = "1MiB"`)
	alloc := a.run(t, `memory = 32
args = ["--start-delay=3", "--fill-memory"]`, failed)
	t.Log(told(alloc))
	must.Eq(t, "true", end(t, alloc).Details["oom_killed"])
}

// Without the right to open /dev/kvm, a node says so, and guests are emulated
// only where the job allows it.
func TestKVMRefused(t *testing.T) {
	refuseKVM(t)
	a := startAgent(t, `emulation = true`)
	attributes := a.node(t).Attributes
	must.Eq(t, "false", attributes["driver.unikernel.kvm"])
	must.StrContains(t, attributes["driver.unikernel.kvm.reason"], "may not open /dev/kvm")
	must.Eq(t, "tcg", attributes["driver.unikernel.arch.arm64"])

	alloc := a.run(t, `accelerator = "kvm"`, failed)
	must.StrContains(t, told(alloc), "may not open /dev/kvm")
	a.stopJobs(t)

	alloc = a.run(t, ``, running)
	must.StrContains(t, told(alloc), "emulation")
	mustAnswer(t, a.address(t))
	a.stopJobs(t)

	// Given the right, a job that insists makes the driver look again, and the
	// node says so.
	must.NoError(t, os.Chmod("/dev/kvm", 0o660))
	a.run(t, `accelerator = "kvm"`, running)
	mustRunUnderKVM(t)
	eventually(t, "the node has KVM", func() error {
		attributes := a.node(t).Attributes
		_, reason := attributes["driver.unikernel.kvm.reason"]
		if attributes["driver.unikernel.kvm"] != "true" || reason {
			return fmt.Errorf("it has %v", attributes)
		}
		return nil
	})
}

// Where the operator allows emulation, a guest of another architecture runs by
// it, and so does one whose job asks for it; both are told.
func TestEmulated(t *testing.T) {
	a := startAgent(t, `emulation = true`)
	must.Eq(t, "kvm", a.node(t).Attributes["driver.unikernel.arch.arm64"])
	must.Eq(t, "tcg", a.node(t).Attributes["driver.unikernel.arch.x86_64"])

	alloc := a.run(t, `image = "`+images+`/steps-x86_64"`, running)
	must.StrContains(t, told(alloc), "on x86_64 with")
	must.StrContains(t, told(alloc), "under tcg (emulation): pc, cpu max, virtio over PCI; this node is arm64")
	mustAnswer(t, a.address(t))
	a.stopJobs(t)

	alloc = a.run(t, `accelerator = "tcg"`, running)
	must.StrContains(t, told(alloc), "under tcg (emulation): virt, cpu max, GICv2, virtio over MMIO")
	mustAnswer(t, a.address(t))
}

// Where the operator forbids emulation, a node without KVM takes no guest.
func TestEmulationForbidden(t *testing.T) {
	refuseKVM(t)
	a := startAgent(t, `emulation = false`)
	driver := a.node(t).Drivers["unikernel"]
	must.False(t, driver.Detected)
	must.StrContains(t, driver.HealthDescription, "emulation = false")

	response := a.submit(t, ``)
	eventually(t, "the evaluation is over", func() error {
		eval, _, err := a.Evaluations().Info(response.EvalID, nil)
		if err != nil {
			return err
		}
		if eval.Status == "pending" {
			return os.ErrDeadlineExceeded
		}
		must.MapContainsKey(t, eval.FailedTGAllocs, "steps")
		return nil
	})
}

// refuseKVM takes the right to open /dev/kvm from QEMU's user.
func refuseKVM(t *testing.T) {
	t.Helper()
	must.NoError(t, os.Chmod("/dev/kvm", 0))
	t.Cleanup(func() { must.NoError(t, os.Chmod("/dev/kvm", 0o660)) })
}
