// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/shoenig/test/must"
)

// In a process of its own, this test only pulls an image, to be killed.
const pullEnv = "UNIKERNEL_TEST_PULL" // "CACHE IMAGE"

func TestMain(m *testing.M) {
	if what := os.Getenv(pullEnv); what != "" {
		os.Exit(pullUntilKilled(what))
	}
	os.Exit(m.Run())
}

func pullUntilKilled(what string) int {
	dir, reference, _ := strings.Cut(what, " ")
	store, err := NewStore(Options{CacheDir: dir})
	if err == nil {
		_, err = store.Open(context.Background(), Request{Image: reference}, nil)
	}
	fmt.Fprintln(os.Stderr, "pulled, and was not killed:", err)
	return 1
}

// A pull whose process is killed leaves nothing in the way: who comes next
// pulls again, and clears what was left.
func TestRegistry_KilledInMidPull(t *testing.T) {
	h, s := newHub(t), newSite(t, Options{})
	s.request.Image = h.push("app:1", kraftkit(t, "qemu", "arm64", arm64Image(make([]byte, mib)...), []byte("cpio")))
	halfway := make(chan struct{})
	h.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") || h.blobs.Load() < 3 {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(mib))
		_, _ = w.Write(make([]byte, 64<<10))
		w.(http.Flusher).Flush()
		close(halfway)
		<-r.Context().Done()
		return true
	})
	self, err := os.Executable()
	must.NoError(t, err)
	child := exec.Command(self)
	child.Env = append(os.Environ(), pullEnv+"="+s.store.options.CacheDir+" "+s.request.Image)
	child.Stderr = os.Stderr
	must.NoError(t, child.Start())
	<-halfway
	must.NoError(t, child.Process.Kill())
	must.Error(t, child.Wait())
	left, err := os.ReadDir(s.store.options.CacheDir + "/tmp")
	must.NoError(t, err)
	must.Len(t, 1, left)

	h.answer(func(http.ResponseWriter, *http.Request) bool { return false })
	image := s.open(s.request)
	must.Eq(t, int64(len(arm64Image(make([]byte, mib)...))), sizeOf(image.Kernel))
	s.nothingLeft()
}
