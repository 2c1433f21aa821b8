// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/machine/qmp"
)

// patience is how long a test waits for what must happen at all.
const patience = 60 * time.Second

// steps returns a configuration and a watch for the project's own unikernel.
func steps(t *testing.T, arch guest.Arch, commandLine string) (Config, Watch) {
	t.Helper()
	kind, err := guest.For(guest.Unikraft, "", arch)
	must.NoError(t, err)
	kernel, err := os.Open("../../build/steps/steps-" + string(arch))
	must.NoError(t, err, must.Sprint("run: make steps"))
	t.Cleanup(func() { kernel.Close() })

	devices := kind.Devices()
	binary := map[guest.Arch]string{guest.ARM64: "qemu-system-aarch64", guest.X86_64: "qemu-system-x86_64"}[arch]
	path, err := exec.LookPath(binary)
	must.NoError(t, err)
	config := Config{
		ID:          "test",
		RunDir:      runDir(t),
		QEMU:        path,
		Arch:        arch,
		Accelerator: TCG,
		Type:        devices.Machine,
		CPU:         devices.CPUTCG,
		Panic:       devices.Panic,
		MemoryMiB:   16,
		Kernel:      kernel,
		CommandLine: commandLine,
		User:        &syscall.Credential{Uid: 65534, Gid: 65534},
	}
	return config, Watch{Signs: kind.Signs()}
}

// runDir is a directory that QEMU's user may pass through, as the driver's is.
func runDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must.NoError(t, os.Chmod(dir, 0o711))
	return dir
}

func start(t *testing.T, c Config, w Watch) *Machine {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	m, err := Start(ctx, c, w)
	must.NoError(t, err)
	t.Cleanup(m.Kill)
	return m
}

func await(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("waited %s for %s", patience, what)
	}
}

func awaitEnd(t *testing.T, m *Machine) Result {
	t.Helper()
	select {
	case <-m.Done():
		return m.Result()
	case <-time.After(patience):
		t.Fatalf("no end after %s; console: %q", patience, m.LastLines(tailSize))
		panic("unreachable")
	}
}

func TestMachine_Ends(t *testing.T) {
	cases := []struct {
		name   string
		args   string
		code   int
		signal int
		failed bool
	}{
		{"returns 0", "--exit=0", 0, 0, false},
		{"returns 3", "--exit=3", 3, 0, true},
		{"crashes", "--crash", 134, 6, true},
	}
	for _, arch := range guest.Arches {
		for _, tc := range cases {
			t.Run(string(arch)+" "+tc.name, func(t *testing.T) {
				config, watch := steps(t, arch, tc.args)
				m := start(t, config, watch)
				result := awaitEnd(t, m)
				must.Eq(t, tc.code, result.ExitCode, must.Sprint(result.Message))
				must.Eq(t, tc.signal, result.Signal)
				must.Eq(t, tc.failed, result.Failed)
				must.NotEq(t, "", result.Message)
				must.NoError(t, m.Remove())
				must.SliceEmpty(t, names(t, config.RunDir))
			})
		}
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must.NoError(t, err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func TestMachine_ReadyAndStop(t *testing.T) {
	for _, arch := range guest.Arches {
		t.Run(string(arch), func(t *testing.T) {
			config, watch := steps(t, arch, "--chatter=10")
			watch.Ready = regexp.MustCompile(`chatter`)
			m := start(t, config, watch)
			await(t, "the ready line", m.Ready())
			must.Positive(t, len(m.LastLines(5)))

			m.Stop(t.Context())
			must.Eq(t, 15, m.Result().Signal, must.Sprint(m.Result().Message))
			must.ErrorIs(t, syscall.Kill(m.State().PID, 0), syscall.ESRCH)
		})
	}
}

func TestMachine_HangingGuestIsStopped(t *testing.T) {
	config, watch := steps(t, guest.ARM64, "--hang")
	m := start(t, config, watch)
	m.Stop(t.Context())
	must.Eq(t, 15, m.Result().Signal, must.Sprint(m.Result().Message))
}

func TestMachine_QEMUKilled(t *testing.T) {
	config, watch := steps(t, guest.ARM64, "--hang")
	m := start(t, config, watch)
	must.NoError(t, syscall.Kill(m.State().PID, syscall.SIGKILL))
	result := awaitEnd(t, m)
	must.Eq(t, 9, result.Signal, must.Sprint(result.Message))
	must.True(t, result.Failed)
}

func TestMachine_StoppedQEMUIsKilled(t *testing.T) {
	config, watch := steps(t, guest.ARM64, "--hang")
	m := start(t, config, watch)
	must.NoError(t, syscall.Kill(m.State().PID, syscall.SIGSTOP))
	m.Stop(t.Context())
	must.Eq(t, 9, m.Result().Signal, must.Sprint(m.Result().Message))
}

func TestMachine_PauseAndResume(t *testing.T) {
	config, watch := steps(t, guest.ARM64, "--chatter=50")
	watch.Ready = regexp.MustCompile(`chatter`)
	m := start(t, config, watch)
	await(t, "the ready line", m.Ready())
	must.NoError(t, m.Pause(t.Context()))
	must.NoError(t, m.Resume(t.Context()))
	must.NoError(t, m.Pause(t.Context()))
	select {
	case <-m.Done():
		t.Fatalf("a paused machine ended: %s", m.Result().Message)
	default:
	}
	m.Stop(t.Context())
	must.Eq(t, 15, m.Result().Signal)
}

func TestMachine_Reattach(t *testing.T) {
	config, _ := steps(t, guest.ARM64, "--chatter=50")
	state, client := startUnseen(t, config, make(chan struct{}))
	must.NoError(t, client.Close())

	_, again := steps(t, guest.ARM64, "")
	again.Ready = regexp.MustCompile(`chatter`)
	m, err := Reattach(t.Context(), state, again)
	must.NoError(t, err)
	t.Cleanup(m.Kill)
	await(t, "output after the reattachment", m.Ready())
	m.Stop(t.Context())
	must.Eq(t, 15, m.Result().Signal, must.Sprint(m.Result().Message))
}

// startUnseen starts a machine as a plugin does that is then killed: QEMU runs
// and nobody reads its console. ended is closed when the guest ends; closing
// the client leaves QEMU alone.
func startUnseen(t *testing.T, c Config, ended chan struct{}) (State, *qmp.Client) {
	t.Helper()
	dir := filepath.Join(c.RunDir, c.ID)
	must.NoError(t, os.Mkdir(dir, 0o700))
	p, monitor, err := spawnIn(c, dir)
	must.NoError(t, err)
	t.Cleanup(func() { _ = p.kill(); p.waitFor(patience) })

	state := State{Dir: dir, PID: p.pid, StartTime: p.startTime}
	client := talkQMP(monitor, ended)
	must.NoError(t, run(t.Context(), client, c.CommandLine, nil))
	return state, client
}

func TestMachine_ReattachAfterItsEnd(t *testing.T) {
	cases := []struct {
		args   string
		missed []string
		code   int
	}{
		// The return value was printed while nobody read: only the log tells.
		{"--exit=3", []string{"[    0.003564] Info: [libukboot] <boot.c @  142> main returned 3"}, 3},
		{"--exit=0", nil, 1},
	}
	for _, tc := range cases {
		t.Run(tc.args, func(t *testing.T) {
			config, _ := steps(t, guest.ARM64, tc.args)
			ended := make(chan struct{})
			state, client := startUnseen(t, config, ended)
			await(t, "the guest's end", ended)
			must.NoError(t, client.Close())

			_, again := steps(t, guest.ARM64, "")
			again.Missed = func() []string { return tc.missed }
			m, err := Reattach(t.Context(), state, again)
			must.NoError(t, err)
			must.Eq(t, tc.code, awaitEnd(t, m).ExitCode, must.Sprint(m.Result().Message))
			must.NoError(t, m.Remove())
		})
	}
}

func TestMachine_ReattachToNothing(t *testing.T) {
	config, _ := steps(t, guest.ARM64, "--hang")
	state, client := startUnseen(t, config, make(chan struct{}))
	must.NoError(t, syscall.Kill(state.PID, syscall.SIGKILL))
	await(t, "QEMU's end", client.Done())

	_, again := steps(t, guest.ARM64, "")
	lost, err := Reattach(t.Context(), state, again)
	must.NoError(t, err)
	result := awaitEnd(t, lost)
	must.True(t, result.Failed)
	must.StrContains(t, result.Message, "not known")
	lost.Stop(t.Context())
	lost.Kill()
	must.Error(t, lost.Pause(t.Context()))
}

// What was seen of an end is told again by the next life of the program, which
// finds neither QEMU nor, as here, a log.
func TestMachine_EndIsNoted(t *testing.T) {
	cases := []struct {
		name, args string
		end        func(*Machine)
	}{
		{"returns 3", "--exit=3", func(*Machine) {}},
		{"crashes", "--crash", func(*Machine) {}},
		{"is stopped", "--hang", func(m *Machine) { m.Stop(t.Context()) }},
		{"is killed", "--hang", (*Machine).Kill},
		{"loses QEMU", "--hang", func(m *Machine) { _ = syscall.Kill(m.State().PID, syscall.SIGSEGV) }},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			config, watch := steps(t, guest.X86_64, tc.args)
			m := start(t, config, watch)
			tc.end(m)
			told := awaitEnd(t, m)

			_, again := steps(t, guest.X86_64, "")
			for range 2 {
				lost, err := Reattach(t.Context(), m.State(), again)
				must.NoError(t, err)
				must.Eq(t, told, awaitEnd(t, lost))
			}
		})
	}
}

// A stop that was noted, but not done, is not taken for the end of a guest that
// goes on.
func TestMachine_ReattachForgetsNote(t *testing.T) {
	config, _ := steps(t, guest.X86_64, "--hang")
	state, client := startUnseen(t, config, make(chan struct{}))
	must.NoError(t, client.Close())
	must.NoError(t, evidence{stop: stoppedByQuit}.write(state.Dir))

	_, again := steps(t, guest.X86_64, "")
	m, err := Reattach(t.Context(), state, again)
	must.NoError(t, err)
	must.NoError(t, syscall.Kill(state.PID, syscall.SIGKILL))
	must.StrContains(t, awaitEnd(t, m).Message, "not known")
}

func TestReadNote_Unreadable(t *testing.T) {
	dir := t.TempDir()
	must.Eq(t, evidence{}, readNote(dir))
	must.NoError(t, os.WriteFile(filepath.Join(dir, noteFile), []byte(`{"Stop":1,"Sta`), 0o600))
	must.Eq(t, evidence{}, readNote(dir))
	must.NoError(t, os.Remove(filepath.Join(dir, noteFile)))
	must.NoError(t, syscall.Mkfifo(filepath.Join(dir, noteFile), 0o600))
	must.Eq(t, evidence{}, readNote(dir))
}

func TestStart_FailureLeavesNothing(t *testing.T) {
	cases := []struct {
		name    string
		spoil   func(*Config)
		message string
	}{
		{"no such QEMU", func(c *Config) { c.QEMU = "/nonexistent/qemu" }, "no such file"},
		{"QEMU refuses", func(c *Config) { c.Type = "no-such-board" }, "unsupported machine type"},
		{"cgroup refuses", func(c *Config) { c.Join = func(int) error { return os.ErrPermission } }, "permission denied"},
		{"no netns", func(c *Config) { c.Netns = "/nonexistent/netns" }, "no such file"},
		{"comma in a value", func(c *Config) { c.Type = "virt,dumpdtb=/tmp/x" }, "unsupported machine type"},
		{"no memory", func(c *Config) { c.MemoryMiB = 0 }, "memory"},
		{"path as an ID", func(c *Config) { c.ID = "../x" }, "machine id"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			config, watch := steps(t, guest.ARM64, "--exit=0")
			tc.spoil(&config)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			_, err := Start(ctx, config, watch)
			must.ErrorContains(t, err, tc.message)
			must.SliceEmpty(t, names(t, config.RunDir))
		})
	}
}
