// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/klauspost/compress/zstd"
)

// settle makes a file one that a guest can be given: uncompressed, readable
// by every user, not over the size limit. It takes the file over: what it
// returns replaces it, and on an error it stays the caller's.
func (s *Store) settle(file *os.File, field, value string) (*os.File, error) {
	unpack, err := compression(file)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", field, value, err)
	}
	if unpack == nil {
		return s.readable(file, field, value)
	}
	source, err := unpack.open(io.NewSectionReader(file, 0, 1<<62))
	if err != nil {
		return nil, fmt.Errorf("%s %q: unpack %s: %w", field, value, unpack.name, err)
	}
	defer source.Close()
	return s.replace(file, source, fmt.Sprintf("%s %q: unpack %s", field, value, unpack.name))
}

// readable is settle without unpacking.
func (s *Store) readable(file *os.File, field, value string) (*os.File, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", field, value, err)
	}
	if info.Size() == 0 {
		return nil, fmt.Errorf("%s %q: is empty", field, value)
	}
	if info.Size() > s.maxFile() {
		return nil, fmt.Errorf("%s %q: %w: it has %d MiB", field, value, s.errTooLarge(), info.Size()/mib)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && handsOn(stat.Mode, stat.Uid, os.Geteuid()) {
		return file, nil
	}
	return s.replace(file, io.NewSectionReader(file, 0, info.Size()), fmt.Sprintf("%s %q: copy", field, value))
}

// handsOn tells whether a file is handed on itself: everybody may read it
// (QEMU reopens it as an unprivileged user), and nobody but root and this
// process may write it, so that it stays what was checked.
func handsOn(mode, owner uint32, self int) bool {
	const othersRead, notOwnerWrites = 0o004, 0o022
	return mode&othersRead != 0 && mode&notOwnerWrites == 0 && (owner == 0 || int(owner) == self)
}

// replace copies source into an unlinked file and closes the old one.
func (s *Store) replace(old *os.File, source io.Reader, what string) (*os.File, error) {
	file, err := s.privateCopy(source)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	old.Close()
	return file, nil
}

func (s *Store) maxFile() int64 { return s.options.MaxFileMiB * mib }

func (s *Store) errTooLarge() error {
	return fmt.Errorf("larger than the %d MiB that a kernel or initrd may have", s.options.MaxFileMiB)
}

// privateCopy is a private file with the content of source, up to the size
// limit.
func (s *Store) privateCopy(source io.Reader) (*os.File, error) {
	return s.private(func(to io.Writer) error {
		_, err := io.Copy(to, &bounded{source, s.maxFile(), s.errTooLarge()})
		return damaged(err)
	})
}

// private makes a file that has no name, that everybody may read, and that the
// returned descriptor cannot write. It lies on disk and not in memory (memfd),
// because QEMU keeps the descriptor as long as it runs.
func (s *Store) private(fill func(io.Writer) error) (*os.File, error) {
	stored, err := s.openCache()
	if err != nil {
		return nil, err
	}
	writer, err := os.CreateTemp(stored.Temp(), "copy-*")
	if err != nil {
		return nil, err
	}
	defer writer.Close()
	if err := os.Remove(writer.Name()); err != nil {
		return nil, err
	}
	if err := fill(writer); err != nil {
		return nil, err
	}
	if err := writer.Chmod(0o444); err != nil {
		return nil, err
	}
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", writer.Fd()))
}

// bounded fails where there is more to read than allowed.
type bounded struct {
	from io.Reader
	left int64
	err  error
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.from.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, b.err
	}
	return n, err
}

// damaged puts the ends of a stream that came too early into words.
func damaged(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the file ends too early, it was cut short: %w", err)
	}
	return err
}

// unpacker undoes one kind of compression.
type unpacker struct {
	name  string
	magic []byte
	open  func(io.Reader) (io.ReadCloser, error)
}

// zstdWindow is the most memory that unpacking zstd may take. The format's
// own recommendation for decoders is 8 MiB; kernels are packed with up to 128.
const zstdWindow = 128 * mib

var unpackers = []unpacker{
	{"gzip", []byte{0x1f, 0x8b}, func(r io.Reader) (io.ReadCloser, error) {
		return gzip.NewReader(r)
	}},
	{"zstd", []byte{0x28, 0xb5, 0x2f, 0xfd}, func(r io.Reader) (io.ReadCloser, error) {
		decoder, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdWindow))
		if err != nil {
			return nil, err
		}
		return decoder.IOReadCloser(), nil
	}},
}

// compression tells how a file is compressed; nil: not in a way known.
func compression(file io.ReaderAt) (*unpacker, error) {
	head := make([]byte, 4)
	n, err := file.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	for i := range unpackers {
		if bytes.HasPrefix(head[:n], unpackers[i].magic) {
			return &unpackers[i], nil
		}
	}
	return nil, nil
}
