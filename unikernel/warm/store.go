// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Package warm keeps the states of guests that were saved once they were
// ready, so that later starts go on from there instead of booting.
//
// A state is a file that QEMU wrote, behind a header of ours. It is found by a
// [Key], a digest of all that the guest depends on: when anything of that
// changes, the state is simply not found, and removed in time as the least
// recently used. States hold the memory of guests, secrets with it, so their
// folder is for this user alone.
package warm

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrNone means that no state is kept under a key.
var ErrNone = errors.New("no guest was saved for this")

// ErrBusy means that another start is saving a state under the same key.
var ErrBusy = errors.New("the guest is being saved by another task")

const (
	stateSuffix = ".state"
	draftPrefix = "draft-"
)

// Key names a state: a digest of what it depends on.
type Key string

// KeyOf makes the key of everything that a saved guest depends on. on is
// encoded as JSON.
func KeyOf(on any) (Key, error) {
	data, err := json.Marshal(on)
	if err != nil {
		return "", fmt.Errorf("making the key of a saved guest: %w", err)
	}
	sum := sha256.Sum256(data)
	return Key(hex.EncodeToString(sum[:])), nil
}

// Store keeps states in a folder.
type Store struct {
	dir      string
	maxBytes int64

	mu     sync.Mutex
	saving map[Key]bool
}

// NewStore makes a store. The folder is made when a state is first saved; what
// a crash left half written in it is removed.
func NewStore(dir string, maxBytes int64) *Store {
	s := &Store{dir: dir, maxBytes: maxBytes, saving: make(map[Key]bool)}
	drafts, _ := filepath.Glob(filepath.Join(dir, draftPrefix+"*")) // fails only for a bad pattern
	for _, draft := range drafts {
		if old(draft) {
			_ = os.Remove(draft) // else the next one removes it
		}
	}
	return s
}

// draftAge is longer than any save takes: what is older belongs to no one.
const draftAge = 10 * time.Minute

func old(path string) bool {
	info, err := os.Stat(path)
	return err == nil && time.Since(info.ModTime()) > draftAge
}

// Open opens a state for QEMU to read from where the file stands. A state that
// is damaged is removed, and the error says so.
func (s *Store) Open(key Key) (*os.File, error) {
	path := s.path(key)
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("opening a saved guest: %w", err)
	}
	if err := verify(file, key); err != nil {
		file.Close()
		return nil, errors.Join(fmt.Errorf("saved guest %s: %w", path, err), s.Drop(key))
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // when it was last used; else it goes earlier
	return file, nil
}

// Drop removes a state. It may be called when there is none.
func (s *Store) Drop(key Key) error {
	if err := os.Remove(s.path(key)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing a saved guest: %w", err)
	}
	return nil
}

func (s *Store) path(key Key) string { return filepath.Join(s.dir, string(key)+stateSuffix) }

// Begin makes a draft, into which QEMU saves a guest. It returns ErrBusy where
// this process is at it already.
func (s *Store) Begin(key Key) (*Draft, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of saved guests: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.saving[key] {
		return nil, ErrBusy
	}
	file, err := unlinked(s.dir)
	if err != nil {
		return nil, fmt.Errorf("making room for a saved guest: %w", err)
	}
	s.saving[key] = true
	return &Draft{store: s, key: key, file: file}, nil
}

// unlinked is a file without a name: no crash leaves it behind.
func unlinked(dir string) (*os.File, error) {
	file, err := os.CreateTemp(dir, draftPrefix)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(file.Name()); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// Draft is a state on its way into a store.
type Draft struct {
	store *Store
	key   Key
	file  *os.File
}

// File is where QEMU writes the state.
func (d *Draft) File() *os.File { return d.file }

// Close gives the draft up, unless it was committed.
func (d *Draft) Close() error {
	d.store.mu.Lock()
	delete(d.store.saving, d.key)
	d.store.mu.Unlock()
	return d.file.Close()
}

// Commit puts the state into the store, tells its size in bytes, and removes the
// least recently used ones beyond the store's size. It is copied: the draft's file is still in the
// hands of a QEMU that runs a guest, and what is restored must not be.
func (d *Draft) Commit() (int64, error) {
	size, err := d.file.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, fmt.Errorf("keeping a saved guest: %w", err)
	}
	if size > d.store.maxBytes {
		return 0, fmt.Errorf("keeping a saved guest: its %d MiB are more than the store may hold (%d MiB)", size>>20, d.store.maxBytes>>20)
	}
	if _, err := d.file.Seek(0, io.SeekStart); err != nil {
		return 0, fmt.Errorf("keeping a saved guest: %w", err)
	}
	copied, err := os.CreateTemp(d.store.dir, draftPrefix) // 0600
	if err != nil {
		return 0, fmt.Errorf("keeping a saved guest: %w", err)
	}
	defer copied.Close()
	err = write(copied, d.key, d.file)
	if err == nil {
		err = os.Rename(copied.Name(), d.store.path(d.key))
	}
	if err != nil {
		return 0, errors.Join(fmt.Errorf("keeping a saved guest: %w", err), os.Remove(copied.Name()))
	}
	return size, d.store.evict(d.key)
}

// evict removes the least recently used states beyond the store's size, never
// the one just kept. One that is being restored stays whole: QEMU has it open.
func (s *Store) evict(kept Key) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("listing saved guests: %w", err)
	}
	var states []os.FileInfo
	var total int64
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || !strings.HasSuffix(entry.Name(), stateSuffix) {
			continue
		}
		states = append(states, info)
		total += info.Size()
	}
	slices.SortFunc(states, func(a, b os.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	var errs []error
	for _, state := range states {
		key := Key(strings.TrimSuffix(state.Name(), stateSuffix))
		if total <= s.maxBytes || key == kept {
			continue
		}
		errs = append(errs, s.Drop(key))
		total -= state.Size()
	}
	return errors.Join(errs...)
}
