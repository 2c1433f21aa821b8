// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cavaliergopher/cpio"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// cpioOf makes an archive by the system's own cpio, of what is in a folder.
func cpioOf(t *testing.T, folder string) []byte {
	t.Helper()
	command := exec.Command("sh", "-c", "find . | cpio -o -H newc --quiet")
	command.Dir = folder
	out, err := command.Output()
	must.NoError(t, err)
	return out
}

// unpackedBy unpacks an initrd by the system's own cpio and lists it, links
// and contents included.
func unpackedBy(t *testing.T, initrd []byte) map[string]string {
	t.Helper()
	folder := t.TempDir()
	command := exec.Command("cpio", "-i", "-d", "--quiet", "--no-absolute-filenames")
	command.Dir, command.Stdin = folder, bytes.NewReader(initrd)
	out, err := command.CombinedOutput()
	must.NoError(t, err, must.Sprint(string(out)))
	found := map[string]string{}
	must.NoError(t, filepath.WalkDir(folder, func(name string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		short := strings.TrimPrefix(name, folder)
		if leads, err := os.Readlink(name); err == nil {
			found[short] = "-> " + leads
			return nil
		}
		content, err := os.ReadFile(name)
		found[short] = string(content)
		return err
	}))
	return found
}

func packSite(t *testing.T) site {
	s := newSite(t, Options{MaxFileMiB: 1})
	must.NoError(t, os.MkdirAll(filepath.Join(s.root, "task/local/conf/sub"), 0o755))
	s.put("task/local/conf/app.json", []byte("{}"), 0o644)
	s.put("task/local/conf/sub/key", []byte("secret"), 0o600)
	must.NoError(t, os.Symlink("app.json", filepath.Join(s.root, "task/local/conf/link")))
	s.put("alloc/data", []byte("rows"), 0o644)
	return s
}

// pack packs mounts into an image's initrd and returns it.
func (s site) pack(base []byte, family guest.Family, mounts ...Mount) ([]byte, error) {
	s.Helper()
	image := &Image{Family: family, Source: "test"}
	if base != nil {
		s.put("base", base, 0o644)
		file, err := os.Open(filepath.Join(s.root, "base"))
		must.NoError(s, err)
		image.Initrd = file
	}
	defer image.Close()
	if err := s.store.Pack(s.request, image, mounts); err != nil {
		return nil, err
	}
	return content(s.T, image.Initrd), nil
}

func TestPack(t *testing.T) {
	s := packSite(t)
	old := t.TempDir()
	must.NoError(t, os.MkdirAll(filepath.Join(old, "etc/conf"), 0o755))
	for name, content := range map[string]string{"etc/conf/old": "old", "etc/keep": "kept", "data": "hidden"} {
		must.NoError(t, os.WriteFile(filepath.Join(old, name), []byte(content), 0o644))
	}
	must.NoError(t, os.Symlink("keep", filepath.Join(old, "etc/also")))

	conf, data := Mount{Source: "local/conf", Target: "/etc/conf"}, Mount{Source: "alloc/data", Target: "/data"}
	added := map[string]string{
		"/etc/conf/app.json": "{}", "/etc/conf/sub/key": "secret", "/etc/conf/link": "-> app.json", "/data": "rows",
	}
	packed, err := s.pack(nil, guest.Unikraft, conf, data)
	must.NoError(t, err)
	must.Eq(t, added, unpackedBy(t, packed))

	base := cpioOf(t, old)
	for _, base := range [][]byte{base, gzipped(base)} {
		packed, err = s.pack(base, guest.Unikraft, conf, data)
		must.NoError(t, err)
		merged := map[string]string{"/etc/keep": "kept", "/etc/also": "-> keep"}
		for name, content := range added {
			merged[name] = content
		}
		must.Eq(t, merged, unpackedBy(t, packed))
	}

	packed, err = s.pack(base, guest.Linux, conf)
	must.NoError(t, err)
	must.True(t, bytes.HasPrefix(packed, base), must.Sprint("Linux unpacks one archive after the other"))
	must.Zero(t, len(packed)%4)

	packed, err = s.pack(nil, guest.Unikraft, Mount{Root: filepath.Join(s.root, "alloc"), Source: ".", Target: "/"})
	must.NoError(t, err)
	must.Eq(t, map[string]string{"/data": "rows"}, unpackedBy(t, packed))

	image := &Image{}
	must.NoError(t, s.store.Pack(s.request, image, nil))
	must.Nil(t, image.Initrd)
}

func TestPack_Refused(t *testing.T) {
	s := packSite(t)
	must.NoError(t, syscall.Mkfifo(filepath.Join(s.root, "task/local/conf/sub/fifo"), 0o644))
	must.NoError(t, os.Symlink("/etc", filepath.Join(s.root, "task/local/out")))
	s.put("task/local/large", make([]byte, 2*mib), 0o644)
	file := Mount{Source: "alloc/data", Target: "/data"}
	for want, mounts := range map[string][]Mount{
		"named pipe":                {{Source: "local/conf", Target: "/c"}},
		"no such file":              {{Source: "local/none", Target: "/c"}},
		"leads outside":             {{Source: "local/out", Target: "/c"}},
		"image_paths":               {{Source: "/etc", Target: "/c"}},
		`mount target "c"`:          {{Source: "alloc/data", Target: "c"}},
		`mount target "/../c"`:      {{Source: "alloc/data", Target: "/../c"}},
		"the same place":            {file, {Source: "local/large", Target: "//data/"}},
		"which is no folder":        {file, {Source: "local/conf/app.json", Target: "/data/x"}},
		"larger than the 1 MiB":     {{Source: "local/large", Target: "/l"}},
		`mount source "local/none"`: {{Source: "local/none", Target: "/c"}},
	} {
		_, err := s.pack(nil, guest.Unikraft, mounts...)
		must.ErrorContains(t, err, want)
	}
	for want, bad := range map[string]string{
		"no cpio archive in the newc format": "noise, and no archive at all" + strings.Repeat(".", 100),
		"negative size":                      "070701" + strings.Repeat("0", 48) + "-0000001" + strings.Repeat("0", 32) + "00000002" + "00000000" + "x\x00",
	} {
		_, err := s.pack([]byte(bad), guest.Unikraft, file)
		must.ErrorContains(t, err, want)
	}
	s.nothingLeft()
}

// Whatever the image's own initrd is, packing into it ends, and what it
// writes can be read again.
func FuzzPack(f *testing.F) {
	f.Add([]byte("070701"))
	f.Add([]byte("070701" + strings.Repeat("0", 46) + "-0000001" + strings.Repeat("0", 50) + "x"))
	var seed bytes.Buffer
	p := &packer{to: &seed, archive: cpio.NewWriter(&seed), folders: map[string]bool{}}
	must.NoError(f, p.folder("etc", 0o755))
	must.NoError(f, p.writeLink(&cpio.Header{Name: "etc/l", Mode: cpio.TypeSymlink, Linkname: "x", Links: 1}))
	must.NoError(f, p.archive.Close())
	f.Add(seed.Bytes())
	f.Fuzz(func(t *testing.T, base []byte) {
		var out bytes.Buffer
		p := &packer{to: &boundedWriter{&out, mib, io.ErrShortWrite}, folders: map[string]bool{}}
		if p.pack(Request{}, bytes.NewReader(base), guest.Unikraft, nil) != nil {
			return
		}
		again := cpio.NewReader(&out)
		for {
			if _, err := again.Next(); err != nil {
				must.ErrorIs(t, err, io.EOF)
				return
			}
		}
	})
}
