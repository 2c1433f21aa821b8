// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/shoenig/test/must"
	"golang.org/x/sys/unix"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// asPlugin makes this test program a plugin that starts one task, tells the
// handle, and waits to be killed.
const asPlugin = "UNIKERNEL_TEST_AS_PLUGIN"

// order is what such a plugin is told.
type order struct {
	RunDir string
	Plugin []byte
	Task   drivers.TaskConfig
	Config TaskConfig
	DieAt  string // the step of the start at which it kills itself; empty: none
}

func TestMain(m *testing.M) {
	encoded := os.Getenv(asPlugin)
	if encoded == "" {
		os.Exit(m.Run())
	}
	if err := obey(encoded); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func obey(encoded string) error {
	data, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return err
	}
	var o order
	if err := base.MsgPackDecode(data, &o); err != nil {
		return err
	}
	d := New(hclog.NewNullLogger())
	d.runDir = o.RunDir
	d.onStep = func(at step) {
		if string(at) == o.DieAt {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		}
	}
	if err := d.SetConfig(&base.Config{PluginConfig: o.Plugin}); err != nil {
		return err
	}
	if err := o.Task.EncodeConcreteDriverConfig(&o.Config); err != nil {
		return err
	}
	handle, _, err := d.StartTask(&o.Task)
	if err != nil {
		return err
	}
	if _, err := os.Stdout.Write(handle.DriverState); err != nil {
		return err
	}
	os.Stdout.Close()
	select {}
}

// startElsewhere starts a task in a plugin process of its own, kills that with
// SIGKILL, and returns what Nomad would have kept.
func startElsewhere(t *testing.T, runDir string, task *drivers.TaskConfig) *drivers.TaskHandle {
	t.Helper()
	plugin := newPlugin(t, runDir, task, "")
	stdout, err := plugin.StdoutPipe()
	must.NoError(t, err)
	must.NoError(t, plugin.Start())
	state, err := io.ReadAll(stdout)
	must.NoError(t, err)
	must.NoError(t, plugin.Process.Kill())
	must.Error(t, plugin.Wait())

	handle := drivers.NewTaskHandle(handleVersion)
	handle.Config, handle.State, handle.DriverState = task, drivers.TaskStateRunning, state
	return handle
}

// dieAt starts a task in a plugin process that kills itself at a step.
func dieAt(t *testing.T, runDir string, task *drivers.TaskConfig, at step, options ...string) {
	t.Helper()
	err := newPlugin(t, runDir, task, at, options...).Run()
	must.ErrorContains(t, err, "killed")
}

// newPlugin is a plugin process for one task.
func newPlugin(t *testing.T, runDir string, task *drivers.TaskConfig, at step, options ...string) *exec.Cmd {
	t.Helper()
	o := order{RunDir: runDir, Plugin: pluginConfig(t, strings.Join(options, "\n")), Task: *task, DieAt: string(at)}
	must.NoError(t, task.DecodeDriverConfig(&o.Config))
	var data []byte
	must.NoError(t, base.MsgPackEncode(&data, &o))
	plugin := exec.Command(os.Args[0])
	plugin.Env = append(os.Environ(), asPlugin+"="+base64.StdEncoding.EncodeToString(data))
	plugin.Stderr = os.Stderr
	return plugin
}

func TestRecoverTask_GuestRuns(t *testing.T) {
	dir := runDir(t)
	h := newHarness(t, dir, "")
	task, port := h.newTask(stepsConfig(t, guest.ARM64, `ports = ["http"]`))
	handle := startElsewhere(t, dir, task)
	url := fmt.Sprintf("http://127.0.0.1:%d/healthz", port)
	must.Eq(t, "ok\n", get(t, url))

	must.NoError(t, h.RecoverTask(handle))
	must.Eq(t, "ok\n", get(t, url))
	must.NoError(t, h.StopTask(task.ID, 10*time.Second, "SIGTERM"))
	must.Eq(t, 15, h.wait(task).Signal)
	must.NoError(t, h.DestroyTask(task.ID, false))
}

func TestRecoverTask_GuestEndedMeanwhile(t *testing.T) {
	dir := runDir(t)
	h := newHarness(t, dir, "")
	task, _ := h.newTask(stepsConfig(t, guest.ARM64, `args = ["--start-delay=1", "--exit=5"]`))
	handle := startElsewhere(t, dir, task)
	awaitText(t, spoolPath(task), "main returned 5")

	must.NoError(t, h.RecoverTask(handle))
	must.Eq(t, 5, h.wait(task).ExitCode)
	awaitLog(t, task, "main returned 5") // printed while no driver was there
	must.NoError(t, h.DestroyTask(task.ID, false))
}

func TestRecoverTask_WithoutQEMU(t *testing.T) {
	dir := runDir(t)
	h := newHarness(t, dir, "")
	task, _ := h.newTask(stepsConfig(t, guest.ARM64, ""))
	handle := startElsewhere(t, dir, task)
	var state taskState
	must.NoError(t, handle.GetDriverState(&state))
	must.NoError(t, unix.Kill(state.Machine.PID, unix.SIGKILL))
	awaitGone(t, state.Machine.PID)

	must.NoError(t, h.RecoverTask(handle))
	result := h.wait(task)
	must.False(t, result.Successful())
	must.ErrorContains(t, result.Err, "not known")
	must.NoError(t, h.DestroyTask(task.ID, false))
}

// awaitPrinted waits until a guest printed a text, while nobody carries what it
// prints to the task's log.
func awaitPrinted(t *testing.T, task *drivers.TaskConfig, text string) {
	t.Helper()
	awaitText(t, spoolPath(task), text)
}

// awaitGone waits until a process that is not ours was reaped by its parent.
func awaitGone(t *testing.T, pid int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for unix.Kill(pid, 0) == nil {
		if time.Now().After(deadline) {
			t.Fatalf("process %d is still there", pid)
		}
		time.Sleep(time.Millisecond) // its parent tells no one
	}
}

func TestRecoverTask_BadState(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	task, _ := h.newTask(stepsConfig(t, guest.ARM64, ""))
	handle := drivers.NewTaskHandle(handleVersion + 1)
	handle.Config = task
	must.ErrorContains(t, h.RecoverTask(handle), "version")
}

// A node that was rebooted has neither QEMU nor, on a tmpfs, the record. The
// task's end is told once, and leaves nothing.
func TestRecoverTask_NodeRebooted(t *testing.T) {
	dir := runDir(t)
	h := newHarness(t, dir, "")
	task, _ := h.newTask(stepsConfig(t, guest.ARM64, ""))
	handle := startElsewhere(t, dir, task)
	var state taskState
	must.NoError(t, handle.GetDriverState(&state))
	pid := state.Machine.PID
	t.Cleanup(func() {
		must.NoError(t, unix.Kill(pid, unix.SIGKILL))
		awaitGone(t, pid)
		must.NoError(t, state.undo(t.Context()))
	})
	must.NoError(t, os.RemoveAll(state.Machine.Dir))
	must.NoError(t, os.Remove(state.Machine.Dir+recordSuffix))
	state.Machine.Boot = "another"
	must.NoError(t, handle.SetDriverState(state))

	must.NoError(t, h.RecoverTask(handle))
	result := h.wait(task)
	must.False(t, result.Successful())
	must.ErrorContains(t, result.Err, "rebooted")
	must.NoError(t, unix.Kill(pid, 0), must.Sprint("a process of this boot was ended"))
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	must.NoError(t, err)
	must.SliceEmpty(t, left)
}
