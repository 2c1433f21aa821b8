// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"archive/tar"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	server "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// hub is a registry in this process.
type hub struct {
	*testing.T
	host  string
	blobs atomic.Int64 // downloads of layers and configurations
	all   atomic.Int64 // requests
	// change may answer a request itself: true means that it did.
	change atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
}

func newHub(t *testing.T) *hub {
	t.Helper()
	h := &hub{T: t}
	backend := server.New(server.Logger(log.New(io.Discard, "", 0)))
	listening := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.all.Add(1)
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			h.blobs.Add(1)
		}
		if change := h.change.Load(); change != nil && (*change)(w, r) {
			return
		}
		backend.ServeHTTP(w, r)
	}))
	t.Cleanup(listening.Close)
	h.host = strings.TrimPrefix(listening.URL, "http://")
	return h
}

// answer lets a function answer requests before the registry does.
func (h *hub) answer(change func(http.ResponseWriter, *http.Request) bool) { h.change.Store(&change) }

// push puts an image or an index into the registry and returns its reference.
func (h *hub) push(name string, what any) string {
	h.Helper()
	reference := h.reference(name)
	switch what := what.(type) {
	case v1.Image:
		must.NoError(h, remote.Write(reference, what))
	case v1.ImageIndex:
		must.NoError(h, remote.WriteIndex(reference, what))
	}
	h.blobs.Store(0)
	h.all.Store(0)
	return reference.String()
}

func (h *hub) reference(short string) name.Reference {
	h.Helper()
	reference, err := name.ParseReference(h.host + "/" + short)
	must.NoError(h, err)
	return reference
}

var arm, x86 = arm64Image([]byte("arm")...), unikraftELF("0.17.0")

func TestRegistry_Kraftkit(t *testing.T) {
	h, s := newHub(t), newSite(t, Options{})
	cpio := []byte("070701, pretended")
	s.request.Image = h.push("acme/steps:1", indexOf(t,
		kraftkit(t, "fc", "arm64", []byte("another"), nil),
		kraftkit(t, "qemu", "x86_64", x86, nil),
		kraftkit(t, "qemu", "arm64", arm, cpio),
	))

	image := s.open(s.request)
	must.Eq(t, arm, content(t, image.Kernel))
	must.Eq(t, cpio, content(t, image.Initrd))
	must.Eq(t, guest.ARM64, image.Arch)
	must.Eq(t, guest.Unikraft, image.Family)
	must.Eq(t, "0.17.0", image.Release)
	must.Eq(t, []string{"--port", "80"}, image.Args)
	must.Eq(t, map[string]string{"PATH": "/bin", "LOG": "info"}, image.Env)
	lacks, known := image.Lacks("LIBPOSIX_ENVIRON_LIBPARAM")
	must.True(t, lacks && known)
	must.StrContains(t, image.Source, "acme/steps:1@sha256:")
	must.Eq(t, 3, h.blobs.Load(), must.Sprint("the configuration, the kernel and the initrd, not the symbols"))

	s.request.Arch = guest.X86_64
	image = s.open(s.request)
	must.Eq(t, x86, content(t, image.Kernel))
	must.Nil(t, image.Initrd)

	// Without one for the host, another will do.
	s.request.Arch = ""
	s.request.Image = h.push("acme/x86only:1", indexOf(t, kraftkit(t, "qemu", "x86_64", x86, nil)))
	must.Eq(t, guest.X86_64, s.open(s.request).Arch)
	s.nothingLeft()
}

func TestRegistry_Platforms(t *testing.T) {
	h, s := newHub(t), newSite(t, Options{})
	s.request.Arch = guest.ARM64
	s.request.Image = h.push("a/b:1", indexOf(t, kraftkit(t, "fc", "arm64", arm, nil), kraftkit(t, "qemu", "x86_64", x86, nil)))
	must.StrContains(t, s.refused(s.request), "has no image for qemu/arm64; it has fc/arm64, qemu/x86_64")
	s.request.Image = h.push("a/b:2", kraftkit(t, "xen", "arm64", arm, nil))
	must.StrContains(t, s.refused(s.request), "is built for xen/arm64, which QEMU does not boot")
	s.request.Image = h.push("a/b:3", kraftkit(t, "qemu", "x86_64", x86, nil))
	must.StrContains(t, s.refused(s.request), `kernel for x86_64 and arch = "arm64"`)
	s.request.Image = h.push("a/b:4", kraftkit(t, "qemu", "arm64", x86, nil))
	must.StrContains(t, s.refused(s.request), "its package says arm64")
}

func TestRegistry_Urunc(t *testing.T) {
	h, s := newHub(t), newSite(t, Options{})
	files := []file{{name: "unikernel/kernel", content: arm}, {name: "./unikernel/initrd", content: []byte("cpio")}}
	keys := map[string]string{
		"unikernelType": "mirage", "unikernelVersion": "0.18.0", "hypervisor": "qemu",
		"binary": "/unikernel/kernel", "initrd": "/unikernel/initrd", "cmdline": "--ipv4-only=true -l debug",
	}
	for _, where := range []string{"annotations", "labels", "file"} {
		for _, encode := range []bool{true, false} {
			t.Run(fmt.Sprint(where, encode), func(t *testing.T) {
				s.request.Image = h.push(fmt.Sprintf("u/%s:%v", where, encode), urunced(t, where, encode, keys, files...))
				image := s.open(s.request)
				must.Eq(t, arm, content(t, image.Kernel))
				must.Eq(t, []byte("cpio"), content(t, image.Initrd))
				must.Eq(t, guest.Mirage, image.Family)
				must.Eq(t, "0.18.0", image.Release)
				must.Eq(t, []string{"--ipv4-only=true", "-l", "debug"}, image.Args)
				must.Eq(t, map[string]string{"A": "1"}, image.Env)
			})
		}
	}
	keys["unikernelType"] = "rumprun"
	s.request.Image = h.push("u/rump:1", urunced(t, "labels", true, keys, files...))
	must.StrContains(t, s.refused(s.request), `unikernelType "rumprun"`)
	keys["unikernelType"], keys["useDMBlock"] = "unikraft", "true"
	s.request.Image = h.push("u/block:1", urunced(t, "labels", true, keys, files...))
	must.StrContains(t, s.refused(s.request), "useDMBlock")
	delete(keys, "useDMBlock")
	keys["binary"] = "../../etc/passwd"
	s.request.Image = h.push("u/climb:1", urunced(t, "labels", true, keys, files...))
	must.StrContains(t, s.refused(s.request), "no path in it")
}

func TestRegistry_UruncSolo5AndBlock(t *testing.T) {
	h, s := newHub(t), newSite(t, Options{})
	s.request.Image = h.push("u/solo5:1", urunced(t, "labels", true,
		map[string]string{"unikernelType": "mirage", "binary": "/k", "block": "/disk", "blkMntPoint": "/data"},
		file{name: "k", content: solo5ELF(62, solo5Virtio, Device{"storage", BlockDevice})},
		file{name: "disk", content: []byte("sectors")}))
	config := s.request
	config.Host = guest.X86_64
	must.StrContains(t, s.refused(config), "its package says arm64") // the label of the test's own image

	s.request.Image = h.push("u/block:1", urunced(t, "labels", true,
		map[string]string{"unikernelType": "unikraft", "binary": "/k", "block": "/disk", "blkMntPoint": "/data"},
		file{name: "k", content: arm}, file{name: "disk", content: []byte("sectors")}))
	image := s.open(s.request)
	must.Eq(t, []byte("sectors"), content(t, image.Block))
	must.Eq(t, "/data", image.BlockMount)
}

func TestRegistry_PlainImage(t *testing.T) {
	h, s := newHub(t), newSite(t, Options{})
	config := v1.ConfigFile{OS: "linux", Architecture: "arm64", Config: v1.Config{
		Entrypoint: []string{"/boot/kernel"}, Cmd: []string{"--x"}, Env: []string{"PATH=/bin", "A=1"},
	}}
	layers := func() v1.Image {
		return imageWith(t, config,
			layerOf(t, file{name: "boot/kernel", content: []byte("an older one")}, file{name: "boot/gone", content: arm}),
			layerOf(t, file{name: "boot/kernel", content: gzipped(arm)}, file{name: "boot/initrd", content: []byte("cpio")},
				file{name: "boot/.wh.gone"}, file{name: "boot/link", kind: tar.TypeSymlink, link: "kernel"}),
			layerOf(t, file{name: "etc/passwd", content: []byte("root")}),
		)
	}
	reference := h.push("plain/image:1", layers())

	s.request.Image = reference
	must.StrContains(t, s.refused(s.request), "ordinary container image: name the kernel in it")
	s.request.Image, s.request.Initrd = reference+"#/boot/kernel", "#/boot/initrd"
	image := s.open(s.request)
	must.Eq(t, arm, content(t, image.Kernel))
	must.Eq(t, []byte("cpio"), content(t, image.Initrd))
	must.Eq(t, "", image.Family)
	must.Eq(t, []string{"--x"}, image.Args)
	must.Eq(t, map[string]string{"A": "1"}, image.Env)
	s.request.Initrd = ""
	must.Nil(t, s.open(s.request).Initrd)

	for inside, want := range map[string]string{
		"#/boot/none": "no file /boot/none", "#/boot/gone": "no file /boot/gone", "#/boot/link": `is a link to "kernel"`,
		"#/../x": "no path", "#": "no path", "#/etc/passwd": "text, not a kernel",
	} {
		s.request.Image = reference + inside
		must.StrContains(t, s.refused(s.request), want, must.Sprint(inside))
	}

	// A command that starts something else belongs to the container.
	config.Config.Entrypoint = []string{"/app"}
	s.request.Image = h.push("plain/image:2", layers()) + "#/boot/kernel"
	must.Nil(t, s.open(s.request).Args)
	must.Nil(t, s.open(s.request).Env)
}

// Twenty tasks that want the same image at once make one download.
func TestRegistry_OneDownload(t *testing.T) {
	const tasks, size = 20, 50 * mib
	h, s := newHub(t), newSite(t, Options{})
	s.request.Image = h.push("big:1", kraftkit(t, "qemu", "arm64", arm64Image(make([]byte, size)...), nil))
	second, err := NewStore(s.store.options) // as another agent with the same folder
	must.NoError(t, err)

	var group sync.WaitGroup
	errs := make([]error, tasks)
	for i := range tasks {
		group.Go(func() {
			store := s.store
			if i%2 == 1 {
				store = second
			}
			image, err := store.Open(context.Background(), s.request, nil)
			if errs[i] = err; err == nil {
				errs[i] = image.Close()
			}
		})
	}
	group.Wait()
	for _, err := range errs {
		must.NoError(t, err)
	}
	must.Eq(t, 2, h.blobs.Load(), must.Sprint("one configuration and one layer"))
	s.nothingLeft()
}

func TestRegistry_PullPolicy(t *testing.T) {
	h, s := newHub(t), newSite(t, Options{})
	other := arm64Image([]byte("other")...)
	get := func(pull Pull) []byte {
		s.request.Pull = pull
		return content(t, s.open(s.request).Kernel)
	}

	s.request.Image = h.host + "/app:1"
	s.request.Pull = PullNever
	must.StrContains(t, s.refused(s.request), "not in the cache")
	h.push("app:1", kraftkit(t, "qemu", "arm64", arm, nil))
	must.Eq(t, arm, get(PullAuto))
	h.push("app:1", kraftkit(t, "qemu", "arm64", other, nil))
	must.Eq(t, arm, get(PullAuto), must.Sprint("a tag is not asked for again"))
	must.Eq(t, arm, get(PullNever))
	must.Eq(t, 0, h.all.Load())
	must.Eq(t, other, get(PullAlways))
	must.Eq(t, other, get(PullAuto))

	s.request.Image = h.push("app:latest", kraftkit(t, "qemu", "arm64", arm, nil))
	must.Eq(t, arm, get(PullAuto))
	h.push("app:latest", kraftkit(t, "qemu", "arm64", other, nil))
	must.Eq(t, other, get(PullAuto), must.Sprint("latest is"))
	h.blobs.Store(0)
	must.Eq(t, other, get(PullAuto))
	must.Eq(t, 0, h.blobs.Load(), must.Sprint("but what is known is not fetched again"))

	// By digest; and offline, from the cache alone.
	image := s.open(s.request)
	s.request.Image = h.host + "/app@" + image.Source[strings.Index(image.Source, "sha256:"):]
	must.Eq(t, other, get(PullAlways))
	s.store.options.Offline = true
	h.all.Store(0)
	must.Eq(t, other, get(PullAlways))
	must.Eq(t, 0, h.all.Load())
	s.request.Image = h.host + "/none:1"
	must.StrContains(t, s.refused(s.request), "offline = true")
}

// What passes is tried again, what does not is not.
// A download that breaks off is tried again, layer by layer.
// A registry that lies is found out, and nothing of it stays.
// A registry that goes silent is given up on.
func TestRegistry_Credentials(t *testing.T) {
	h := newHub(t)
	reference := h.push("private:1", kraftkit(t, "qemu", "arm64", arm, nil))
	secret := base64.StdEncoding.EncodeToString([]byte("me:word"))
	h.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "Basic "+secret {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	auth := filepath.Join(t.TempDir(), "config.json")
	s := newSite(t, Options{AuthFile: auth})
	s.request.Image = reference
	must.StrContains(t, s.refused(s.request), "auth_file")
	must.NoError(t, os.WriteFile(auth, []byte(`{"auths":{"`+h.host+`":{"auth":"`+secret+`"}}}`), 0o600))
	must.Eq(t, arm, content(t, s.open(s.request).Kernel))
	must.NoError(t, os.WriteFile(auth, []byte(`nothing`), 0o600))
	s.request.Pull = PullAlways
	must.StrContains(t, s.refused(s.request), "no docker config.json")
}

func TestRegistry_Mirror(t *testing.T) {
	mirror, gone := newHub(t), newHub(t)
	mirror.push("acme/app:1", kraftkit(t, "qemu", "arm64", arm, nil))
	s := newSite(t, Options{Mirrors: map[string][]string{"registry.invalid": {gone.host, mirror.host}}})
	s.request.Image = "registry.invalid/acme/app:1"
	must.Eq(t, arm, content(t, s.open(s.request).Kernel))
}

// A host that the operator did not list is not asked without TLS, also not in
// a private network.
// An image that was damaged in the cache is pulled again, and one that no
// longer fits goes unless a guest runs from it.
func TestRegistry_Cache(t *testing.T) {
	h, s := newHub(t), newSite(t, Options{MaxSizeMiB: 3})
	kernel := arm64Image(make([]byte, mib)...)
	s.request.Image = h.push("app:1", kraftkit(t, "qemu", "arm64", kernel, nil))
	s.open(s.request)
	kept, err := filepath.Glob(filepath.Join(s.root, "cache/images/*/kernel"))
	must.NoError(t, err)
	must.Len(t, 1, kept)
	must.NoError(t, os.WriteFile(kept[0], []byte("rot"), 0o444))
	must.Eq(t, len(kernel), int(sizeOf(s.open(s.request).Kernel)))

	running := s.open(s.request)
	for i := range 4 {
		s.request.Image = h.push(fmt.Sprintf("app:%d", i+2), kraftkit(t, "qemu", "arm64", append(kernel, byte(i)), nil))
		image, err := s.store.Open(context.Background(), s.request, nil)
		must.NoError(t, err)
		must.NoError(t, image.Close())
	}
	kept, err = filepath.Glob(filepath.Join(s.root, "cache/images/*/kernel"))
	must.NoError(t, err)
	must.Len(t, 2, kept)

	// What unpacks to more than it was when packed counts when it is there.
	s.request.Image = h.push("packed:1", kraftkit(t, "qemu", "arm64", gzipped(arm64Image(make([]byte, 5*mib/2)...)), nil))
	s.open(s.request)
	kept, err = filepath.Glob(filepath.Join(s.root, "cache/images/*/kernel"))
	must.NoError(t, err)
	must.Len(t, 2, kept)

	h.all.Store(0)
	s.request.Image = h.host + "/app:1"
	s.open(s.request)
	must.Eq(t, 0, h.all.Load())
	must.NotNil(t, running.Kernel)
}

// A container image that was named by mistake is not fetched to say so.
