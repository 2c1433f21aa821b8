// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
)

// Mount is a file or folder of the host that a guest is to find.
type Mount struct {
	Source string // a path as a job may write it for an image
	Target string // where the guest finds it, absolute
	// Root, if given, is a folder that Source is relative to: one that the
	// job's rules say nothing of, such as a volume that Nomad has allowed.
	Root string
}

func (m Mount) place(request Request) (place, error) {
	if m.Root != "" {
		return place{m.Root, m.Source}, nil
	}
	return request.place(m.Source)
}

// OpenFolder opens a mount's folder, to be shared with a guest.
func (r Request) OpenFolder(m Mount, readOnly bool) (*os.File, error) {
	where, err := m.place(r)
	if err == nil && !readOnly {
		err = r.writable(m, where)
	}
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(where.root)
	if err != nil {
		return nil, fmt.Errorf("open its folder: %w", err)
	}
	defer root.Close()
	info, err := root.Stat(where.name)
	if err != nil {
		return nil, where.explain(err)
	}
	if !info.IsDir() {
		return nil, errors.New("is no folder, and 9p shares folders only: name the folder that it is in")
	}
	folder, err := root.OpenFile(where.name, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, where.explain(err)
	}
	return folder, nil
}

// OpenDisk opens a mount's file, to be a disk of a guest.
func (r Request) OpenDisk(m Mount, readOnly bool) (*os.File, error) {
	where, err := m.place(r)
	if err == nil && !readOnly {
		err = r.writable(m, where)
	}
	if err != nil {
		return nil, err
	}
	if readOnly {
		return where.open(os.O_RDONLY)
	}
	return where.open(os.O_RDWR)
}

// writable refuses what a guest may not write: the operator's image_paths are
// for reading.
func (r Request) writable(m Mount, where place) error {
	if m.Root == "" && slices.Contains(r.ImagePaths, where.root) && where.root != r.TaskDir && where.root != r.AllocDir {
		return errors.New("is under the plugin's image_paths, which are read only: set readonly = true, or use a volume")
	}
	return nil
}

// Facts of QEMU's qcow2 format (docs/interop/qcow2.txt).
var qcow2Magic = []byte("QFI\xfb")

const (
	qcow2BackingAt  = 8  // offset of the backing file's name; 0: none
	qcow2FeaturesAt = 72 // incompatible features, from version 3 on
	qcow2DataFile   = 1 << 2
)

// IsQCOW2 tells whether a file holds a disk in QEMU's own format. It fails
// where that disk lies in other files, too: these would be opened by names
// that are in it.
func IsQCOW2(file io.ReaderAt) (bool, error) {
	head := make([]byte, 80)
	n, err := file.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	if !bytes.HasPrefix(head[:n], qcow2Magic) {
		return false, nil
	}
	if n < len(head) {
		return true, errors.New("its qcow2 header is cut short")
	}
	if binary.BigEndian.Uint64(head[qcow2BackingAt:]) != 0 {
		return true, errors.New("is a qcow2 disk on top of another file, which is not followed: make one file of them by qemu-img convert")
	}
	if version := binary.BigEndian.Uint32(head[4:]); version > 2 && binary.BigEndian.Uint64(head[qcow2FeaturesAt:])&qcow2DataFile != 0 {
		return true, errors.New("is a qcow2 disk whose data is in another file, which is not followed: make one file of them by qemu-img convert")
	}
	return true, nil
}

// PrivateDisk copies the image's own disk for one guest, which may write to
// it. The copy has no name and goes with the last one who has it open.
func (s *Store) PrivateDisk(image *Image) (*os.File, error) {
	info, err := image.Block.Stat()
	if err != nil {
		return nil, err
	}
	stored, err := s.openCache()
	if err != nil {
		return nil, err
	}
	disk, err := os.CreateTemp(stored.Temp(), "disk-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(disk.Name()); err != nil {
		disk.Close()
		return nil, err
	}
	if _, err := io.Copy(disk, io.NewSectionReader(image.Block, 0, info.Size())); err != nil {
		disk.Close()
		return nil, fmt.Errorf("copy the image's disk: %w", err)
	}
	return disk, nil
}
