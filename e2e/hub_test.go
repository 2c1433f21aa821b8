// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package e2e

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
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
	reference := push(h.T, h.host+"/"+short, what)
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.downloads)
	return reference
}

// push puts an image or an index into any registry.
func push(t *testing.T, full string, what any, options ...remote.Option) string {
	t.Helper()
	reference, err := name.ParseReference(full)
	must.NoError(t, err)
	switch what := what.(type) {
	case v1.Image:
		err = remote.Write(reference, what, options...)
	case v1.ImageIndex:
		err = remote.WriteIndex(reference, what, options...)
	}
	must.NoError(t, err)
	return reference.String()
}
