// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/drivers/proto"
	"github.com/shoenig/test/must"
	"golang.org/x/sys/unix"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// withoutLogmon gives a task pipes, or nothing at all, as an agent does; no
// logmon of Nomad's runs.
func (h *harness) withoutLogmon(task *drivers.TaskConfig, pipes bool) {
	h.t.Helper()
	for path, name := range map[*string]string{&task.StdoutPath: ".steps.stdout.fifo", &task.StderrPath: ".steps.stderr.fifo"} {
		*path = filepath.Join(task.TaskDir().LogDir, name)
		if pipes {
			must.NoError(h.t, unix.Mkfifo(*path, 0o600))
		}
	}
}

func TestLogs_DriverCollects(t *testing.T) {
	h := newHarness(t, runDir(t), `logs {
		collector = "driver"
	}`)
	able, err := h.driver.Capabilities()
	must.NoError(t, err)
	must.True(t, able.DisableLogCollection)

	h.quiet = true
	task, _ := h.newTask(stepsConfig(t, guest.ARM64, `args = ["--exit=7"]`))
	h.withoutLogmon(task, false)
	h.start(task)
	must.Eq(t, 7, h.wait(task).ExitCode)
	awaitLog(t, task, "main returned 7")
	_, err = os.Stat(filepath.Join(task.TaskDir().LogDir, "steps.stderr.0"))
	must.NoError(t, err)
	must.NoError(t, h.DestroyTask(task.ID, false))
	_, err = os.Stat(spoolPath(task))
	must.ErrorIs(t, err, os.ErrNotExist)
}

// What an agent is told is what the driver says, also where Nomad's own code
// for plugins leaves it out.
func TestCapabilities_AreToldInFull(t *testing.T) {
	for _, collector := range []string{"nomad", "driver"} {
		d := newHarness(t, runDir(t), fmt.Sprintf("logs {\n collector = %q\n}", collector)).driver
		plain := func(context.Context, any) (any, error) {
			return &proto.CapabilitiesResponse{Capabilities: new(proto.DriverCapabilities)}, nil
		}
		answer, err := d.completeCapabilities(t.Context(), nil, nil, plain)
		must.NoError(t, err)
		told := answer.(*proto.CapabilitiesResponse).Capabilities
		must.Eq(t, collector == "driver", told.DisableLogCollection)
		must.EqOp(t, int32(capabilities.MountConfigs), int32(told.MountConfigs))
	}
}

// A guest that prints without pause answers also while nobody reads its log.
func TestLogs_StalledReader(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	h.quiet = true
	task, port := h.newTask(stepsConfig(t, guest.ARM64, `ports = ["http"]
		args = ["--chatter"]`))
	h.withoutLogmon(task, true) // pipes that nobody reads
	h.start(task)
	url := fmt.Sprintf("http://127.0.0.1:%d/healthz", port)
	must.Eq(t, "ok\n", get(t, url))
	const pipeSize = 64 << 10
	deadline := time.Now().Add(patience)
	for spooled(t, task) < 2*pipeSize {
		must.True(t, time.Now().Before(deadline), must.Sprint("the guest printed too little"))
		must.Eq(t, "ok\n", get(t, url))
	}
	must.Eq(t, "ok\n", get(t, url))
	must.NoError(t, h.StopTask(task.ID, 10*time.Second, ""))
}

func spooled(t *testing.T, task *drivers.TaskConfig) int64 {
	t.Helper()
	info, err := os.Stat(spoolPath(task))
	must.NoError(t, err)
	return info.Size()
}

func TestLogs_ReplacedPipe(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	h.quiet = true
	task, _ := h.newTask(stepsConfig(t, guest.ARM64, ""))
	h.withoutLogmon(task, false)
	outside := filepath.Join(t.TempDir(), "outside")
	must.NoError(t, os.WriteFile(outside, nil, 0o600))
	must.NoError(t, os.Symlink(outside, task.StdoutPath))
	_, _, err := h.StartTask(task)
	must.ErrorContains(t, err, "log pipe")
	text, err := os.ReadFile(outside)
	must.NoError(t, err)
	must.Eq(t, "", string(text))
}

// Nomad's logmon waits for seconds when a start fails that never opened its
// pipes: they see their end.
func TestLogs_FailedStartReleasesLogmon(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	h.quiet = true
	task, _ := h.newTask(`image = "local/none"`)
	h.withoutLogmon(task, true)
	reader, err := unix.Open(task.StdoutPath, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	must.NoError(t, err)
	defer unix.Close(reader)
	must.False(t, hungUp(t, reader))
	_, _, err = h.StartTask(task)
	must.ErrorContains(t, err, "local/none")
	must.True(t, hungUp(t, reader))
}

// hungUp tells whether a pipe had a writer and has none any more.
func hungUp(t *testing.T, reader int) bool {
	t.Helper()
	poll := []unix.PollFd{{Fd: int32(reader), Events: unix.POLLIN}}
	_, err := unix.Poll(poll, 0)
	must.NoError(t, err)
	return poll[0].Revents&unix.POLLHUP != 0
}
