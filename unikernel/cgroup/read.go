// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// maxFile bounds what is read of one file: the longest, memory.stat, has 1 to
// 3 KiB.
const maxFile = 16 << 10

var buffers = sync.Pool{New: func() any { return new([maxFile]byte) }}

// reader reads files of a group until the first error, into one buffer.
type reader struct {
	buffer *[maxFile]byte
	err    error
}

func newReader() *reader { return &reader{buffer: buffers.Get().(*[maxFile]byte)} }

// close gives the buffer back, and returns the first error.
func (r *reader) close() error {
	buffers.Put(r.buffer)
	return gone(r.err)
}

// number reads a file that holds a number alone.
func (r *reader) number(path string) uint64 {
	text := bytes.TrimSpace(r.text(path))
	if r.err != nil {
		return 0
	}
	n, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil {
		r.err = fmt.Errorf("reading %s: %w", path, err)
	}
	return n
}

// wanted is where numbers of a table go, by their names.
type wanted map[string]*uint64

// table reads a file with lines of a name and a number.
func (r *reader) table(path string, want wanted) {
	for line := range bytes.Lines(r.text(path)) {
		name, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte{' '})
		if to, ok := want[string(name)]; ok && r.err == nil {
			if *to, r.err = strconv.ParseUint(string(value), 10, 64); r.err != nil {
				r.err = fmt.Errorf("reading %s of %s: %w", name, path, r.err)
			}
		}
	}
}

// text reads a whole file; what it returns holds until the next file is read.
func (r *reader) text(path string) []byte {
	if r.err != nil {
		return nil
	}
	var n int
	if n, r.err = readInto(path, r.buffer[:]); r.err != nil {
		r.err = fmt.Errorf("reading %s: %w", path, r.err)
	}
	return r.buffer[:n]
}

// readInto reads a whole file of the kernel's. os.ReadFile makes ten system
// calls for that, as it prepares to wait for the file, which is no use here.
func readInto(path string, buffer []byte) (n int, err error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(fd) }()
	for n < len(buffer) {
		m, err := unix.Read(fd, buffer[n:])
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENODEV): // the group was removed after open
			return 0, os.ErrNotExist
		case err != nil:
			return 0, err
		case m == 0:
			return n, nil
		default:
			n += m
		}
	}
	return 0, fmt.Errorf("it is longer than %d bytes", len(buffer))
}
