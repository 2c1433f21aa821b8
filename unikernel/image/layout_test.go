// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"archive/tar"
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	ggcr "github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// layoutAt writes an empty layout under the task's folder.
func (s site) layoutAt(name string) ggcr.Path {
	s.Helper()
	path, err := ggcr.Write(filepath.Join(s.root, "task", name), empty.Index)
	must.NoError(s, err)
	return path
}

func tagged(tag string) ggcr.Option {
	return ggcr.WithAnnotations(map[string]string{refNameAnnotation: tag})
}

func TestLayout(t *testing.T) {
	s := newSite(t, Options{})
	other := arm64Image([]byte("other")...)
	layout := s.layoutAt("local/l")
	must.NoError(t, layout.AppendIndex(indexOf(t, kraftkit(t, "qemu", "x86_64", x86, nil), kraftkit(t, "qemu", "arm64", arm, []byte("cpio"))), tagged("one")))
	must.NoError(t, layout.AppendImage(kraftkit(t, "qemu", "arm64", other, nil), tagged("registry.example/acme/two:2")))

	for reference, want := range map[string][]byte{
		"oci-layout:local/l:one": arm,
		"oci-layout:local/l:2":   other,
		"oci-layout:" + filepath.Join(s.root, "task/local/l") + ":one": arm,
	} {
		s.request.Image = reference
		image := s.open(s.request)
		must.Eq(t, want, content(t, image.Kernel), must.Sprint(reference))
		must.Eq(t, guest.Unikraft, image.Family)
	}
	for reference, want := range map[string]string{
		"oci-layout:local/l":      "several images",
		"oci-layout:local/l:none": `no image tagged "none"`,
		"oci-layout:local/none":   "no such file",
		"oci-layout:/etc":         "image_paths",
		"oci-layout:../x":         "leads outside",
		"oci-layout:secrets":      "no index.json",
	} {
		s.request.Image = reference
		must.StrContains(t, s.refused(s.request), want, must.Sprint(reference))
	}
	s.nothingLeft()
}

// Platforms may stand in the layout's own index.
func TestLayout_Flat(t *testing.T) {
	s := newSite(t, Options{})
	layout := s.layoutAt("local/l")
	for arch, kernel := range map[string][]byte{"x86_64": x86, "arm64": arm} {
		must.NoError(t, layout.AppendImage(kraftkit(t, "qemu", arch, kernel, nil), ggcr.WithPlatform(v1.Platform{OS: "qemu", Architecture: arch})))
	}
	s.request.Image, s.request.Arch = "oci-layout:local/l", guest.X86_64
	must.Eq(t, x86, content(t, s.open(s.request).Kernel))
}

func TestLayout_Tar(t *testing.T) {
	s := newSite(t, Options{})
	layout := s.layoutAt("local/l")
	must.NoError(t, layout.AppendImage(kraftkit(t, "qemu", "arm64", arm, nil), tagged("one")))
	var files []file
	must.NoError(t, fs.WalkDir(os.DirFS(string(layout)), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(filepath.Join(string(layout), name))
		files = append(files, file{name: "./" + name, content: content})
		return err
	}))
	s.put("task/local/l.tar", tarOf(t, append(files, file{name: "../index.json", content: []byte("x")})...), 0o644)
	s.put("task/local/l.tar.gz", gzipped(tarOf(t, files...)), 0o644)
	s.put("task/local/none.tar", tarOf(t, file{name: "link", kind: tar.TypeSymlink, link: "/etc"}), 0o644)
	s.put("task/local/noise", arm, 0o644)

	for _, s.request.Image = range []string{"oci-layout:local/l.tar", "oci-layout:local/l.tar.gz:one"} {
		must.Eq(t, arm, content(t, s.open(s.request).Kernel))
	}
	s.request.Image = "oci-layout:local/none.tar"
	must.StrContains(t, s.refused(s.request), "no index.json")
	s.request.Image = "oci-layout:local/noise"
	must.StrContains(t, s.refused(s.request), "neither a folder nor a tar file")
}

// A layout that lies, or whose files lead elsewhere, is refused.
func TestLayout_Bad(t *testing.T) {
	for name, damage := range map[string]func(blob string) error{
		"blob changed in place": func(blob string) error {
			content, err := os.ReadFile(blob)
			if err != nil {
				return err
			}
			content[1000] ^= 1 // behind the kernel, in what pads it
			return os.WriteFile(blob, content, 0o644)
		},
		"blob replaced": func(blob string) error { return os.WriteFile(blob, []byte("x"), 0o644) },
		"blob missing":  os.Remove,
		"blob leads out": func(blob string) error {
			if err := os.Rename(blob, filepath.Join(filepath.Dir(blob), "../../../moved")); err != nil {
				return err
			}
			return os.Symlink("../../../moved", blob)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, Options{})
			layout := s.layoutAt("local/l")
			image := kraftkit(t, "qemu", "arm64", arm, nil)
			must.NoError(t, layout.AppendImage(image))
			layers, err := image.Layers()
			must.NoError(t, err)
			digest, err := layers[0].Digest()
			must.NoError(t, err)
			must.NoError(t, damage(filepath.Join(string(layout), "blobs/sha256", digest.Hex)))
			s.request.Image = "oci-layout:local/l"
			s.refused(s.request)
			s.nothingLeft()
		})
	}
}

// Whatever a layer is, the search ends, and takes only what has a wanted name.
func FuzzLayer(f *testing.F) {
	f.Add(tarOf(f, file{name: "/unikraft/bin/kernel", content: arm}))
	f.Add(gzipped(tarOf(f, file{name: "a/.wh.kernel"}, file{name: "kernel", kind: tar.TypeLink, link: "x"})))
	f.Add(zstded(tarOf(f, file{name: "../kernel", content: arm})))
	f.Add([]byte{0x1f, 0x8b})
	f.Fuzz(func(t *testing.T, layer []byte) {
		taken := map[string]bool{}
		find := newSearch(map[string]string{kernelRole: "kernel", initrdRole: "a/b"}, func(role string, content io.Reader) error {
			taken[role] = true
			_, err := io.Copy(io.Discard, content)
			return err
		}, func(string) {})
		find.budget = mib
		found, _, err := find.scan(bytes.NewReader(layer))
		if err == nil {
			must.Eq(t, taken, found)
		}
	})
}
