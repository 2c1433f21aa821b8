// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// recordSuffix ends the names of records in the run directory.
const recordSuffix = ".json"

// record is a task's state on disk, from before the first thing is acquired
// for the task until the last is given back. The plugin that has the task
// holds a lock on its record, which the kernel drops when the plugin dies: a
// record without a lock is a task that nobody has.
type record struct{ file *os.File }

// errOwned means that another plugin process has the task.
var errOwned = errors.New("another plugin process has this task")

// openRecord opens or makes the record of a machine and locks it.
func openRecord(runDir, machineID string) (*record, error) {
	return lockRecord(filepath.Join(runDir, machineID+recordSuffix), os.O_CREATE)
}

// findRecord locks the record of a machine that was started before. It is nil
// where there is none: the task was destroyed, and the agent was killed before
// it had noted that, or the node was rebooted. None is made then, as Nomad may
// never destroy that task again.
func findRecord(runDir, machineID string) (*record, error) {
	r, err := lockRecord(filepath.Join(runDir, machineID+recordSuffix), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return r, err
}

// lockRecord returns an error that wraps errOwned where the lock is taken.
func lockRecord(path string, flags int) (*record, error) {
	file, err := os.OpenFile(path, os.O_RDWR|flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the task's record: %w", err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errOwned
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("locking the task's record %s: %w", path, err)
	}
	return &record{file}, nil
}

// save writes the state. The file stays the same one, as the lock is on it.
func (r *record) save(s taskState) error {
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encoding the task's record: %w", err)
	}
	if _, err := r.file.WriteAt(data, 0); err != nil {
		return fmt.Errorf("writing the task's record: %w", err)
	}
	if err := r.file.Truncate(int64(len(data))); err != nil {
		return fmt.Errorf("writing the task's record: %w", err)
	}
	return nil
}

func (r *record) load() (taskState, error) { return readRecord(r.file.Name()) }

// readRecord reads a record, locked or not. It is empty where the plugin died
// before it acquired anything.
func readRecord(path string) (taskState, error) {
	var s taskState
	data, err := os.ReadFile(path)
	if err != nil {
		return s, fmt.Errorf("reading the task's record: %w", err)
	}
	if len(data) == 0 {
		return s, nil
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("reading the task's record %s: %w", path, err)
	}
	return s, nil
}

// settle gives back what a state has, then removes its record. Where that
// fails the record stays, unlocked, and the sweeper will try again. It may be
// called on nil.
func (r *record) settle(ctx context.Context, s taskState) error {
	if r == nil {
		return s.undo(ctx)
	}
	defer r.close()
	if err := s.undo(ctx); err != nil {
		return err
	}
	return os.Remove(r.file.Name())
}

// machineDir is the directory of the record's machine.
func (r *record) machineDir() string { return strings.TrimSuffix(r.file.Name(), recordSuffix) }

func (r *record) close() { r.file.Close() }
