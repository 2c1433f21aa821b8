// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoenig/test/must"
)

func TestMount_Open(t *testing.T) {
	s := newSite(t, Options{})
	s.put("task/local/disk", []byte("disk"), 0o600)
	s.put("images/disk", []byte("disk"), 0o644)
	must.NoError(t, os.Symlink("/etc", filepath.Join(s.root, "task/local/etc")))
	images := filepath.Join(s.root, "images")

	folder, err := s.request.OpenFolder(Mount{Source: "local"}, false)
	must.NoError(t, err)
	must.NoError(t, folder.Close())
	folder, err = s.request.OpenFolder(Mount{Root: images, Source: "."}, false) // a volume
	must.NoError(t, err)
	must.NoError(t, folder.Close())
	disk, err := s.request.OpenDisk(Mount{Source: "local/disk"}, false)
	must.NoError(t, err)
	_, err = disk.Write([]byte("new"))
	must.NoError(t, err)
	must.NoError(t, disk.Close())

	_, err = s.request.OpenFolder(Mount{Source: images}, false)
	must.ErrorContains(t, err, "read only")
	_, err = s.request.OpenDisk(Mount{Source: filepath.Join(images, "disk")}, false)
	must.ErrorContains(t, err, "read only")
	_, err = s.request.OpenFolder(Mount{Source: "local/etc"}, true)
	must.ErrorContains(t, err, "leads outside")
	_, err = s.request.OpenFolder(Mount{Source: "local/disk"}, true)
	must.ErrorContains(t, err, "is no folder")
	_, err = s.request.OpenFolder(Mount{Source: "local/absent"}, true)
	must.ErrorContains(t, err, "no such file")
	_, err = s.request.OpenDisk(Mount{Source: "local"}, true)
	must.ErrorContains(t, err, "is a folder")
}

func TestIsQCOW2(t *testing.T) {
	header := func(version, backing, features byte) []byte {
		head := make([]byte, 104)
		copy(head, qcow2Magic)
		head[7], head[15], head[79] = version, backing, features
		return head
	}
	for name, c := range map[string]struct {
		head  []byte
		is    bool
		fails string
	}{
		"raw":          {[]byte("raw"), false, ""},
		"empty":        {nil, false, ""},
		"qcow2":        {header(3, 0, 0), true, ""},
		"version 2":    {header(2, 0, qcow2DataFile), true, ""},
		"backing file": {header(2, 1, 0), true, "on top of another file"},
		"data file":    {header(3, 0, qcow2DataFile), true, "data is in another file"},
		"cut short":    {header(3, 0, 0)[:20], true, "cut short"},
	} {
		is, err := IsQCOW2(bytes.NewReader(c.head))
		must.Eq(t, c.is, is, must.Sprint(name))
		if c.fails == "" {
			must.NoError(t, err, must.Sprint(name))
			continue
		}
		must.ErrorContains(t, err, c.fails, must.Sprint(name))
	}
}

// A guest's writes to its image's disk reach neither the cache nor others.
func TestPrivateDisk(t *testing.T) {
	s := newSite(t, Options{})
	block, err := os.Open(s.put("images/block", []byte("packed"), 0o644))
	must.NoError(t, err)
	image := &Image{Block: block}
	disk, err := s.store.PrivateDisk(image)
	must.NoError(t, err)
	_, err = disk.WriteAt([]byte("soiled"), 0)
	must.NoError(t, err)
	other, err := s.store.PrivateDisk(image)
	must.NoError(t, err)
	text, err := io.ReadAll(io.NewSectionReader(other, 0, 100))
	must.NoError(t, err)
	must.Eq(t, "packed", string(text))
	must.NoError(t, disk.Close())
	must.NoError(t, other.Close())
	must.NoError(t, block.Close())
	s.nothingLeft()
}
