// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/nomad/nomad/structs"
	"github.com/shoenig/test/must"
	"golang.org/x/sys/unix"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// fullDisk is a file system of a test's own that takes no more.
func fullDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must.NoError(t, unix.Mount("full", dir, "tmpfs", 0, "size=64k,mode=0711"))
	t.Cleanup(func() { must.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	fill(t, filepath.Join(dir, "ballast"))
	return dir
}

func fill(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	must.NoError(t, err)
	defer file.Close()
	for err == nil {
		_, err = file.Write(make([]byte, 4096))
	}
	must.ErrorIs(t, err, unix.ENOSPC)
}

// A start on a full run directory fails in words and leaves nothing.
func TestStartTask_FullDisk(t *testing.T) {
	dir := fullDisk(t)
	h := newHarness(t, dir, "")
	task, _ := h.newTask(stepsConfig(t, guest.ARM64, ""))
	_, _, err := h.StartTask(task)
	must.ErrorContains(t, err, "no space left on device")

	left, err := filepath.Glob(filepath.Join(dir, "*"))
	must.NoError(t, err)
	must.Eq(t, []string{filepath.Join(dir, "ballast")}, left)
	must.SliceEmpty(t, cgroupsOf(t, task))
}

// A run directory that fills up harms no task that runs, and none is left
// behind.
func TestTask_DiskFillsUp(t *testing.T) {
	dir := t.TempDir()
	must.NoError(t, unix.Mount("full", dir, "tmpfs", 0, "size=256k,mode=0711"))
	t.Cleanup(func() { must.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	h := newHarness(t, dir, "")
	task, _ := h.newTask(stepsConfig(t, guest.ARM64, `args = ["--start-delay=2", "--exit=6"]`))
	h.start(task)
	fill(t, filepath.Join(dir, "ballast"))

	must.Eq(t, 6, h.wait(task).ExitCode)
	must.NoError(t, h.DestroyTask(task.ID, false))
	must.NoError(t, os.Remove(filepath.Join(dir, "ballast")))
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	must.NoError(t, err)
	must.SliceEmpty(t, left)
}

// A plugin that has no descriptor left refuses a start in words, and starts the
// task once it has some again. What it could not give back without one, the
// next start of the task does, or the sweeper.
func TestStartTask_TooManyOpenFiles(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	h.quiet = true
	task, _ := h.newTask(stepsConfig(t, guest.ARM64, `args = ["--exit=4"]`))

	// In steps, as each number of descriptors makes another step fail.
	for spare := range 24 {
		var err error
		withSpareFiles(t, spare, func() { _, _, err = h.driver.StartTask(task) })
		if err == nil {
			must.Positive(t, spare, must.Sprint("started without a descriptor"))
			break
		}
		must.ErrorContains(t, err, "too many open files", must.Sprintf("with %d spare descriptors", spare))
		must.True(t, structs.IsRecoverable(err))
	}
	if _, err := h.InspectTask(task.ID); err != nil {
		h.start(task)
	}
	must.Eq(t, 4, h.wait(task).ExitCode)
	must.NoError(t, h.DestroyTask(task.ID, true))
	must.SliceEmpty(t, cgroupsOf(t, task))
}

// withSpareFiles calls f while this process may open so many more files.
func withSpareFiles(t *testing.T, spare int, f func()) {
	t.Helper()
	var before unix.Rlimit
	must.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &before))
	next, err := unix.Dup(0) // the lowest number that is free
	must.NoError(t, err)
	must.NoError(t, unix.Close(next))
	must.NoError(t, unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(next + spare), Max: before.Max}, nil))
	defer func() { must.NoError(t, unix.Prlimit(0, unix.RLIMIT_NOFILE, &before, nil)) }()
	f()
}

// A QEMU whose monitor is silent, as the process stands still, is stopped all
// the same, and within its time.
func TestStopTask_SilentMonitor(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	task, _ := h.newTask(stepsConfig(t, guest.ARM64, ""))
	var state taskState
	must.NoError(t, h.start(task).GetDriverState(&state))
	must.NoError(t, unix.Kill(state.Machine.PID, unix.SIGSTOP))

	must.NoError(t, h.StopTask(task.ID, 10*time.Second, "SIGTERM"))
	must.Eq(t, 9, h.wait(task).Signal)
	must.NoError(t, h.DestroyTask(task.ID, false))
}

// A monitor socket that was removed is a loss for the next plugin only: the
// task is ended by it, as nobody could tell how it is.
func TestRecoverTask_MonitorGone(t *testing.T) {
	dir := runDir(t)
	h := newHarness(t, dir, "")
	task, _ := h.newTask(stepsConfig(t, guest.ARM64, ""))
	handle := startElsewhere(t, dir, task)
	var state taskState
	must.NoError(t, handle.GetDriverState(&state))
	must.NoError(t, os.Remove(filepath.Join(state.Machine.Dir, "qmp")))

	must.ErrorContains(t, h.RecoverTask(handle), "qmp")
	awaitGone(t, state.Machine.PID)
	must.SliceEmpty(t, cgroupsOf(t, task))
}
