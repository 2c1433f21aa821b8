// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Info tells of one image in the cache.
type Info struct {
	Key        string
	Source     string   // as first pulled
	Digest     string   // the manifest's
	References []string // that resolve to it
	SizeBytes  int64
	LastUsed   time.Time
	InUse      bool // a guest runs from it
	Damaged    bool // it will be pulled again
}

// List tells of every image, the least recently used one first.
func (c *Cache) List() ([]Info, error) {
	dirs, err := os.ReadDir(c.path(imagesDir))
	if err != nil {
		return nil, fmt.Errorf("image cache: %w", err)
	}
	references, err := c.references()
	if err != nil {
		return nil, fmt.Errorf("image cache: %w", err)
	}
	names := map[string][]string{}
	for _, reference := range references {
		names[reference.Key] = append(names[reference.Key], reference.Name)
	}
	var infos []Info
	for _, dir := range dirs {
		info, err := c.info(dir.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		info.References = names[info.Key]
		slices.Sort(info.References)
		infos = append(infos, info)
	}
	slices.SortFunc(infos, func(a, b Info) int { return a.LastUsed.Compare(b.LastUsed) })
	return infos, nil
}

func (c *Cache) info(key string) (Info, error) {
	dir := c.path(imagesDir, key)
	info := Info{Key: key}
	about, err := readAbout(dir)
	switch {
	case errors.Is(err, ErrDamaged):
		info.Damaged = true
	case err != nil:
		return Info{}, err
	}
	info.Source, info.Digest = about.Source, about.Digest
	if stat, err := os.Stat(filepath.Join(dir, aboutFile)); err == nil {
		info.LastUsed = stat.ModTime()
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return Info{}, err
	}
	for _, file := range files {
		if stat, err := file.Info(); err == nil {
			info.SizeBytes += stat.Size()
		}
	}
	held, err := c.hold(key)
	info.InUse = errors.Is(err, ErrInUse)
	closeAll(held)
	return info, nil
}

// hold locks all files of an image against use; ErrInUse if one is in use.
func (c *Cache) hold(key string) ([]*os.File, error) {
	paths, err := filepath.Glob(c.path(imagesDir, key, "*"))
	if err != nil {
		return nil, err
	}
	var held []*os.File
	for _, path := range paths {
		file, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			held = append(held, file)
			err = flock(file, unix.LOCK_EX|unix.LOCK_NB)
		}
		if err != nil {
			closeAll(held)
			return nil, err
		}
	}
	return held, nil
}

func closeAll(files []*os.File) {
	for _, file := range files {
		file.Close()
	}
}

// Remove removes an image; ErrInUse where a guest runs from it.
func (c *Cache) Remove(key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	held, err := c.hold(key)
	if err != nil {
		return err
	}
	// Whoever opens a file from here on waits for the lock and then holds a
	// file that has lost its name, which serves him as well.
	defer closeAll(held)
	return c.discard(c.path(imagesDir, key))
}

// Drop removes an image that is damaged, whoever uses it.
func (c *Cache) Drop(key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	return c.discard(c.path(imagesDir, key))
}

// Collect removes the least recently used images until the cache and what is
// still to come (bytes) are within its size, never one in use, and clears what
// crashes left. It returns what it removed.
func (c *Cache) Collect(coming int64) ([]Info, error) {
	return c.collect(c.maxBytes-coming, time.Now())
}

func (c *Cache) collect(limit int64, now time.Time) ([]Info, error) {
	c.sweep(now)
	infos, err := c.List()
	if err != nil {
		return nil, err
	}
	var total int64
	for _, info := range infos {
		total += info.SizeBytes
	}
	var removed []Info
	for _, info := range infos {
		if total <= limit && !info.Damaged {
			continue
		}
		err := c.Remove(info.Key)
		if errors.Is(err, ErrInUse) {
			continue
		}
		if err != nil {
			return removed, err
		}
		total -= info.SizeBytes
		removed = append(removed, info)
	}
	c.forget()
	return removed, nil
}

// staleAfter is how old a file in tmp must be to be a crash's. What is written
// there without a lock is renamed or unlinked at once.
const staleAfter = time.Hour

// sweep clears tmp of drafts that nobody is writing, and of other files that
// have grown old.
func (c *Cache) sweep(now time.Time) {
	files, err := os.ReadDir(c.Temp())
	if err != nil {
		return
	}
	for _, file := range files {
		if checkKey(file.Name()) == nil {
			c.sweepDraft(file.Name())
			continue
		}
		info, err := file.Info()
		if err == nil && now.Sub(info.ModTime()) > staleAfter {
			os.RemoveAll(filepath.Join(c.Temp(), file.Name()))
		}
	}
}

func (c *Cache) sweepDraft(key string) {
	lock, err := c.tryLock(key)
	if err != nil {
		return
	}
	defer lock.Close()
	defer os.Remove(lock.Name())
	os.RemoveAll(c.path(tmpDir, key))
}

// forget clears references to images that are gone.
func (c *Cache) forget() {
	references, err := c.references()
	if err != nil {
		return
	}
	for path, reference := range references {
		if _, err := os.Stat(c.path(imagesDir, reference.Key)); reference.Key == "" || errors.Is(err, fs.ErrNotExist) {
			os.Remove(path)
		}
	}
}

// Find returns the key of the one image that a person means: its key or
// digest, or the start of one, or a reference to it.
func (c *Cache) Find(name string) (string, error) {
	infos, err := c.List()
	if err != nil {
		return "", err
	}
	var found []string
	for _, info := range infos {
		if info.means(name) {
			found = append(found, info.Key)
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("no image %q in the cache", name)
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("%q could mean %d images: give more of its digest", name, len(found))
}

func (i Info) means(name string) bool {
	if name == "" {
		return false
	}
	digest := strings.TrimPrefix(i.Digest, "sha256:")
	return strings.HasPrefix(i.Key, name) || strings.HasPrefix(digest, strings.TrimPrefix(name, "sha256:")) ||
		i.Source == name || slices.Contains(i.References, name)
}
