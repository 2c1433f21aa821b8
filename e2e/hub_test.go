// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package e2e

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/shoenig/test/must"
)

// hub is a registry in this process that counts what is downloaded from it.
type hub struct {
	*testing.T
	host string

	mu        sync.Mutex
	downloads map[string]int                                           // by digest
	change    func(w http.ResponseWriter, r *http.Request, n int) bool // may answer the n-th download of a blob itself
}

func newHub(t *testing.T) *hub {
	t.Helper()
	h := &hub{T: t, downloads: map[string]int{}}
	backend := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	listening := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/sha256:") || !h.download(w, r) {
			backend.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() {
		listening.CloseClientConnections() // ends answers that stall
		listening.Close()
	})
	h.host = strings.TrimPrefix(listening.URL, "http://")
	return h
}

func (h *hub) download(w http.ResponseWriter, r *http.Request) bool {
	digest := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	h.mu.Lock()
	h.downloads[digest]++
	change, n := h.change, h.downloads[digest]
	h.mu.Unlock()
	return change != nil && change(w, r, n)
}

// downloaded tells how often each layer of an image was asked for.
func (h *hub) downloaded(image v1.Image) []int {
	h.Helper()
	manifest, err := image.Manifest()
	must.NoError(h, err)
	h.mu.Lock()
	defer h.mu.Unlock()
	var times []int
	for _, layer := range manifest.Layers {
		times = append(times, h.downloads[layer.Digest.String()])
	}
	return times
}

// stall answers the first download of a layer by half of it and then silence.
// The channel is closed once that half is sent.
func (h *hub) stall(layer v1.Layer) (halfway <-chan struct{}) {
	h.Helper()
	digest, err := layer.Digest()
	must.NoError(h, err)
	size, err := layer.Size()
	must.NoError(h, err)
	sent := make(chan struct{})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.change = func(w http.ResponseWriter, r *http.Request, n int) bool {
		if n > 1 || !strings.HasSuffix(r.URL.Path, digest.String()) {
			return false
		}
		content, err := layer.Compressed()
		if err != nil {
			h.Error(err)
			return false
		}
		defer func() { _ = content.Close() }()
		if _, err := io.CopyN(w, content, size/2); err != nil {
			h.Error(err)
		}
		w.(http.Flusher).Flush()
		close(sent)
		<-r.Context().Done()
		return true
	}
	return sent
}

// push puts an image or an index into the registry and returns its reference.
func (h *hub) push(short string, what any) string {
	h.Helper()
	reference, err := name.ParseReference(h.host + "/" + short)
	must.NoError(h, err)
	switch what := what.(type) {
	case v1.Image:
		err = remote.Write(reference, what)
	case v1.ImageIndex:
		err = remote.WriteIndex(reference, what)
	}
	must.NoError(h, err)
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.downloads)
	return reference.String()
}

// layer is a plain tar of files, as kraftkit makes it.
func layer(t *testing.T, files map[string][]byte) mutate.Addendum {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for path, content := range files {
		must.NoError(t, w.WriteHeader(&tar.Header{Name: path, Typeflag: tar.TypeReg, Size: int64(len(content)), Mode: 0o755}))
		_, err := w.Write(content)
		must.NoError(t, err)
	}
	must.NoError(t, w.Close())
	return mutate.Addendum{Layer: static.NewLayer(out.Bytes(), types.OCIUncompressedLayer), MediaType: types.OCIUncompressedLayer}
}

func imageOf(t *testing.T, config v1.ConfigFile, layers ...mutate.Addendum) v1.Image {
	t.Helper()
	base := mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1)
	image, err := mutate.ConfigFile(base, &config)
	must.NoError(t, err)
	image, err = mutate.Append(image, layers...)
	must.NoError(t, err)
	return image
}

func built(t *testing.T, file string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(site.ImageDir(), file))
	must.NoError(t, err)
	return content
}

// kraftkit packs the steps unikernel as `kraft pkg` does: the monitor for the
// operating system, and a layer for each file. Its first layer is the kernel.
func kraftkit(t *testing.T, monitor, arch string, args ...string) v1.Image {
	t.Helper()
	config := kraftConfig(arch)
	config.OS, config.Config.Cmd = monitor, args
	initrd := layer(t, map[string][]byte{"/unikraft/bin/initrd": built(t, "steps.cpio")})
	initrd.Annotations = map[string]string{"org.unikraft.kernel.initrd": "/unikraft/bin/initrd"}
	return imageOf(t, config, kraftKernel(t, arch), initrd)
}

// kraftConfig is the configuration of a package that lists these build options.
func kraftConfig(arch string, features ...string) v1.ConfigFile {
	return v1.ConfigFile{OS: "qemu", Architecture: arch, OSVersion: "0.17.0", OSFeatures: features}
}

func kraftKernel(t *testing.T, arch string) mutate.Addendum {
	t.Helper()
	kernel := layer(t, map[string][]byte{"/unikraft/bin/kernel": built(t, "steps-"+arch)})
	kernel.Annotations = map[string]string{"org.unikraft.kernel.image": "/unikraft/bin/kernel"}
	return kernel
}

// urunc packs it as urunc's tools do: an ordinary image, annotated in base64.
func urunc(t *testing.T, arch string, args ...string) v1.Image {
	t.Helper()
	image := imageOf(t, v1.ConfigFile{OS: "linux", Architecture: arch, Config: v1.Config{Cmd: args}}, layer(t, map[string][]byte{
		"unikernel/kernel": built(t, "steps-"+arch),
		"unikernel/initrd": built(t, "steps.cpio"),
	}))
	keys := map[string]string{}
	for key, value := range map[string]string{
		"unikernelType": "unikraft", "unikernelVersion": "0.17.0", "hypervisor": "qemu",
		"binary": "/unikernel/kernel", "initrd": "/unikernel/initrd",
	} {
		keys["com.urunc.unikernel."+key] = base64.StdEncoding.EncodeToString([]byte(value))
	}
	return mutate.Annotations(image, keys).(v1.Image)
}

// indexOf joins images into one reference, each with its platform.
func indexOf(t *testing.T, images ...v1.Image) v1.ImageIndex {
	t.Helper()
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, image := range images {
		config, err := image.ConfigFile()
		must.NoError(t, err)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: config.OS, Architecture: config.Architecture, OSVersion: config.OSVersion},
		}})
	}
	return index
}
