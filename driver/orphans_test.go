// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoenig/test/must"
	"golang.org/x/sys/unix"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/cgroup"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/network"
)

func TestSweeper(t *testing.T) {
	dir := runDir(t)
	h := newHarness(t, dir, "")
	owned, _ := h.newTask(stepsConfig(t, guest.ARM64, ""))
	h.start(owned)
	orphan, _ := h.newTask(stepsConfig(t, guest.ARM64, ""))
	handle := startElsewhere(t, dir, orphan)
	var state taskState
	must.NoError(t, handle.GetDriverState(&state))

	s := &sweeper{d: h.driver, unowned: make(map[string]time.Time)}
	now := time.Now()
	s.sweep(t.Context(), now)
	s.sweep(t.Context(), now.Add(orphanAge-time.Second))
	must.NoError(t, unix.Kill(state.Machine.PID, 0), must.Sprint("an orphan was ended too early"))

	s.sweep(t.Context(), now.Add(orphanAge))
	awaitGone(t, state.Machine.PID)
	must.DirNotExists(t, state.Machine.Dir)
	_, err := h.InspectTask(owned.ID)
	must.NoError(t, err)
	records, err := filepath.Glob(filepath.Join(dir, "*"+recordSuffix))
	must.NoError(t, err)
	must.SliceLen(t, 1, records)
}

func TestSweeper_AllocationGone(t *testing.T) {
	dir := runDir(t)
	h := newHarness(t, dir, "")
	orphan, _ := h.newTask(stepsConfig(t, guest.ARM64, ""))
	startElsewhere(t, dir, orphan)
	r, err := openRecord(dir, machineID(orphan.ID))
	must.NoError(t, err)
	state, err := r.load()
	must.NoError(t, err)
	state.AllocDir = filepath.Join(t.TempDir(), "gone")
	must.NoError(t, r.save(state))
	r.close()

	s := &sweeper{d: h.driver, unowned: make(map[string]time.Time)}
	s.sweep(t.Context(), time.Now())
	awaitGone(t, state.Machine.PID)
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	must.NoError(t, err)
	must.SliceEmpty(t, left)
}

func TestSweeper_PluginDiedBeforeItAcquiredAnything(t *testing.T) {
	dir := runDir(t)
	h := newHarness(t, dir, "")
	must.NoError(t, os.WriteFile(filepath.Join(dir, "x"+recordSuffix), nil, 0o600))
	must.NoError(t, os.Mkdir(filepath.Join(dir, "x"), 0o700))

	s := &sweeper{d: h.driver, unowned: make(map[string]time.Time)}
	now := time.Now()
	s.sweep(t.Context(), now)
	must.DirExists(t, filepath.Join(dir, "x"))
	s.sweep(t.Context(), now.Add(orphanAge))
	must.DirNotExists(t, filepath.Join(dir, "x"))
}

// What a node's earlier boot left is removed at once, and the number of a
// process of that time is nobody's.
func TestSweeper_NodeRebooted(t *testing.T) {
	dir := runDir(t)
	h := newHarness(t, dir, "")
	task, _ := h.newTask(stepsConfig(t, guest.ARM64, ""))
	handle := h.start(task)
	var running taskState
	must.NoError(t, handle.GetDriverState(&running))

	stale := running
	stale.TaskID = "another/task/12345678"
	stale.Cgroup, stale.Network = cgroup.State{}, network.State{}
	stale.Machine.Dir = filepath.Join(dir, machineID(stale.TaskID))
	stale.Machine.Boot = "another"
	must.NoError(t, os.Mkdir(stale.Machine.Dir, 0o700))
	must.NoError(t, os.WriteFile(filepath.Join(stale.Machine.Dir, "qmp"), nil, 0o600))
	r, err := openRecord(dir, machineID(stale.TaskID))
	must.NoError(t, err)
	must.NoError(t, r.save(stale))
	r.close()

	s := &sweeper{d: h.driver, unowned: make(map[string]time.Time)}
	s.sweep(t.Context(), time.Now())
	must.DirNotExists(t, stale.Machine.Dir)
	must.FileNotExists(t, stale.Machine.Dir+recordSuffix)
	must.NoError(t, unix.Kill(running.Machine.PID, 0), must.Sprint("a process of this boot was ended"))
}

func TestSweeper_TaskThatNomadDoesNotKnow(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	known, _ := h.newTask(stepsConfig(t, guest.ARM64, ""))
	h.start(known)
	_, err := h.WaitTask(t.Context(), known.ID)
	must.NoError(t, err)
	unknown, _ := h.newTask(stepsConfig(t, guest.ARM64, ""))
	h.start(unknown)

	s := &sweeper{d: h.driver}
	now := time.Now()
	has := func(id string) bool { _, err := h.InspectTask(id); return err == nil }
	s.sweepUnheard(now.Add(orphanAge))
	must.True(t, has(unknown.ID), must.Sprint("ended while no agent listened"))

	_, err = h.Fingerprint(t.Context())
	must.NoError(t, err)
	awaitTrue(t, func() bool {
		listens, _ := h.driver.agent.since()
		return listens
	})
	s.sweepUnheard(now)
	must.True(t, has(unknown.ID), must.Sprint("ended before Nomad had its time"))
	s.sweepUnheard(time.Now().Add(orphanAge))
	must.False(t, has(unknown.ID))
	must.True(t, has(known.ID))
}

// awaitTrue waits for what another process does and tells no one.
func awaitTrue(t *testing.T, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen")
		}
	}
}
