// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// noteFile is in the machine's directory: what was seen of its end.
const noteFile = "end.json"

// maxNote bounds what is read of a note, in bytes.
const maxNote = 64 << 10

// note is evidence on disk.
type note struct {
	Stop     stopped
	Status   string
	Panicked bool
	Console  *guest.End          `json:",omitempty"`
	Process  *syscall.WaitStatus `json:",omitempty"`
}

// note keeps what is seen of the machine's end for the next life of this
// program, which may die before it has told anybody. A note that cannot be
// written is only missed then.
func (m *Machine) note() {
	if m.missed != nil {
		m.console.readAgain(m.missed())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if end, ok := m.console.end(); ok {
		m.seen.console = &end
	}
	m.seen.process = m.process.exitStatus()
	_ = m.seen.write(m.state.Dir)
}

func (e evidence) write(dir string) error {
	data, err := json.Marshal(note{Stop: e.stop, Status: e.status, Panicked: e.panicked, Console: e.console, Process: e.process})
	if err != nil {
		return err
	}
	path := filepath.Join(dir, noteFile)
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// readNote returns what was noted in a machine's directory: nothing where
// there is no note, or none that can be read.
func readNote(dir string) evidence {
	var n note
	data, err := readBounded(filepath.Join(dir, noteFile), maxNote)
	if err != nil || json.Unmarshal(data, &n) != nil {
		return evidence{}
	}
	return evidence{stop: n.Stop, status: n.Status, panicked: n.Panicked, console: n.Console, process: n.Process}
}

func readBounded(path string, most int64) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, most))
}

// forgetNote drops the note of a machine that runs: its end is yet to come.
func forgetNote(dir string) error {
	err := os.Remove(filepath.Join(dir, noteFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
