// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/shoenig/test/must"
	"golang.org/x/sys/unix"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// site is a task's folders and a store, for tests.
type site struct {
	*testing.T
	store   *Store
	request Request
	root    string // holds task/, alloc/ and images/
}

func newSite(t *testing.T, options Options) site {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"task/local", "task/secrets", "alloc", "images"} {
		must.NoError(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	if options.CacheDir == "" {
		options.CacheDir = filepath.Join(root, "cache")
	}
	store, err := NewStore(options)
	must.NoError(t, err)
	store.patience = patience{tries: 3, first: time.Millisecond, stall: time.Minute}
	request := Request{
		Host:    guest.ARM64,
		TaskDir: filepath.Join(root, "task"), AllocDir: filepath.Join(root, "alloc"),
		ImagePaths: []string{filepath.Join(root, "images")},
	}
	return site{t, store, request, root}
}

// put writes a file under the site's root.
func (s site) put(name string, content []byte, mode os.FileMode) string {
	s.Helper()
	path := filepath.Join(s.root, name)
	must.NoError(s, os.WriteFile(path, content, 0o600))
	must.NoError(s, os.Chmod(path, mode))
	return path
}

// open opens an image, to be closed at the test's end.
func (s site) open(request Request) *Image {
	s.Helper()
	image, err := s.store.Open(context.Background(), request, nil)
	must.NoError(s, err)
	s.Cleanup(func() { must.NoError(s, image.Close()) })
	return image
}

// refused opens an image that must not open, and returns why.
func (s site) refused(request Request) string {
	s.Helper()
	image, err := s.store.Open(context.Background(), request, nil)
	must.Error(s, err)
	must.Nil(s, image)
	return err.Error()
}

// nothingLeft checks that nothing half-done lies in the cache.
func (s site) nothingLeft() {
	s.Helper()
	for _, dir := range []string{"tmp", "locks"} {
		left, err := os.ReadDir(filepath.Join(s.root, "cache", dir))
		must.NoError(s, err)
		must.SliceEmpty(s, left)
	}
}

func content(t *testing.T, file *os.File) []byte {
	t.Helper()
	data, err := io.ReadAll(io.NewSectionReader(file, 0, 1<<40))
	must.NoError(t, err)
	return data
}

func TestOpen_Paths(t *testing.T) {
	s := newSite(t, Options{})
	for _, name := range []string{"task/local/k", "task/secrets/k", "task/k", "alloc/k", "images/k"} {
		s.put(name, arm64Image([]byte(name)...), 0o644)
	}
	must.NoError(t, os.Symlink("k", filepath.Join(s.root, "task/local/link")))

	for reference, file := range map[string]string{
		"local/k":                             "task/local/k",
		"./local/k":                           "task/local/k",
		"./k":                                 "task/k",
		"secrets/k":                           "task/secrets/k",
		"alloc/k":                             "alloc/k",
		"local/link":                          "task/local/k",
		filepath.Join(s.root, "images/k"):     "images/k",
		filepath.Join(s.root, "task/local/k"): "task/local/k", // as ${NOMAD_TASK_DIR} gives it
		filepath.Join(s.root, "alloc/k"):      "alloc/k",
	} {
		t.Run(reference, func(t *testing.T) {
			s.request.Image = reference
			image := s.open(s.request)
			must.Eq(t, arm64Image([]byte(file)...), content(t, image.Kernel))
			must.Eq(t, guest.ARM64, image.Arch)
			must.Eq(t, reference, image.Source)
		})
	}
}

func TestOpen_PathsRefused(t *testing.T) {
	s := newSite(t, Options{})
	outside := s.put("outside", arm64Image(), 0o644)
	dir := filepath.Join(s.root, "task/local")
	must.NoError(t, os.Symlink(outside, filepath.Join(dir, "absolute")))
	must.NoError(t, os.Symlink("../../outside", filepath.Join(dir, "relative")))
	must.NoError(t, os.Symlink("loop", filepath.Join(dir, "loop")))
	must.NoError(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o644))
	s.request.ImagePaths = append(s.request.ImagePaths, "/dev")
	listener, err := net.Listen("unix", filepath.Join(dir, "socket"))
	must.NoError(t, err)
	defer listener.Close()

	for reference, want := range map[string]string{
		"local/none":                       "no such file",
		"local/absolute":                   "leads outside",
		"local/relative":                   "leads outside",
		"local/loop":                       "too many levels",
		"../outside":                       "leads outside",
		"local/../../outside":              "leads outside",
		outside:                            "not under any of the plugin's image_paths",
		"/etc/passwd":                      "not under any of the plugin's image_paths",
		"local/fifo":                       "named pipe",
		"local/device":                     "device",
		"local/socket":                     "socket",
		"./local":                          "folder",
		filepath.Join(s.root, "task"):      "folder",
		filepath.Join(s.root, "images/no"): "no such file",
	} {
		t.Run(reference, func(t *testing.T) {
			s.request.Image = reference
			got := s.refused(s.request)
			must.StrContains(t, got, want)
			must.StrContains(t, got, `image "`+reference+`"`)
		})
	}
	s.request.Image = outside
	s.request.ImagePaths = nil
	must.StrContains(t, s.refused(s.request), "it has none")
}

func TestOpen_Arch(t *testing.T) {
	s := newSite(t, Options{})
	s.put("task/local/k", arm64Image(), 0o644)
	s.request.Image, s.request.Arch = "local/k", guest.X86_64
	must.StrContains(t, s.refused(s.request), `kernel for arm64 and arch = "x86_64"`)
	s.request.Arch = guest.ARM64
	must.Eq(t, guest.ARM64, s.open(s.request).Arch)
}

func TestOpen_Family(t *testing.T) {
	s := newSite(t, Options{})
	s.put("task/local/plain", arm64Image(), 0o644)
	s.put("task/local/unikraft", unikraftELF("0.17.0"), 0o644)

	s.request.Image = "local/plain"
	must.Eq(t, "", s.open(s.request).Family)
	s.request.Family, s.request.Release = guest.Linux, "6.6"
	must.Eq(t, guest.Linux, s.open(s.request).Family)
	must.Eq(t, "6.6", s.open(s.request).Release)

	s.request.Image = "local/unikraft"
	must.StrContains(t, s.refused(s.request), `guest = "linux", and the kernel says that it is unikraft`)
	s.request.Family, s.request.Release = guest.Mirage, ""
	must.Eq(t, guest.Mirage, s.open(s.request).Family)
	must.Eq(t, "0.17.0", s.open(s.request).Release)
}

func TestOpen_Tender(t *testing.T) {
	s := newSite(t, Options{})
	s.put("task/local/k", solo5ELF(183, solo5SPT), 0o644)
	s.request.Image = "local/k"
	must.StrContains(t, s.refused(s.request), "QEMU cannot run it; build for QEMU with mirage configure -t virtio")
}

func TestOpen_Compressed(t *testing.T) {
	kernel, cpio := arm64Image(bytes.Repeat([]byte("kernel"), 1000)...), []byte("070701, pretended")
	for name, pack := range map[string]func([]byte) []byte{"gzip": gzipped, "zstd": zstded} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, Options{})
			s.put("task/local/k", pack(kernel), 0o644)
			s.put("task/local/i", pack(cpio), 0o644)
			s.request.Image, s.request.Initrd = "local/k", "local/i"
			image := s.open(s.request)
			must.Eq(t, kernel, content(t, image.Kernel))
			must.Eq(t, cpio, content(t, image.Initrd))
			sealed(t, image.Kernel)

			// Linux unpacks its initrd itself.
			s.request.Family = guest.Linux
			must.Eq(t, pack(cpio), content(t, s.open(s.request).Initrd))

			s.put("task/local/k", pack(kernel)[:40], 0o644)
			must.StrContains(t, s.refused(s.request), "cut short")
			s.nothingLeft()
		})
	}
}

func TestOpen_Bounded(t *testing.T) {
	s := newSite(t, Options{MaxFileMiB: 1})
	s.put("task/local/bomb", gzipped(arm64Image(make([]byte, 2*mib)...)), 0o644)
	s.put("task/local/large", arm64Image(make([]byte, 2*mib)...), 0o644)
	for _, s.request.Image = range []string{"local/bomb", "local/large"} {
		must.StrContains(t, s.refused(s.request), "larger than the 1 MiB")
	}
}

// What others may not read, or may write, is handed on as a copy.
func TestOpen_Copied(t *testing.T) {
	s := newSite(t, Options{})
	for _, mode := range []os.FileMode{0o600, 0o666, 0o664} {
		s.put("task/local/k", arm64Image(1, 2, 3), mode)
		s.request.Image = "local/k"
		image := s.open(s.request)
		sealed(t, image.Kernel)
		must.Eq(t, arm64Image(1, 2, 3), content(t, image.Kernel))
	}
}

func TestHandsOn(t *testing.T) {
	for _, c := range []struct {
		mode, owner uint32
		want        bool
	}{
		{0o644, 0, true}, {0o444, 1000, true}, {0o755, 0, true},
		{0o644, 1001, false}, {0o640, 0, false}, {0o664, 0, false}, {0o646, 0, false},
	} {
		must.Eq(t, c.want, handsOn(c.mode, c.owner, 1000), must.Sprintf("%o of %d", c.mode, c.owner))
	}
}

// The file that was checked stays what is booted when its path is swapped.
func TestOpen_Swapped(t *testing.T) {
	s := newSite(t, Options{})
	s.put("task/local/k", arm64Image(1), 0o644)
	s.request.Image = "local/k"
	image := s.open(s.request)
	must.Eq(t, 1, links(t, image.Kernel), must.Sprint("the file itself"))
	other := s.put("task/local/other", []byte("#!/bin/sh"), 0o644)
	must.NoError(t, os.Rename(other, filepath.Join(s.root, "task/local/k")))
	must.Eq(t, arm64Image(1), content(t, image.Kernel))
}

// A path whose file is swapped for a link that leads outside, again and again
// while it is opened, gives the file or an error, never what is outside.
func TestOpen_Race(t *testing.T) {
	s := newSite(t, Options{})
	inside, outside := arm64Image(1), arm64Image(2)
	link := s.put("outside", outside, 0o644)
	dir := filepath.Join(s.root, "task/local")
	path, next := filepath.Join(dir, "k"), filepath.Join(dir, "next")
	s.put("task/local/k", inside, 0o644)
	stop, stopped := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() {
		close(stop)
		<-stopped
	})
	go func() {
		defer close(stopped)
		for swapped := false; ; swapped = !swapped {
			select {
			case <-stop:
				return
			default:
			}
			if swapped {
				_ = os.WriteFile(next, inside, 0o644)
			} else {
				_ = os.Symlink(link, next)
			}
			_ = os.Rename(next, path)
		}
	}()
	s.request.Image = "local/k"
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// Until both have been met often: on a busy machine either lasts for long.
	for opened, refused := 0, 0; opened < 50 || refused < 50; {
		must.NoError(t, ctx.Err(), must.Sprintf("opened %d times, refused %d times", opened, refused))
		image, err := s.store.Open(ctx, s.request, nil)
		if err != nil {
			refused++
			continue
		}
		opened++
		must.NotEq(t, outside, content(t, image.Kernel))
		must.NoError(t, image.Close())
	}
}

func TestOpen_Initrd(t *testing.T) {
	s := newSite(t, Options{})
	s.put("task/local/k", arm64Image(), 0o644)
	s.put("task/local/empty", nil, 0o644)
	s.request.Image = "local/k"
	must.Nil(t, s.open(s.request).Initrd)
	s.request.Initrd = "local/none"
	must.StrContains(t, s.refused(s.request), `initrd "local/none": no such file`)
	s.request.Initrd = "local/empty"
	must.StrContains(t, s.refused(s.request), `initrd "local/empty": is empty`)
}

func TestLacks(t *testing.T) {
	image := Image{}
	_, known := image.Lacks("LIBPOSIX_ENVIRON_LIBPARAM")
	must.False(t, known)
	image.Features = []string{"CONFIG_A=y", "CONFIG_B=n", "CONFIG_AB=y"}
	for feature, want := range map[string]bool{"A": false, "CONFIG_A": false, "B": true, "C": true} {
		lacks, known := image.Lacks(feature)
		must.True(t, known)
		must.Eq(t, want, lacks, must.Sprint(feature))
	}
}

func TestNewStore_Refused(t *testing.T) {
	for _, options := range []Options{{MaxSizeMiB: -1}, {MaxFileMiB: -1}, {CacheDir: "relative"}, {Mirrors: map[string][]string{"docker.io": {"mirror"}}}} {
		_, err := NewStore(options)
		must.Error(t, err)
	}
}

func links(t *testing.T, file *os.File) int {
	t.Helper()
	var stat unix.Stat_t
	must.NoError(t, unix.Fstat(int(file.Fd()), &stat))
	return int(stat.Nlink)
}

// sealed checks that a file has no name, that all may read it, and that the
// descriptor cannot write it.
func sealed(t *testing.T, file *os.File) {
	t.Helper()
	var stat unix.Stat_t
	must.NoError(t, unix.Fstat(int(file.Fd()), &stat))
	must.Zero(t, links(t, file))
	must.Eq(t, 0o444, stat.Mode&0o777)
	_, err := file.Write([]byte{1})
	must.ErrorIs(t, err, syscall.EBADF)
}

func gzipped(data []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(data); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return out.Bytes()
}

func zstded(data []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	defer w.Close()
	return w.EncodeAll(data, nil)
}
