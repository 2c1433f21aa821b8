// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Package output carries what a guest prints from QEMU to the logs that
// operators read, so that no reader, slow, stalled or gone, ever holds up the
// guest, and nothing is lost while the driver is away.
//
// QEMU appends the console to a file, the Spool: that never waits. A Pump moves
// the Spool's content into a Sink, and gives the disk back as it goes.
package output

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// block is the unit in which file systems give back parts of a file, in bytes.
	block = 4096
	// kept is how much of what was printed last is never punched out, in bytes.
	kept = 2 * block
)

// Spool is a file that one process appends to and this one takes from. Its
// length counts all that was ever printed, but what was taken holds no disk,
// save the last of it: it is punched out. How far it was taken is kept in a second file, the mark.
type Spool struct {
	path    string
	file    *os.File
	mark    *os.File
	taken   int64 // bytes
	punched int64 // bytes
}

const markSuffix = ".taken"

// CreateSpool makes an empty spool at path, readable by this user alone.
func CreateSpool(path string) (*Spool, error) {
	return openSpool(path, os.O_CREATE|os.O_EXCL)
}

// OpenSpool opens a spool again where an earlier life of this program left off.
func OpenSpool(path string) (*Spool, error) {
	return openSpool(path, 0)
}

func openSpool(path string, flags int) (*Spool, error) {
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the console's spool: %w", err)
	}
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		file.Close()
		return nil, fmt.Errorf("opening the console's spool: %s is no regular file: something replaced it", path)
	}
	mark, err := os.OpenFile(path+markSuffix, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("opening the console's spool: %w", err)
	}
	s := &Spool{path: path, file: file, mark: mark}
	var at [8]byte
	if _, err := mark.ReadAt(at[:], 0); err == nil { // empty: nothing was taken
		s.taken = int64(binary.BigEndian.Uint64(at[:]))
	}
	return s, nil
}

// Writer opens the spool for the process that prints: for appending only.
func (s *Spool) Writer() (*os.File, error) {
	file, err := os.OpenFile(s.path, os.O_WRONLY|os.O_APPEND|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the console's spool for QEMU: %w", err)
	}
	return file, nil
}

// Waiting is how much was printed and not yet taken, in bytes.
func (s *Spool) Waiting() (int64, error) {
	info, err := s.file.Stat()
	if err != nil {
		return 0, fmt.Errorf("looking at the console's spool: %w", err)
	}
	return info.Size() - s.taken, nil
}

// LastLines are the last lines that were printed, taken or not: what a life of
// this program that ended took may not have arrived anywhere. Nothing readable
// means no lines.
func (s *Spool) LastLines() []string {
	info, err := s.file.Stat()
	if err != nil {
		return nil
	}
	text := make([]byte, min(info.Size(), kept))
	n, _ := s.file.ReadAt(text, info.Size()-int64(len(text)))
	if n == 0 {
		return nil
	}
	return strings.Split(strings.ReplaceAll(string(text[:n]), "\r", ""), "\n")
}

// read fills buffer with what comes next, without taking it.
func (s *Spool) read(buffer []byte) (int, error) {
	n, err := s.file.ReadAt(buffer, s.taken)
	if n > 0 || errors.Is(err, io.EOF) {
		return n, nil
	}
	return 0, fmt.Errorf("reading the console's spool: %w", err)
}

// take notes that the next n bytes have gone on.
func (s *Spool) take(n int64) error {
	s.taken += n
	var at [8]byte
	binary.BigEndian.PutUint64(at[:], uint64(s.taken))
	if _, err := s.mark.WriteAt(at[:], 0); err != nil {
		return fmt.Errorf("noting how far the console's spool was read: %w", err)
	}
	return s.punch()
}

// punch gives the taken part back to the file system, many blocks at a time.
// Where the file system cannot do that, the part stays until the task's end.
func (s *Spool) punch() error {
	const step = 16 * block
	end := (s.taken - kept) / block * block
	if end-s.punched < step {
		return nil
	}
	err := unix.Fallocate(int(s.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, s.punched, end-s.punched)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("giving back a part of the console's spool: %w", err)
	}
	s.punched = end
	return nil
}

// Close closes the spool and leaves it where it is.
func (s *Spool) Close() error { return errors.Join(s.file.Close(), s.mark.Close()) }

// RemoveSpool removes the spool at path. It may be called when there is none.
func RemoveSpool(path string) error {
	var errs []error
	for _, name := range []string{path, path + markSuffix} {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("removing the console's spool: %w", err))
		}
	}
	return errors.Join(errs...)
}
