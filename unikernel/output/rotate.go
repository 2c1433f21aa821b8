// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package output

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Limits bound the log files of one stream.
type Limits struct {
	MaxFiles int
	MaxBytes int64 // of one file
}

// Rotated is a sink that writes the log files that `nomad alloc logs` reads:
// NAME.0, NAME.1 and so on, the highest being written. Source: Nomad,
// client/logmon/logging/rotator.go, which needs two goroutines, a timer and
// 64 KiB for each stream; here nothing runs while nothing is printed.
type Rotated struct {
	dir    *os.Root
	name   string
	limits Limits
	file   *os.File
	index  int
	size   int64 // bytes
}

// OpenRotated goes on with the newest log file NAME.N in folder dir, or begins
// the first. Containers of the same group may write to that folder, so a link
// is never followed.
func OpenRotated(dir, name string, limits Limits) (*Rotated, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the log folder: %w", err)
	}
	r := &Rotated{dir: root, name: name, limits: limits}
	indexes, err := r.indexes()
	if err == nil {
		if len(indexes) > 0 {
			r.index = indexes[len(indexes)-1]
		}
		err = r.open()
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return r, nil
}

// indexes are the numbers of the log files that exist, in order.
func (r *Rotated) indexes() ([]int, error) {
	folder, err := r.dir.Open(".")
	if err != nil {
		return nil, fmt.Errorf("listing the log folder: %w", err)
	}
	defer folder.Close()
	names, err := folder.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("listing the log folder: %w", err)
	}
	var indexes []int
	for _, name := range names {
		suffix, ok := strings.CutPrefix(name, r.name+".")
		if n, err := strconv.Atoi(suffix); ok && err == nil && n >= 0 {
			indexes = append(indexes, n)
		}
	}
	slices.Sort(indexes)
	return indexes, nil
}

func (r *Rotated) fileName(index int) string { return r.name + "." + strconv.Itoa(index) }

func (r *Rotated) open() error {
	file, err := r.dir.OpenFile(r.fileName(r.index), os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return fmt.Errorf("opening log file %s: %w", r.fileName(r.index), err)
	}
	info, err := r.identify(file)
	if err != nil {
		file.Close()
		return fmt.Errorf("opening log file %s: %w", r.fileName(r.index), err)
	}
	r.file, r.size = file, info.Size()
	return nil
}

// identify makes sure that the file is the one of that name: a Root stays
// within its folder, yet follows links there.
func (r *Rotated) identify(file *os.File) (os.FileInfo, error) {
	opened, err := file.Stat()
	if err != nil {
		return nil, err
	}
	named, err := r.dir.Lstat(r.fileName(r.index))
	if err != nil {
		return nil, err
	}
	if !opened.Mode().IsRegular() || !os.SameFile(opened, named) {
		return nil, errors.New("it is no regular file: something replaced it")
	}
	return opened, nil
}

// Write appends data, and begins a new file at the end of a line where one is
// full.
func (r *Rotated) Write(data []byte) (int, error) {
	written := 0
	for len(data) > 0 {
		part := r.fitting(data)
		if part == 0 {
			if err := r.rotate(); err != nil {
				return written, err
			}
			continue
		}
		n, err := r.file.Write(data[:part])
		written += n
		r.size += int64(n)
		if err != nil {
			return written, fmt.Errorf("writing log file %s: %w", r.fileName(r.index), err)
		}
		data = data[part:]
	}
	return written, nil
}

// fitting is how much of data goes into the file as it is: all, or up to the
// end of its last line that fits. A line longer than a file is cut.
func (r *Rotated) fitting(data []byte) int {
	room := r.limits.MaxBytes - r.size
	if int64(len(data)) <= room {
		return len(data)
	}
	if room <= 0 {
		return 0
	}
	if end := bytes.LastIndexByte(data[:room], '\n'); end >= 0 {
		return end + 1
	}
	if r.size > 0 {
		return 0
	}
	return int(room)
}

func (r *Rotated) rotate() error {
	r.index++
	old := r.file
	if err := r.open(); err != nil {
		r.index--
		return err
	}
	old.Close()
	return r.prune()
}

func (r *Rotated) prune() error {
	indexes, err := r.indexes()
	if err != nil {
		return err
	}
	surplus := max(0, len(indexes)-r.limits.MaxFiles)
	for _, index := range indexes[:surplus] {
		if err := r.dir.Remove(r.fileName(index)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing an old log file: %w", err)
		}
	}
	return nil
}

// SetWriteDeadline does nothing: a file never waits for a reader.
func (r *Rotated) SetWriteDeadline(time.Time) error { return nil }

// Close closes the newest file.
func (r *Rotated) Close() error { return errors.Join(r.file.Close(), r.dir.Close()) }

// Discard is a sink for a task whose job turned its logs off.
type Discard struct{}

// Write takes all.
func (Discard) Write(data []byte) (int, error) { return len(data), nil }

// SetWriteDeadline does nothing.
func (Discard) SetWriteDeadline(time.Time) error { return nil }

// Close does nothing.
func (Discard) Close() error { return nil }
