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

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
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
