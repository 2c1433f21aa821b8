// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package cgroup

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoenig/test/must"
	"golang.org/x/sys/unix"
)

const mib = 1 << 20

// TestMain lets this binary be the process that is put into a group: it waits
// for a line, takes as many MiB as the line says, answers, and waits for the
// end of its input.
func TestMain(m *testing.M) {
	if os.Getenv("CGROUP_TEST_PROCESS") == "" {
		os.Exit(m.Run())
	}
	input := bufio.NewScanner(os.Stdin)
	var held [][]byte
	for input.Scan() {
		amount, err := strconv.Atoi(input.Text())
		if err != nil {
			os.Exit(2)
		}
		for range amount {
			block := make([]byte, mib)
			for i := 0; i < len(block); i += 512 {
				block[i] = 1
			}
			held = append(held, block)
		}
		fmt.Println("done")
	}
	_ = held
}

// process is a child that takes memory when told to.
type process struct {
	cmd    *exec.Cmd
	input  io.WriteCloser
	output *bufio.Reader
}

func startProcess(t *testing.T) *process {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "CGROUP_TEST_PROCESS=1")
	input, err := cmd.StdinPipe()
	must.NoError(t, err)
	output, err := cmd.StdoutPipe()
	must.NoError(t, err)
	must.NoError(t, cmd.Start())
	p := &process{cmd: cmd, input: input, output: bufio.NewReader(output)}
	t.Cleanup(p.end)
	return p
}

// take makes the process take memory; false if it did not live to answer.
func (p *process) take(amountMiB int) bool {
	if _, err := io.WriteString(p.input, strconv.Itoa(amountMiB)+"\n"); err != nil {
		return false
	}
	_, err := p.output.ReadString('\n')
	return err == nil
}

func (p *process) end() {
	_ = p.input.Close()
	_ = p.cmd.Wait()
}

// hostSpec is a group on this host, with the client's part made by the test.
func hostSpec(t *testing.T, limits Limits) Spec {
	t.Helper()
	name := "cgroup-test-" + strconv.Itoa(os.Getpid()) + "." + strings.ToLower(t.Name())
	spec := Spec{Name: name, Limits: limits}
	switch HostMode() {
	case V1:
		spec.Path = filepath.Join(mountpoint, "cpuset", "cgroup-test-"+strconv.Itoa(os.Getpid()))
		must.NoError(t, os.Mkdir(spec.Path, 0o755))
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			value, err := os.ReadFile(filepath.Join(mountpoint, "cpuset", file))
			must.NoError(t, err)
			must.NoError(t, os.WriteFile(filepath.Join(spec.Path, file), value, 0o644))
		}
		t.Cleanup(func() { removeParents(t) })
	case V2:
		enable := []byte("+cpu +cpuset +memory +pids")
		must.NoError(t, os.WriteFile(filepath.Join(mountpoint, "cgroup.subtree_control"), enable, 0o644))
		spec.Path = filepath.Join(mountpoint, name+".scope")
		must.NoError(t, os.Mkdir(spec.Path, 0o755))
	default:
		t.Fatal("this host has no cgroups")
	}
	t.Cleanup(func() { must.NoError(t, os.Remove(spec.Path)) })
	return spec
}

// removeParents removes the groups above the tasks', which on a host with a
// Nomad client are the client's and stay.
func removeParents(t *testing.T) {
	for _, controller := range controllersV1 {
		err := os.Remove(filepath.Join(mountpoint, controller, parentV1))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Logf("left in place: %v", err)
		}
	}
}

// directories are all cgroups of the host that bear a test's name.
func directories(t *testing.T, name string) []string {
	t.Helper()
	v1, err := filepath.Glob(filepath.Join(mountpoint, "*", parentV1, name))
	must.NoError(t, err)
	return v1
}

func TestGroupOnThisHost(t *testing.T) {
	spec := hostSpec(t, Limits{CPUShares: 300, MemoryMiB: 384, MemoryMaxMiB: 512, Pids: 40})
	group, err := Create(spec)
	must.NoError(t, err)
	t.Cleanup(func() { must.NoError(t, group.Delete()) })
	must.EqOp(t, HostMode(), group.Mode())
	must.NoError(t, group.SetCPUShares(512))
	must.NoError(t, group.SetCPUShares(0)) // leaves it

	for file, want := range limitFiles(spec) {
		must.EqOp(t, want, readFile(t, file), must.Sprint(file))
	}

	process := startProcess(t)
	must.NoError(t, group.AddProcess(process.cmd.Process.Pid))
	pids, err := group.Processes()
	must.NoError(t, err)
	must.Eq(t, []int{process.cmd.Process.Pid}, pids)
	if HostMode() == V1 {
		must.EqOp(t, strconv.Itoa(process.cmd.Process.Pid), readFile(t, filepath.Join(spec.Path, "cgroup.procs")))
	}

	before, err := group.Stats()
	must.NoError(t, err)
	must.True(t, process.take(20))
	after, err := group.Stats()
	must.NoError(t, err)
	must.GreaterEq(t, before.Memory.RSS+19*mib, after.Memory.RSS)
	must.GreaterEq(t, after.Memory.RSS, after.Memory.Usage)
	must.GreaterEq(t, 20*mib, after.Memory.MaxUsage)
	must.Less(t, 512*mib, after.Memory.Usage)
	must.Greater(t, before.CPU.Total, after.CPU.Total)
	used, err := group.CPUTime()
	must.NoError(t, err)
	must.GreaterEq(t, time.Duration(after.CPU.Total), used)

	kills, err := group.OOMKills()
	must.NoError(t, err)
	must.EqOp(t, 0, kills)
	must.Error(t, errIfV1(group.Delete()), must.Sprint("a group with processes was deleted"))
	process.end()
}

// errIfV1: on v2 nothing is deleted, so there is nothing to fail.
func errIfV1(err error) error {
	if HostMode() == V2 && err == nil {
		return errors.New("v2")
	}
	return err
}

// limitFiles are the files that hold the limits of TestGroupOnThisHost.
func limitFiles(spec Spec) map[string]string {
	if HostMode() == V2 {
		return map[string]string{
			filepath.Join(spec.Path, "cpu.weight"): "59",
			filepath.Join(spec.Path, "memory.max"): "536870912",
			filepath.Join(spec.Path, "memory.low"): "402653184",
			filepath.Join(spec.Path, "pids.max"):   "40",
		}
	}
	file := func(controller, name string) string {
		return filepath.Join(mountpoint, controller, parentV1, spec.Name, name)
	}
	return map[string]string{
		file("cpu", "cpu.shares"):                     "512",
		file("memory", "memory.limit_in_bytes"):       "536870912",
		file("memory", "memory.memsw.limit_in_bytes"): "536870912",
		file("memory", "memory.soft_limit_in_bytes"):  "402653184",
		file("memory", "memory.swappiness"):           "0",
		file("pids", "pids.max"):                      "40",
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	must.NoError(t, err)
	return strings.TrimSpace(string(text))
}

func TestOutOfMemoryOnThisHost(t *testing.T) {
	spec := hostSpec(t, Limits{MemoryMiB: 32})
	group, err := Create(spec)
	must.NoError(t, err)
	t.Cleanup(func() { must.NoError(t, group.Delete()) })
	process := startProcess(t)
	must.NoError(t, group.AddProcess(process.cmd.Process.Pid))
	must.False(t, process.take(64), must.Sprint("it lived with more than its limit"))
	process.end()

	kills, err := group.OOMKills()
	must.NoError(t, err)
	must.EqOp(t, 1, kills)

	// A task that restarts in the same group starts from zero.
	again, err := Create(spec)
	must.NoError(t, err)
	kills, err = again.OOMKills()
	must.NoError(t, err)
	must.EqOp(t, 0, kills)
	must.SliceEmpty(t, again.State().Created)
}

func TestStateSurvives(t *testing.T) {
	spec := hostSpec(t, Limits{MemoryMiB: 32})
	group, err := Create(spec)
	must.NoError(t, err)

	text, err := json.Marshal(group.State())
	must.NoError(t, err)
	var state State
	must.NoError(t, json.Unmarshal(text, &state))
	loaded, err := Load(state)
	must.NoError(t, err)
	must.Eq(t, group.State(), loaded.State())

	must.NoError(t, loaded.Delete())
	must.SliceEmpty(t, directories(t, spec.Name))
	must.NoError(t, loaded.Delete(), must.Sprint("deleting twice"))
	if HostMode() == V1 {
		_, err = loaded.Stats()
		must.ErrorIs(t, err, ErrGone)
		_, err = loaded.CPUTime()
		must.ErrorIs(t, err, ErrGone)
		must.ErrorIs(t, loaded.AddProcess(os.Getpid()), ErrGone)
	}
}

// TestClientsGroupsStay: what the client made is joined, and not deleted.
func TestClientsGroupsStay(t *testing.T) {
	if HostMode() == V2 {
		return // the scope is the client's, and TestGroupOnThisHost finds it there
	}
	spec := hostSpec(t, Limits{MemoryMiB: 32})
	clients := []string{"memory", "cpu", "freezer"}
	for _, controller := range clients {
		dir := filepath.Join(mountpoint, controller, parentV1, spec.Name)
		must.NoError(t, os.MkdirAll(dir, 0o755))
		t.Cleanup(func() { must.NoError(t, os.Remove(dir)) })
	}
	group, err := Create(spec)
	must.NoError(t, err)
	for _, controller := range clients {
		must.SliceNotContains(t, group.State().Created, controller)
	}
	must.SliceContains(t, group.State().Created, "pids")

	must.NoError(t, group.Delete())
	for _, controller := range clients {
		must.DirExists(t, filepath.Join(mountpoint, controller, parentV1, spec.Name))
	}
	must.DirNotExists(t, filepath.Join(mountpoint, "pids", parentV1, spec.Name))
}

func TestCreateLeavesNothing(t *testing.T) {
	spec := hostSpec(t, Limits{MemoryMiB: 32})
	spec.Limits.Cpuset = "no cores"
	_, err := Create(spec)
	must.Error(t, err)
	must.SliceEmpty(t, directories(t, spec.Name))
}

func TestCreateRefuses(t *testing.T) {
	dir := t.TempDir()
	cases := []struct {
		name    string
		mode    Mode
		spec    Spec
		message string
		is      error
	}{
		{"no cgroups", None, Spec{}, "none mounted", ErrUnavailable},
		{"a name with a slash", V1, Spec{Name: "a/b"}, `"a/b"`, nil},
		{"a name that leads up", V1, Spec{Name: ".."}, `".."`, nil},
		{"no name", V1, Spec{}, `""`, nil},
		{"a cpuset elsewhere", V1, Spec{Name: "a", Path: "/etc"}, `"/etc" is not below`, nil},
		{"no controllers mounted", V1, Spec{Name: "a"}, "memory is not mounted", ErrUnavailable},
		{"a scope elsewhere", V2, Spec{Path: "/etc"}, `"/etc" is not below`, nil},
		{"a scope that leads up", V2, Spec{Path: dir + "/../x"}, "is not below", nil},
		{"no scope", V2, Spec{Path: dir + "/gone"}, "gone", ErrGone},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			_, err := create(tc.spec, tc.mode, dir)
			must.ErrorContains(t, err, tc.message)
			if tc.is != nil {
				must.ErrorIs(t, err, tc.is)
			}
		})
	}
}

func TestNoGroup(t *testing.T) {
	group, err := Load(State{})
	must.NoError(t, err)
	must.EqOp(t, None, group.Mode())
	must.NoError(t, group.Delete())
	_, err = group.Stats()
	must.ErrorIs(t, err, ErrGone)
	_, err = group.CPUTime()
	must.ErrorIs(t, err, ErrGone)
	_, err = Load(State{Mode: "v3"})
	must.ErrorContains(t, err, `"v3"`)
}

func TestLimits(t *testing.T) {
	cases := []struct {
		limits          Limits
		hard, protected int64
		shares          uint64
	}{
		{Limits{}, 0, 0, 0},
		{Limits{MemoryMiB: 64, CPUShares: 100}, 64 * mib, 0, 100},
		{Limits{MemoryMiB: 64, MemoryMaxMiB: 64}, 64 * mib, 0, 0},
		{Limits{MemoryMiB: 64, MemoryMaxMiB: 128}, 128 * mib, 64 * mib, 0},
		{Limits{MemoryMiB: 64, MemoryMaxMiB: 32}, 64 * mib, 0, 0},
		{Limits{MemoryMiB: 64, MemoryMaxMiB: -1}, 0, 64 * mib, 0},
		{Limits{CPUShares: 1}, 0, 0, 2},
		{Limits{CPUShares: 1 << 20}, 0, 0, 1 << 18},
	}
	for _, tc := range cases {
		hard, protected := tc.limits.memory()
		must.EqOp(t, tc.hard, hard, must.Sprintf("%+v", tc.limits))
		must.EqOp(t, tc.protected, protected, must.Sprintf("%+v", tc.limits))
		must.EqOp(t, tc.shares, tc.limits.shares(), must.Sprintf("%+v", tc.limits))
	}
}

// What one look at a task's group costs of a processor.
func BenchmarkStats(b *testing.B) {
	benchmark(b, func(g *Group) error { _, err := g.Stats(); return err })
}

// What it costs to look at its processor time alone, as is done every second.
func BenchmarkCPUTime(b *testing.B) {
	benchmark(b, func(g *Group) error { _, err := g.CPUTime(); return err })
}

func benchmark(b *testing.B, look func(*Group) error) {
	b.Helper()
	group, err := Create(Spec{Name: "unikernel-benchmark", Limits: Limits{MemoryMiB: 64}})
	must.NoError(b, err)
	b.Cleanup(func() { must.NoError(b, group.Delete()) })
	before := processorTime(b)
	for b.Loop() {
		must.NoError(b, look(group))
	}
	b.ReportAllocs()
	b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

func processorTime(b *testing.B) time.Duration {
	var usage unix.Rusage
	must.NoError(b, unix.Getrusage(unix.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
