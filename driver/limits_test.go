// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/shoenig/test/must"
	"golang.org/x/sys/unix"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// The hard limit is memory_max where the job gives one, else memory; QEMU's own
// share is part of both, and the guest's RAM is the same.
func TestTask_MemoryMax(t *testing.T) {
	for name, c := range map[string]struct{ max, limit int64 }{
		"memory alone":    {0, 64},
		"memory_max":      {160, 160},
		"less than it is": {32, 64},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, runDir(t), "")
			task, _ := h.newTask(stepsConfig(t, guest.ARM64, ""))
			task.Resources.NomadResources.Memory.MemoryMaxMB = c.max
			pid := startedQEMU(t, h, task)
			must.EqOp(t, c.limit<<20, memoryLimit(t, pid))
			settings, _, err := h.driver.configured()
			must.NoError(t, err)
			must.StrContains(t, commandLineOf(t, pid), fmt.Sprintf("\x00-m\x00%dM\x00", 64-settings.overheadMiB))
		})
	}
}

// What takes QEMU over memory (TestTask_OutOfMemory) it survives with
// memory_max.
func TestTask_MemoryMaxIsRoom(t *testing.T) {
	h := newHarness(t, runDir(t), `memory_overhead = "1MiB"`)
	task, port := h.newTask(stepsConfig(t, guest.ARM64, "ports = [\"http\"]\n args = [\"--fill-memory\"]"))
	task.Resources.NomadResources.Memory.MemoryMaxMB = 160
	h.start(task)
	must.Eq(t, "ok\n", get(t, fmt.Sprintf("http://127.0.0.1:%d/healthz", port)))
}

// A task that reserves next to nothing is started with more, and has its own
// weight once it is up.
func TestTask_CPUShares(t *testing.T) {
	for own, starting := range map[int64]int64{10: startShares, 1000: 1000} {
		t.Run(fmt.Sprint(own), func(t *testing.T) {
			h := newHarness(t, runDir(t), "")
			task, _ := h.newTask(stepsConfig(t, guest.ARM64, `ready { pattern = "Calling main" }`))
			task.Resources.LinuxResources.CPUShares = own
			task.Resources.LinuxResources.CpusetCpus = "0"
			task.Resources.LinuxResources.CpusetCgroupPath = clientsGroup(t, task)
			var before string
			h.driver.onStep = func(s step) {
				if s == stepBooted { // QEMU lets the guest run, which is not ready yet
					before = cpuWeight(t, task)
				}
			}
			startedQEMU(t, h, task)
			must.EqOp(t, asWeight(t, starting), before)
			must.EqOp(t, asWeight(t, own), cpuWeight(t, task))
		})
	}
}

// cpuWeight is what the kernel has as the weight of a task's processes.
func cpuWeight(t *testing.T, task *drivers.TaskConfig) string {
	t.Helper()
	for _, dir := range cgroupsOf(t, task) {
		for _, file := range []string{"cpu.shares", "cpu.weight"} {
			if text, err := os.ReadFile(filepath.Join(dir, file)); err == nil {
				return strings.TrimSpace(string(text))
			}
		}
	}
	t.Fatal("no cgroup of the task has a weight")
	return ""
}

func asWeight(t *testing.T, shares int64) string {
	t.Helper()
	if !isCgroup1(t) {
		shares = int64(cgroup2.ConvertCPUSharesToCgroupV2Value(uint64(shares)))
	}
	return strconv.FormatInt(shares, 10)
}

// Every thread of QEMU runs on the cores that Nomad reserved, and on no other.
func TestTask_Cores(t *testing.T) {
	last := strconv.Itoa(runtime.NumCPU() - 1)
	h := newHarness(t, runDir(t), "")
	task, _ := h.newTask(stepsConfig(t, guest.ARM64, ""))
	task.Resources.LinuxResources.CpusetCpus = last
	task.Resources.LinuxResources.CpusetCgroupPath = clientsGroup(t, task)
	pid := startedQEMU(t, h, task)
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	must.NoError(t, err)
	must.Greater(t, 1, len(threads))
	for _, thread := range threads {
		status, err := os.ReadFile(thread)
		must.NoError(t, err)
		must.StrContains(t, string(status), "Cpus_allowed_list:\t"+last+"\n")
	}
	must.NoError(t, h.DestroyTask(task.ID, true))
	must.DirExists(t, task.Resources.LinuxResources.CpusetCgroupPath) // the client's to remove
}

// clientsGroup makes the group that a Nomad client makes for a task: of cpuset
// on cgroup v1, the task's whole scope on v2.
func clientsGroup(t *testing.T, task *drivers.TaskConfig) string {
	t.Helper()
	name := "unikernel-test-" + task.AllocID
	dir := filepath.Join("/sys/fs/cgroup/cpuset", name)
	if !isCgroup1(t) {
		dir = filepath.Join("/sys/fs/cgroup", name)
	}
	must.NoError(t, os.Mkdir(dir, 0o755))
	t.Cleanup(func() { must.NoError(t, os.Remove(dir)) })
	if isCgroup1(t) { // where a group without them takes no process
		must.NoError(t, os.WriteFile(filepath.Join(dir, "cpuset.mems"), []byte("0"), 0o644))
	}
	return dir
}

func isCgroup1(t *testing.T) bool {
	t.Helper()
	var fs unix.Statfs_t
	must.NoError(t, unix.Statfs("/sys/fs/cgroup", &fs))
	return fs.Type != unix.CGROUP2_SUPER_MAGIC
}

func startedQEMU(t *testing.T, h *harness, task *drivers.TaskConfig) int {
	t.Helper()
	var state taskState
	must.NoError(t, h.start(task).GetDriverState(&state))
	return state.Machine.PID
}

func commandLineOf(t *testing.T, pid int) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	must.NoError(t, err)
	return string(data)
}

// memoryLimit is the hard limit of a process's memory cgroup, in bytes.
func memoryLimit(t *testing.T, pid int) int64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	must.NoError(t, err)
	path := ""
	for line := range strings.Lines(string(data)) { // 9:memory:/…, or 0::/…
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case fields[1] == "memory":
			path = filepath.Join("/sys/fs/cgroup/memory", fields[2], "memory.limit_in_bytes")
		case fields[1] == "" && path == "":
			path = filepath.Join("/sys/fs/cgroup", fields[2], "memory.max")
		}
	}
	text, err := os.ReadFile(path)
	must.NoError(t, err)
	limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	must.NoError(t, err)
	return limit
}
