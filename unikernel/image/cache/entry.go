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
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const aboutFile = "about.json"

// About is what the cache keeps of an image beside its files.
type About struct {
	Source string          // the reference as resolved, for people
	Digest string          // the manifest's
	Pulled time.Time       // when
	Files  map[string]File // by name, such as "kernel"
	Image  json.RawMessage // the caller's own knowledge of the image
}

// File is what a cached file must be.
type File struct {
	Size   int64  // bytes
	SHA256 string // hex
}

// Entry is a cached image, its files open, verified and marked as in use until
// they are closed.
type Entry struct {
	About
	Key  string
	open map[string]*os.File
}

// Take hands one of the entry's open files over to the caller, who closes it;
// nil if the image has none of that name.
func (e *Entry) Take(name string) *os.File {
	file := e.open[name]
	delete(e.open, name)
	return file
}

// Close closes the files that were not taken.
func (e *Entry) Close() error {
	var errs []error
	for _, file := range e.open {
		errs = append(errs, file.Close())
	}
	e.open = nil
	return errors.Join(errs...)
}

// Get opens an image. The error is fs.ErrNotExist where it is not in the
// cache, and ErrDamaged where it is but not as it was pulled.
func (c *Cache) Get(key string) (*Entry, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	entry, err := c.openEntry(key, c.path(imagesDir, key))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	// The time of last use decides what goes first; it may fail on a
	// read-only disk, where nothing goes.
	_ = os.Chtimes(c.path(imagesDir, key, aboutFile), now, now)
	return entry, nil
}

func (c *Cache) openEntry(key, dir string) (*Entry, error) {
	about, err := readAbout(dir)
	if err != nil {
		return nil, err
	}
	entry := &Entry{About: about, Key: key, open: map[string]*os.File{}}
	for name, want := range about.Files {
		file, err := os.Open(filepath.Join(dir, filepath.Base(name)))
		if err != nil {
			entry.Close()
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		entry.open[name] = file
		if err := errors.Join(flock(file, unix.LOCK_SH), c.verify(file, want)); err != nil {
			entry.Close()
			return nil, err
		}
	}
	return entry, nil
}

func readAbout(dir string) (about About, err error) {
	text, err := os.ReadFile(filepath.Join(dir, aboutFile))
	if errors.Is(err, fs.ErrNotExist) {
		if _, gone := os.Stat(dir); gone == nil {
			return about, fmt.Errorf("%w: %w", ErrDamaged, errNoAbout)
		}
	}
	if err != nil {
		return about, err
	}
	if err := json.Unmarshal(text, &about); err != nil {
		return about, fmt.Errorf("%w: %s: %w", ErrDamaged, aboutFile, err)
	}
	return about, nil
}

var errNoAbout = errors.New("it has no " + aboutFile)

// inode is a file at one state: whoever writes to it moves its change time,
// which no program can set.
type inode struct {
	device, number uint64
	size           int64
	changed        unix.Timespec
}

// verify reads a file and compares its digest. A file that this process has
// verified is not read again until it changes.
func (c *Cache) verify(file *os.File, want File) error {
	var stat unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &stat); err != nil {
		return fmt.Errorf("look at %s: %w", file.Name(), err)
	}
	now := inode{stat.Dev, stat.Ino, stat.Size, stat.Ctim}
	if stat.Size != want.Size {
		return fmt.Errorf("%w: %s has %d bytes and not %d", ErrDamaged, filepath.Base(file.Name()), stat.Size, want.Size)
	}
	c.mu.Lock()
	_, known := c.verified[now]
	c.mu.Unlock()
	if known {
		return nil
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, io.NewSectionReader(file, 0, stat.Size)); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != want.SHA256 {
		return fmt.Errorf("%w: %s has the digest sha256:%s and not sha256:%s", ErrDamaged, filepath.Base(file.Name()), got, want.SHA256)
	}
	c.mu.Lock()
	c.verified[now] = struct{}{}
	c.mu.Unlock()
	return nil
}
