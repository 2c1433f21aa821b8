// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package look

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier"
)

// file is a file of a test image: content, or "-> target" for a link.
type file struct{ path, content string }

func pack(t *testing.T, config v1.Config, files ...file) v1.Image {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Name: strings.TrimPrefix(f.path, "/"), Mode: 0o755, Size: int64(len(f.content)), Typeflag: tar.TypeReg}
		if target, ok := strings.CutPrefix(f.content, "-> "); ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, target, 0
		}
		must.NoError(t, w.WriteHeader(h))
		if h.Size > 0 {
			_, err := io.WriteString(w, f.content)
			must.NoError(t, err)
		}
	}
	must.NoError(t, w.Close())
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	must.NoError(t, err)
	img, err := mutate.AppendLayers(empty.Image, layer)
	must.NoError(t, err)
	img, err = mutate.ConfigFile(img, &v1.ConfigFile{
		Architecture: "arm64", OS: "linux", Config: config, RootFS: rootFS(t, img),
	})
	must.NoError(t, err)
	return img
}

func rootFS(t *testing.T, img v1.Image) v1.RootFS {
	t.Helper()
	c, err := img.ConfigFile()
	must.NoError(t, err)
	return c.RootFS
}

// goProgram is a small Go binary that every Go installation has.
func goProgram(t *testing.T) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	must.NoError(t, err)
	content, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(root)), "bin", "gofmt"))
	must.NoError(t, err)
	return string(content)
}

// goCommand is a Go binary that starts other programs: this test itself.
func goCommand(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	must.NoError(t, err)
	content, err := os.ReadFile(self)
	must.NoError(t, err)
	return string(content)
}

// shell is a dynamic ELF of this machine that forks.
func shell(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile("/bin/sh")
	must.NoError(t, err)
	return string(content)
}

// staticELF is a small ELF program that asks for no interpreter, with the names
// of its functions.
func staticELF(t *testing.T, functions ...string) string {
	t.Helper()
	names, symbols := []byte{0}, []elf.Sym64{{}}
	for _, f := range functions {
		symbols = append(symbols, elf.Sym64{Name: uint32(len(names)), Info: byte(elf.STT_FUNC), Shndx: 1})
		names = append(append(names, f...), 0)
	}
	const header, entry = 64, 24
	sections := []elf.Section64{
		{},
		{Type: uint32(elf.SHT_SYMTAB), Off: header, Size: uint64(len(symbols) * entry), Link: 2, Entsize: entry},
		{Type: uint32(elf.SHT_STRTAB), Off: uint64(header + len(symbols)*entry), Size: uint64(len(names))},
	}
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_AARCH64), Version: uint32(elf.EV_CURRENT), Ehsize: header,
		Phentsize: 56, Shentsize: 64, Shnum: uint16(len(sections)), Shoff: sections[2].Off + sections[2].Size, Shstrndx: 2,
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	var out bytes.Buffer
	for _, part := range []any{h, symbols, names, sections} {
		must.NoError(t, binary.Write(&out, binary.LittleEndian, part))
	}
	return out.String()
}

func archive(t *testing.T, img v1.Image) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.tar")
	tag, err := name.NewTag("test:1")
	must.NoError(t, err)
	must.NoError(t, tarball.WriteToFile(path, tag, img))
	return path
}

// TestContainer tells what runs in an image, however its entry point is
// written.
func TestContainer(t *testing.T) {
	sh := shell(t)
	tests := []struct {
		name   string
		config v1.Config
		files  []file
		check  func(*testing.T, *classifier.ContainerImage)
	}{
		{"a Go binary", v1.Config{Entrypoint: []string{"/app"}, User: "1000", ExposedPorts: map[string]struct{}{"80/tcp": {}}},
			[]file{{"/app", goProgram(t)}}, func(t *testing.T, c *classifier.ContainerImage) {
				must.Eq(t, "go", c.Runtime)
				must.Eq(t, "1000", c.User)
				must.Eq(t, []string{"80/tcp"}, c.Ports)
				must.Eq(t, "", c.Shell)
				must.Greater(t, 0.5, c.SizeMiB)
			}},
		{"a program found by PATH, over links", v1.Config{Cmd: []string{"python3", "app.py"}, Env: []string{"PATH=/opt/bin:/usr/bin"}},
			[]file{{"/usr/bin/python3", "-> python3.11"}, {"/usr/bin/python3.11", sh},
				{"/usr/lib/python3/site-packages/numpy-1.26.0.dist-info/METADATA", "x"},
				{"/usr/lib/libopencv_core.so.406", "x"}, {"/bin", "-> usr/bin"}, {"/usr/bin/bash", sh}, {"/usr/bin/apt-get", sh}},
			func(t *testing.T, c *classifier.ContainerImage) {
				must.Eq(t, "python", c.Runtime)
				must.Eq(t, []string{"libopencv_core", "numpy"}, c.Libraries)
				must.Eq(t, "bash", c.Shell)
				must.Eq(t, "apt-get", c.Packages)
				must.SliceContains(t, c.Forks, "fork")
			}},
		{"a script that starts its arguments", v1.Config{Entrypoint: []string{"/docker-entrypoint.sh"}, Cmd: []string{"/srv"}},
			[]file{{"/docker-entrypoint.sh", "#!/bin/sh\nexec \"$@\"\n"}, {"/srv", goProgram(t)}},
			func(t *testing.T, c *classifier.ContainerImage) { must.Eq(t, "go", c.Runtime) }},
		{"a script alone", v1.Config{Entrypoint: []string{"/run.sh"}},
			[]file{{"/run.sh", "#!/usr/bin/env bash\n"}},
			func(t *testing.T, c *classifier.ContainerImage) { must.Eq(t, "shell", c.Runtime) }},
		{"behind an init", v1.Config{Entrypoint: []string{"/sbin/tini", "-g", "--", "/usr/bin/node", "a.js"}},
			[]file{{"/usr/bin/node", sh}},
			func(t *testing.T, c *classifier.ContainerImage) { must.Eq(t, "node", c.Runtime) }},
		{"a manager of processes", v1.Config{Cmd: []string{"supervisord", "-n"}},
			[]file{{"/usr/bin/supervisord", "#!/usr/bin/python3\n"}},
			func(t *testing.T, c *classifier.ContainerImage) { must.Eq(t, []string{"supervisord"}, c.Processes) }},
		{"a static program", v1.Config{Entrypoint: []string{"/app"}, StopSignal: "SIGQUIT", ExposedPorts: map[string]struct{}{"80/tcp": {}, "443/tcp": {}}},
			[]file{{"/app", staticELF(t, "main")}},
			func(t *testing.T, c *classifier.ContainerImage) {
				must.Eq(t, "static", c.Runtime)
				must.Eq(t, "SIGQUIT", c.Signal)
				must.Eq(t, []string{"443/tcp", "80/tcp"}, c.Ports)
				must.SliceEmpty(t, c.Forks)
			}},
		{"a static program that forks", v1.Config{Entrypoint: []string{"/app"}}, []file{{"/app", staticELF(t, "main", "vfork", "execve")}},
			func(t *testing.T, c *classifier.ContainerImage) {
				must.Eq(t, "static", c.Runtime)
				must.Eq(t, []string{"execve", "vfork"}, c.Forks)
			}},
		{"a Go program that starts others", v1.Config{Entrypoint: []string{"/go"}}, []file{{"/go", goCommand(t)}},
			func(t *testing.T, c *classifier.ContainerImage) {
				must.Eq(t, "go", c.Runtime)
				must.Eq(t, []string{"os/exec"}, c.Forks)
			}},
		{"a dynamic program that forks", v1.Config{Cmd: []string{"/bin/app"}}, []file{{"/bin/app", sh}},
			func(t *testing.T, c *classifier.ContainerImage) {
				must.Eq(t, "dynamic", c.Runtime)
				must.SliceContains(t, c.Forks, "fork")
			}},
		{"a JVM by a path of its own", v1.Config{Entrypoint: []string{"java", "-jar", "/app.jar"}, Env: []string{"PATH=/opt/java/openjdk/bin:/usr/bin"}},
			[]file{{"/opt/java/openjdk/bin/java", sh}, {"/opt/java/openjdk/lib/libjvm.so", "x"}, {"/sbin/apk", sh}},
			func(t *testing.T, c *classifier.ContainerImage) {
				must.Eq(t, "jvm", c.Runtime)
				must.Eq(t, []string{"libjvm"}, c.Libraries)
				must.Eq(t, "apk", c.Packages)
			}},
		{"inference with CUDA", v1.Config{Cmd: []string{"/usr/bin/python3.11", "serve.py"}},
			[]file{{"/usr/bin/python3.11", sh}, {"/usr/local/cuda/lib64/libcudart.so.12", "x"},
				{"/usr/lib/python3/dist-packages/onnxruntime-1.18.0.dist-info/METADATA", "x"},
				{"/usr/lib/python3/dist-packages/tensorflow_cpu-2.16.1.dist-info/METADATA", "x"}},
			func(t *testing.T, c *classifier.ContainerImage) {
				must.Eq(t, "python", c.Runtime)
				must.Eq(t, []string{"libcudart", "onnxruntime", "tensorflow_cpu"}, c.Libraries)
			}},
		{"packages of Node.js", v1.Config{Cmd: []string{"node", "/app/index.js"}},
			[]file{{"/usr/bin/node", sh}, {"/app/node_modules/express/index.js", "x"}, {"/app/node_modules/.bin/x", "x"}},
			func(t *testing.T, c *classifier.ContainerImage) {
				must.Eq(t, "node", c.Runtime)
				must.Eq(t, []string{"express"}, c.Libraries)
			}},
		{"nothing to run", v1.Config{}, []file{{"/data", "x"}},
			func(t *testing.T, c *classifier.ContainerImage) { must.Eq(t, "", c.Runtime) }},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			l := &Looker{DockerSocket: "/nonexistent"}
			facts, err := l.Container(context.Background(), archive(t, pack(t, tc.config, tc.files...)))
			must.NoError(t, err)
			must.Eq(t, []string{"arm64"}, facts.Arch)
			tc.check(t, facts)
		})
	}
}

// TestSources: the same image from a registry, a layout and an archive is read
// once, however often it is asked for.
func TestSources(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	img := pack(t, v1.Config{Entrypoint: []string{"/app"}}, file{"/app", goProgram(t)})

	refs := []string{archive(t, img)}
	for _, tag := range []string{"a:1", "a:2", "b/c:1"} {
		ref, err := name.ParseReference(host + "/" + tag)
		must.NoError(t, err)
		must.NoError(t, remote.Write(ref, img))
		refs = append(refs, ref.Name())
	}
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	must.NoError(t, err)
	must.NoError(t, p.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "1"})))
	refs = append(refs, "oci-layout:"+dir, "oci-layout:"+dir+":1")

	l := &Looker{DockerSocket: "/nonexistent"}
	for range 20 {
		for _, ref := range refs {
			facts, err := l.Container(context.Background(), ref)
			must.NoError(t, err)
			must.Eq(t, "go", facts.Runtime)
			must.Eq(t, ref, facts.Ref)
		}
	}
	must.Eq(t, 1, l.read)

	_, err = l.Container(context.Background(), host+"/none:1")
	must.ErrorContains(t, err, "neither in Docker nor in its registry")
	_, err = l.Container(context.Background(), "UPPER/CASE")
	must.ErrorContains(t, err, "no image reference")
	_, err = l.Container(context.Background(), "oci-layout:"+dir+":2")
	must.ErrorContains(t, err, `no tag "2"`)
	missing, err := l.Unikernel(context.Background(), host+"/none:1")
	must.NoError(t, err)
	must.True(t, missing.Missing)
}

// TestUnikernelIndex reads a Unikraft package: an index by platform.
func TestUnikernelIndex(t *testing.T) {
	var adds []mutate.IndexAddendum
	for _, arch := range []string{"x86_64", "arm64"} {
		img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
			Architecture: arch, OS: "qemu", OSVersion: "0.17.0", OSFeatures: []string{"CONFIG_LIBVFSCORE=y"},
		})
		must.NoError(t, err)
		adds = append(adds, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: "qemu", Architecture: arch},
		}})
	}
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	must.NoError(t, err)
	must.NoError(t, p.AppendIndex(mutate.AppendManifests(empty.Index, adds...)))

	facts, err := (&Looker{}).Unikernel(context.Background(), "oci-layout:"+dir)
	must.NoError(t, err)
	must.Eq(t, []string{"arm64", "x86_64"}, facts.Arch)
	must.Eq(t, "unikraft", facts.Family)
	must.Eq(t, "0.17.0", facts.Release)
	must.Eq(t, 4, facts.MemoryMiB)
	must.SliceEmpty(t, facts.Cannot, must.Sprint("the list of options is not whole"))

	on, err := (&Looker{}).Unikernel(context.Background(), "local/steps")
	must.NoError(t, err)
	must.Nil(t, on)
}

// TestNeeds: what follows from an image's family and build options.
func TestNeeds(t *testing.T) {
	whole := []string{"CONFIG_LIBUKBOOT=y"}
	tests := []struct {
		name, family string
		arch         []string
		features     []string
		memory       int
		can, cannot  []string
	}{
		{"MirageOS", "mirage", []string{"arm64", "x86_64"}, nil, 16, nil, []string{"environment", "files"}},
		{"Solo5", "solo5", []string{"x86_64"}, nil, 8, nil, []string{"environment", "files"}},
		{"Unikraft that tells nothing", "unikraft", []string{"arm64"}, nil, 8, nil, nil},
		{"Unikraft with nothing", "unikraft", []string{"arm64"}, whole, 8, nil, []string{"environment", "files"}},
		{"Unikraft with all", "unikraft", []string{"arm64"}, append([]string{
			"CONFIG_LIBPOSIX_ENVIRON_LIBPARAM=y", "CONFIG_LIBUKCPIO=y", "CONFIG_LIBVIRTIO_9P=y", "CONFIG_LIB9PFS=y",
		}, whole...), 8, []string{"volumes"}, nil},
		{"no family", "", []string{"arm64"}, nil, 0, nil, nil},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			u := &classifier.UnikernelImage{Family: tc.family, Arch: tc.arch, Features: tc.features}
			needs(u)
			must.Eq(t, tc.memory, u.MemoryMiB)
			must.Eq(t, tc.can, u.Can)
			must.Eq(t, tc.cannot, u.Cannot)
		})
	}
}

// TestDocker asks a daemon for its archive.
func TestDocker(t *testing.T) {
	img := pack(t, v1.Config{Entrypoint: []string{"/app"}}, file{"/app", goProgram(t)})
	socket := fakeDocker(t, "steps:local", archive(t, img))
	l := &Looker{DockerSocket: socket}
	facts, err := l.Container(context.Background(), "steps:local")
	must.NoError(t, err)
	must.Eq(t, "go", facts.Runtime)
}
