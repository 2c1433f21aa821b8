// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoenig/test/must"
	"golang.org/x/sys/unix"
)

// scope makes a folder with the files of a v2 group, to see what is read from
// them and written to them on hosts that have no v2 controllers.
func scope(t *testing.T, files map[string]string) (root, path string) {
	t.Helper()
	root = t.TempDir()
	path = filepath.Join(root, "nomad.slice", "share.slice", "alloc.task.scope")
	must.NoError(t, os.MkdirAll(path, 0o755))
	for name, text := range files {
		must.NoError(t, os.WriteFile(filepath.Join(path, name), []byte(text), 0o644))
	}
	return root, path
}

// scopeFiles are those of a group that ran for a while (Linux 6.1).
func scopeFiles() map[string]string {
	return map[string]string{
		"cgroup.controllers":  "cpuset cpu io memory hugetlb pids\n",
		"cgroup.procs":        "12\n345\n",
		"cpu.weight":          "100\n",
		"cpu.stat":            "usage_usec 3000\nuser_usec 1000\nsystem_usec 2000\nnr_periods 9\nnr_throttled 4\nthrottled_usec 5\nnr_bursts 0\nburst_usec 0\n",
		"memory.current":      "70000000\n",
		"memory.events":       "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n",
		"memory.low":          "0\n",
		"memory.max":          "max\n",
		"memory.peak":         "80000000\n",
		"memory.stat":         "anon 50000000\nfile 9000000\nkernel 3000\nkernel_stack 1000\nsock 10\nslab 100\n",
		"memory.swap.current": "4096\n",
		"memory.swap.max":     "max\n",
		"pids.max":            "max\n",
	}
}

func TestV2Writes(t *testing.T) {
	root, path := scope(t, scopeFiles())
	group, err := create(Spec{Path: path, Limits: Limits{CPUShares: 1024, MemoryMiB: 64, MemoryMaxMiB: 96, Pids: 64, Cpuset: "1-2"}}, V2, root)
	must.NoError(t, err)
	for file, want := range map[string]string{
		"cpu.weight":      "100",
		"cpuset.cpus":     "1-2",
		"memory.max":      strconv.Itoa(96 * mib),
		"memory.low":      strconv.Itoa(64 * mib),
		"memory.swap.max": "0",
		"pids.max":        "64",
	} {
		must.EqOp(t, want, readFile(t, filepath.Join(path, file)), must.Sprint(file))
	}
	must.Eq(t, State{Mode: V2, Path: path, OOMKills: 2}, group.State())

	must.NoError(t, group.SetCPUShares(2))
	must.EqOp(t, "1", readFile(t, filepath.Join(path, "cpu.weight")))
	must.EqOp(t, "1-2", readFile(t, filepath.Join(path, "cpuset.cpus"))) // which stays

	must.NoError(t, group.Delete())
	must.DirExists(t, path)
}

func TestV2SetsNothingThatIsNotWanted(t *testing.T) {
	files := scopeFiles()
	delete(files, "memory.swap.max")
	root, path := scope(t, files)
	_, err := create(Spec{Path: path}, V2, root)
	must.NoError(t, err)
	for _, file := range []string{"memory.max", "pids.max"} {
		must.EqOp(t, "max", readFile(t, filepath.Join(path, file)), must.Sprint(file))
	}
	must.EqOp(t, "100", readFile(t, filepath.Join(path, "cpu.weight")))
	must.FileNotExists(t, filepath.Join(path, "memory.swap.max"))
}

func TestV2Reads(t *testing.T) {
	root, path := scope(t, scopeFiles())
	group, err := load(State{Mode: V2, Path: path}, root)
	must.NoError(t, err)

	stats, err := group.Stats()
	must.NoError(t, err)
	must.Eq(t, Stats{
		CPU:    CPU{Total: 3_000_000, User: 1_000_000, System: 2_000_000, ThrottledPeriods: 4, ThrottledTime: 5_000},
		Memory: Memory{RSS: 50_000_000, Cache: 9_000_000, Swap: 4096, Usage: 70_000_000, MaxUsage: 80_000_000, Kernel: 1110},
	}, stats)
	used, err := group.CPUTime()
	must.NoError(t, err)
	must.EqOp(t, 3*time.Millisecond, used)
	pids, err := group.Processes()
	must.NoError(t, err)
	must.Eq(t, []int{12, 345}, pids)
	kills, err := group.OOMKills()
	must.NoError(t, err)
	must.EqOp(t, 2, kills)

	must.NoError(t, os.Remove(filepath.Join(path, "memory.peak")))
	stats, err = group.Stats()
	must.NoError(t, err)
	must.EqOp(t, 0, stats.Memory.MaxUsage)
}

func TestV2KillsCountFromCreate(t *testing.T) {
	root, path := scope(t, scopeFiles())
	cases := []struct {
		base, want uint64
	}{{0, 2}, {1, 1}, {2, 0}, {5, 2}}
	for _, tc := range cases {
		group, err := load(State{Mode: V2, Path: path, OOMKills: tc.base}, root)
		must.NoError(t, err)
		kills, err := group.OOMKills()
		must.NoError(t, err)
		must.EqOp(t, tc.want, kills)
	}
}

func TestV2Unreadable(t *testing.T) {
	for _, file := range []string{"cpu.stat", "memory.stat"} {
		files := scopeFiles()
		files[file] = "not a number\n"
		root, path := scope(t, files)
		group, err := load(State{Mode: V2, Path: path}, root)
		must.NoError(t, err)
		_, err = group.Stats()
		must.ErrorContains(t, err, file)
	}
	files := scopeFiles()
	files["cpu.stat"] = "usage_usec many\n"
	root, path := scope(t, files)
	group, err := load(State{Mode: V2, Path: path}, root)
	must.NoError(t, err)
	_, err = group.CPUTime()
	must.ErrorContains(t, err, "usage_usec")
}

func TestV2MissingController(t *testing.T) {
	files := scopeFiles()
	files["cgroup.controllers"] = "cpuset cpu pids\n"
	root, path := scope(t, files)
	_, err := create(Spec{Path: path}, V2, root)
	must.ErrorIs(t, err, ErrUnavailable)
	must.ErrorContains(t, err, "not memory")
}

func TestV2Gone(t *testing.T) {
	root, path := scope(t, scopeFiles())
	group, err := create(Spec{Path: path}, V2, root)
	must.NoError(t, err)
	must.NoError(t, os.RemoveAll(path))
	_, err = group.Stats()
	must.ErrorIs(t, err, ErrGone)
	_, err = group.CPUTime()
	must.ErrorIs(t, err, ErrGone)
	_, err = group.OOMKills()
	must.ErrorIs(t, err, ErrGone)
	_, err = group.Processes()
	must.ErrorIs(t, err, ErrGone)
	must.ErrorIs(t, group.AddProcess(1), ErrGone)
	must.NoError(t, group.Delete())
}

// TestV2Kernel joins a group of the kernel's own v2 hierarchy, where the host
// has one mounted: on hybrid hosts it has no controllers, but processes and
// their time.
func TestV2Kernel(t *testing.T) {
	unified := mountpoint
	if HostMode() == V1 {
		unified = filepath.Join(mountpoint, "unified")
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(unified, &fs); err != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return // a host with v1 alone
	}
	path := filepath.Join(unified, "cgroup-test-"+strconv.Itoa(os.Getpid())+".kernel.scope")
	must.NoError(t, os.Mkdir(path, 0o755))
	t.Cleanup(func() { must.NoError(t, os.Remove(path)) })

	group, err := Load(State{Mode: V2, Path: path})
	must.NoError(t, err)
	process := startProcess(t)
	must.NoError(t, group.AddProcess(process.cmd.Process.Pid))
	pids, err := group.Processes()
	must.NoError(t, err)
	must.Eq(t, []int{process.cmd.Process.Pid}, pids)
	before, err := group.Stats()
	must.NoError(t, err)
	must.True(t, process.take(16))
	after, err := group.Stats()
	must.NoError(t, err)
	must.Greater(t, before.CPU.Total, after.CPU.Total)
	used, err := group.CPUTime()
	must.NoError(t, err)
	must.GreaterEq(t, time.Duration(after.CPU.Total), used)
	must.NoError(t, group.Delete())
	must.DirExists(t, path)
	process.end()
}

func TestReaderStopsAtTheFirstError(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		must.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		return path
	}
	good := write("good", "12\n")
	cases := []struct {
		name, path, message string
	}{
		{"longer than any", write("long", strings.Repeat("x", maxFile+1)), "longer than"},
		{"no number", write("word", "max\n"), "max"},
		{"empty", write("empty", ""), "empty"},
		{"not there", filepath.Join(dir, "none"), "none"},
		{"a folder", dir, "is a directory"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			r := newReader()
			must.EqOp(t, 12, r.number(good))
			must.EqOp(t, 0, r.number(tc.path))
			must.EqOp(t, 0, r.number(good))
			must.ErrorContains(t, r.close(), tc.message)
		})
	}
}
