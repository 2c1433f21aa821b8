// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Draft is an image that is being written. It belongs to whoever holds its
// key's lock.
type Draft struct {
	cache *Cache
	key   string
	dir   string
	files map[string]File
}

// Draft begins to write an image, clearing what a crash left of it. The
// caller holds the key's Lock, and ends it by Commit or Abort.
func (c *Cache) Draft(key string) (*Draft, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	draft := &Draft{c, key, c.path(tmpDir, key), map[string]File{}}
	if err := os.RemoveAll(draft.dir); err != nil {
		return nil, fmt.Errorf("image cache: clear what a pull left: %w", err)
	}
	if err := os.Mkdir(draft.dir, 0o700); err != nil {
		return nil, fmt.Errorf("image cache: %w", err)
	}
	return draft, nil
}

// Write writes one of the image's files, replacing an earlier one of the name.
func (d *Draft) Write(name string, from io.Reader) error {
	path := filepath.Join(d.dir, filepath.Base(name))
	d.Drop(name)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("image cache: %w", err)
	}
	defer file.Close()
	hash := sha256.New()
	size, err := io.Copy(io.MultiWriter(file, hash), from)
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("image cache: the disk of %s is full (remove what is not needed: nomad-driver-unikernel cache gc): %w", d.cache.dir, err)
	}
	if err != nil {
		return err
	}
	// Everybody may read it: QEMU reopens it as an unprivileged user.
	if err := errors.Join(file.Chmod(0o444), file.Sync()); err != nil {
		return fmt.Errorf("image cache: %w", err)
	}
	d.files[name] = File{size, hex.EncodeToString(hash.Sum(nil))}
	return nil
}

// Drop forgets a file that was written.
func (d *Draft) Drop(name string) {
	os.Remove(filepath.Join(d.dir, filepath.Base(name)))
	delete(d.files, name)
}

// Has tells whether a file was written.
func (d *Draft) Has(name string) bool {
	_, ok := d.files[name]
	return ok
}

// Commit makes the draft an image of the cache, and opens it. It is marked as
// in use before anybody else can see it.
func (d *Draft) Commit(about About) (*Entry, error) {
	about.Files, about.Pulled = d.files, time.Now().UTC()
	text, err := json.MarshalIndent(about, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := writeSynced(filepath.Join(d.dir, aboutFile), text); err != nil {
		return nil, fmt.Errorf("image cache: %w", err)
	}
	entry, err := d.cache.openEntry(d.key, d.dir)
	if err != nil {
		return nil, err
	}
	place := d.cache.path(imagesDir, d.key)
	if err := d.cache.discard(place); err != nil { // a damaged one
		entry.Close()
		return nil, err
	}
	if err := errors.Join(syncDir(d.dir), os.Rename(d.dir, place), syncDir(filepath.Dir(place))); err != nil {
		entry.Close()
		return nil, fmt.Errorf("image cache: %w", err)
	}
	return entry, nil
}

// Abort removes the draft. After Commit it does nothing.
func (d *Draft) Abort() { os.RemoveAll(d.dir) }

// discard moves a folder out of sight and removes it.
func (c *Cache) discard(path string) error {
	grave, err := os.MkdirTemp(c.Temp(), gonePrefix)
	if err != nil {
		return fmt.Errorf("image cache: %w", err)
	}
	err = os.Rename(path, filepath.Join(grave, "image"))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, os.RemoveAll(grave))
}

const gonePrefix = "gone-"

func writeSynced(path string, text []byte) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = file.Write(text)
	return errors.Join(err, file.Sync())
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
