// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Package cache keeps pulled images on disk, by digest, for all tasks of a
// node and for several agents that share the folder.
//
// Layout of the folder (readable by its owner only):
//
//	images/KEY/           one image: about.json and its files, read-only
//	references/NAME.json  what a reference last resolved to
//	locks/KEY             held while KEY is being pulled
//	tmp/                  what is being written, or being removed
//
// An image is written in tmp and renamed into images when it is whole, so a
// crash leaves no half of one. What a crash leaves in tmp is cleared by the
// next pull of the same image, and by [Cache.Collect].
//
// What is in use is told by shared flocks on the files themselves. Such a lock
// belongs to the open file description: it is inherited by the process that
// the descriptor is handed to (QEMU), and lasts until the last one closes it,
// whatever becomes of the process that opened it. So an image counts as in use
// for as long as a guest runs from it, across restarts of the plugin.
package cache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"
)

// Cache is a folder of images. It is safe for concurrent use, also by several
// processes.
type Cache struct {
	dir      string
	maxBytes int64

	mu       sync.Mutex
	pulling  map[string]chan struct{} // by key: closed by its holder when done
	verified map[inode]struct{}       // files whose content was checked by this process
}

const mib = 1 << 20

// The cache's folders.
const (
	imagesDir     = "images"
	referencesDir = "references"
	locksDir      = "locks"
	tmpDir        = "tmp"
)

// Open opens the cache in a folder, making it where it is missing. Collect
// keeps it under maxMiB.
func Open(dir string, maxMiB int64) (*Cache, error) {
	for _, name := range []string{"", imagesDir, referencesDir, locksDir, tmpDir} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			return nil, fmt.Errorf("image cache: %w", err)
		}
	}
	return &Cache{
		dir: dir, maxBytes: maxMiB * mib,
		pulling: map[string]chan struct{}{}, verified: map[inode]struct{}{},
	}, nil
}

// Temp is the folder for files that are written and unlinked.
func (c *Cache) Temp() string { return filepath.Join(c.dir, tmpDir) }

func (c *Cache) path(parts ...string) string {
	return filepath.Join(append([]string{c.dir}, parts...)...)
}

var keyPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

// checkKey keeps keys from naming other files.
func checkKey(key string) error {
	if !keyPattern.MatchString(key) {
		return fmt.Errorf("image cache: bad key %q", key)
	}
	return nil
}

// ErrDamaged is an image whose files are not what was pulled.
var ErrDamaged = errors.New("damaged in the image cache")

// ErrInUse is an image that a guest runs from, or that is being pulled.
var ErrInUse = errors.New("in use")
