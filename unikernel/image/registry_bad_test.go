// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/shoenig/test/must"
)

func TestRegistry_ClimbingLayers(t *testing.T) {
	h, s := newHub(t), newSite(t, Options{})
	for i, bad := range []file{
		{name: "../etc/passwd", content: []byte("x")},
		{name: "a/../../b", content: []byte("x")},
		{name: "..", kind: tar.TypeDir},
	} {
		reference := h.push(fmt.Sprintf("evil:%d", i), imageWith(t, v1.ConfigFile{OS: "linux"}, layerOf(t, file{name: "k", content: arm}, bad)))
		s.request.Image = reference + "#k"
		must.StrContains(t, s.refused(s.request), "climbs out")
	}
	for i, bad := range []byte{tar.TypeSymlink, tar.TypeLink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo, tar.TypeDir} {
		s.request.Image = h.push(fmt.Sprintf("evil/kind:%d", i), imageWith(t, v1.ConfigFile{OS: "linux"}, layerOf(t, file{name: "k", kind: bad, link: "/etc/passwd"}))) + "#k"
		s.refused(s.request)
	}
	s.nothingLeft()
}

func TestRegistry_Gone(t *testing.T) {
	h, s := newHub(t), newSite(t, Options{})
	s.request.Image = h.push("app:1", kraftkit(t, "qemu", "arm64", arm, nil))
	s.open(s.request)
	h.answer(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusBadGateway)
		return true
	})
	s.request.Pull = PullAlways
	must.StrContains(t, s.refused(s.request), `is in the cache: pull = "missing" uses that`)
	s.request.Image = "127.0.0.1:1/none:1"
	must.StrContains(t, s.refused(s.request), "connection refused")
}

func TestRegistry_Retries(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		tries  int64
		want   string
	}{
		"unavailable":  {http.StatusServiceUnavailable, 3, "503"},
		"too many":     {http.StatusTooManyRequests, 3, "429"},
		"unauthorized": {http.StatusUnauthorized, 1, "auth_file"},
		"forbidden":    {http.StatusForbidden, 1, "auth_file"},
		"missing":      {http.StatusNotFound, 1, "no such image or tag"},
	} {
		t.Run(name, func(t *testing.T) {
			h, s := newHub(t), newSite(t, Options{})
			s.request.Image = h.push("app:1", kraftkit(t, "qemu", "arm64", arm, nil))
			var tries atomic.Int64
			h.answer(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, "/manifests/") {
					return false
				}
				tries.Add(1)
				w.WriteHeader(c.status)
				return true
			})
			must.StrContains(t, s.refused(s.request), c.want)
			must.Eq(t, c.tries, tries.Load())
		})
	}
}

func TestRegistry_BreaksOff(t *testing.T) {
	h, s := newHub(t), newSite(t, Options{})
	kernel := arm64Image(make([]byte, mib)...)
	s.request.Image = h.push("app:1", kraftkit(t, "qemu", "arm64", kernel, []byte("cpio")))
	var broken atomic.Bool
	h.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") || broken.Load() || h.blobs.Load() < 3 {
			return false
		}
		broken.Store(true)
		w.Header().Set("Content-Length", fmt.Sprint(2*mib))
		_, _ = w.Write(make([]byte, 1024))
		return true
	})
	var told []string
	image, err := s.store.Open(context.Background(), s.request, func(line string) { told = append(told, line) })
	must.NoError(t, err)
	defer image.Close()
	must.True(t, bytes.Equal(kernel, content(t, image.Kernel)))
	must.Eq(t, 4, h.blobs.Load(), must.Sprint("the configuration, the initrd, the kernel twice"))
	must.StrContains(t, strings.Join(told, "\n"), "trying again in")
	must.StrContains(t, told[0], "pulling "+s.request.Image+" (qemu/arm64, ")
}

func TestRegistry_Lies(t *testing.T) {
	kernel := arm64Image(make([]byte, mib)...)
	layer := tarOf(t, file{name: "/unikraft/bin/kernel", content: kernel})
	swapped := bytes.Clone(layer)
	swapped[600] ^= 1
	for name, c := range map[string]struct {
		send []byte
		want string
	}{
		"about the content":  {swapped, "sha256"},
		"about the size":     {append(bytes.Clone(layer), make([]byte, 9*mib)...), "sha256"},
		"by sending nothing": {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h, s := newHub(t), newSite(t, Options{})
			s.request.Image = h.push("app:1", kraftkit(t, "qemu", "arm64", kernel, nil))
			h.answer(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") || h.blobs.Load() < 2 {
					return false
				}
				_, _ = w.Write(c.send)
				return true
			})
			must.StrContains(t, s.refused(s.request), c.want)
			s.nothingLeft()
			images, err := os.ReadDir(filepath.Join(s.root, "cache", "images"))
			must.NoError(t, err)
			must.SliceEmpty(t, images)
		})
	}
}

func TestRegistry_Stalls(t *testing.T) {
	for _, part := range []string{"/manifests/", "/blobs/"} {
		t.Run(part, func(t *testing.T) {
			h, s := newHub(t), newSite(t, Options{})
			s.store.patience.stall = 200 * time.Millisecond
			s.request.Image = h.push("app:1", kraftkit(t, "qemu", "arm64", arm, nil))
			h.answer(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, part) {
					return false
				}
				w.Header().Set("Content-Length", "1000")
				_, _ = w.Write([]byte("{"))
				w.(http.Flusher).Flush()
				<-r.Context().Done()
				return true
			})
			must.StrContains(t, s.refused(s.request), "sent nothing for too long")
			s.nothingLeft()
		})
	}
}

func TestRegistry_Canceled(t *testing.T) {
	h, s := newHub(t), newSite(t, Options{})
	s.request.Image = h.push("app:1", kraftkit(t, "qemu", "arm64", arm, nil))
	ctx, cancel := context.WithCancel(context.Background())
	h.answer(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") {
			cancel()
			<-r.Context().Done()
		}
		return false
	})
	_, err := s.store.Open(ctx, s.request, nil)
	must.ErrorIs(t, err, context.Canceled)
	s.nothingLeft()
}

func TestRegistry_OtherKinds(t *testing.T) {
	h, s := newHub(t), newSite(t, Options{})
	s.request.Image = h.push("app:1", kraftkit(t, "qemu", "arm64", arm, nil))
	for name, c := range map[string]struct{ kind, text, want string }{
		"artifact":   {"application/vnd.oci.image.manifest.v1+json", `{"schemaVersion":2,"config":{"mediaType":"application/vnd.acme","digest":"sha256:` + strings.Repeat("a", 64) + `","size":2},"layers":[]}`, "of another kind"},
		"old schema": {"application/vnd.docker.distribution.manifest.v1+json", `{"schemaVersion":1}`, "first schema"},
		"no JSON":    {"application/vnd.oci.image.manifest.v1+json", `nothing`, "cannot be read"},
		"no index":   {"application/vnd.oci.image.index.v1+json", `nothing`, "cannot be read"},
		"no fitting": {"application/vnd.oci.image.index.v1+json", `{"manifests":[]}`, "has no image for qemu; it has none"},
		"huge":       {"application/vnd.oci.image.manifest.v1+json", `{"a":"` + strings.Repeat("a", 5*mib) + `"}`, "more than 4 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			h.answer(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, "/manifests/") {
					return false
				}
				w.Header().Set("Content-Type", c.kind)
				_, _ = w.Write([]byte(c.text))
				return true
			})
			must.StrContains(t, s.refused(s.request), c.want)
		})
	}
}

func TestRegistry_Bounds(t *testing.T) {
	h, s := newHub(t), newSite(t, Options{MaxFileMiB: 1, MaxSizeMiB: 4})
	s.request.Image = h.push("large:1", kraftkit(t, "qemu", "arm64", arm64Image(make([]byte, 2*mib)...), nil))
	must.StrContains(t, s.refused(s.request), "larger than the 1 MiB")
	s.request.Image = h.push("bomb:1", kraftkit(t, "qemu", "arm64", gzipped(arm64Image(make([]byte, 2*mib)...)), nil))
	must.StrContains(t, s.refused(s.request), "larger than the 1 MiB")
	s.request.Image = h.push("huge:1", kraftkit(t, "qemu", "arm64", arm64Image(make([]byte, 5*mib)...), nil))
	must.StrContains(t, s.refused(s.request), "more than the 4 MiB of the image cache")
	s.nothingLeft()
}

func TestRegistry_PlainHTTP(t *testing.T) {
	const private = "10.1.2.3:5000"
	h := newHub(t)
	h.push("app:1", kraftkit(t, "qemu", "arm64", arm, nil))
	for _, allowed := range [][]string{nil, {private}, {"10.1.2.3"}} {
		s := newSite(t, Options{InsecureRegistries: allowed})
		transport := s.store.transport.(guarded)
		for _, inner := range []http.RoundTripper{transport.strict, transport.lax} {
			inner.(*http.Transport).DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, h.host)
			}
		}
		s.request.Image = private + "/app:1"
		if allowed == nil {
			must.StrContains(t, s.refused(s.request), "insecure_registries")
			continue
		}
		must.Eq(t, arm, content(t, s.open(s.request).Kernel))
	}
}

func TestRegistry_Mistaken(t *testing.T) {
	h, s := newHub(t), newSite(t, Options{})
	large := make([]byte, mostLooked)
	s.request.Image = h.push("python:3", imageWith(t, v1.ConfigFile{OS: "linux", Architecture: "arm64"},
		layerOf(t, file{name: "usr", content: large}), layerOf(t, file{name: "app", content: []byte("x")})))
	must.StrContains(t, s.refused(s.request), "ordinary container image")
	must.Eq(t, 2, h.blobs.Load(), must.Sprint("the configuration and the small layer on top"))
}

func TestRegistry_NestedIndex(t *testing.T) {
	h, s := newHub(t), newSite(t, Options{})
	inner := indexOf(t, kraftkit(t, "qemu", "arm64", arm, nil))
	nest := func(inner v1.ImageIndex) v1.ImageIndex {
		return mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{Add: inner})
	}
	s.request.Image = h.push("nested:1", nest(inner))
	must.Eq(t, arm, content(t, s.open(s.request).Kernel))
	s.request.Image = h.push("nested:2", nest(nest(inner)))
	must.StrContains(t, s.refused(s.request), "index of indexes")
}

func TestInsecure(t *testing.T) {
	options := Options{InsecureRegistries: []string{"plain.example", "port.example:5000"}}
	for host, want := range map[string]bool{
		"plain.example": true, "plain.example:5000": true, "port.example:5000": true, "port.example": false,
		"localhost:5000": true, "127.0.0.1:5000": true, "[::1]:5000": true, "10.0.0.1:5000": false, "192.168.1.2": false,
	} {
		must.Eq(t, want, options.insecure(host), must.Sprint(host))
	}
	request, err := http.NewRequest(http.MethodGet, "http://10.0.0.1:5000/v2/", nil)
	must.NoError(t, err)
	response, err := newTransport(options).RoundTrip(request)
	must.ErrorIs(t, err, errPlainHTTP)
	if response != nil {
		response.Body.Close()
	}
}
