// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package e2e

import (
	"context"
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

// What a job gives reaches the guest: templates, secrets and artifacts by its
// initrd, folders and volumes over 9p, disks; and what it writes comes back.
func TestContent(t *testing.T) {
	server := contentServer(t)
	volumes := map[string]string{"data": folder(t, 0o777), "lists": folder(t, 0o755)}
	must.NoError(t, os.WriteFile(filepath.Join(volumes["data"], "old"), []byte("kept"), 0o644))
	must.NoError(t, os.WriteFile(filepath.Join(volumes["lists"], "list"), []byte("listed"), 0o644))
	withNode(t, harness.NodeExtras{HostVolumes: volumes})

	t.Run("reaches the guest", func(t *testing.T) {
		said := contentSays(t, server)
		for _, line := range []string{
			"file /conf/greeting: hello from content",
			"file /secrets/token: the secret",
			"file /fetched/fetched: fetched by Nomad",
			"share /live", "file /live/greeting: hello from content", "cannot write /live",
			"share /data", "file /data/old: kept", "wrote /data",
			"file /lists/list: listed",
			"/plain ro=0: RAW DISK", "/packed ro=1:",
			"env GIVEN_BY=the job",
		} {
			must.StrContains(t, said, line)
		}
		written, err := os.ReadFile(filepath.Join(volumes["data"], "written"))
		must.NoError(t, err)
		must.Eq(t, "from the guest\n", string(written))
		must.FileNotExists(t, filepath.Join(volumes["lists"], "written"))
	})
	t.Run("a folder that QEMU's user may not write to", func(t *testing.T) {
		must.NoError(t, os.Chmod(volumes["data"], 0o755))
		contentRefused(t, contentJob(t, server), "volume_mount at /data", `user "nobody"`, "may not write to")
		must.NoError(t, os.Chmod(volumes["data"], 0o777))
	})
	t.Run("a writable copy", func(t *testing.T) {
		job := contentJob(t, server)
		job.TaskGroups[0].Tasks[0].Config["mount"] = []map[string]any{{"source": "local", "target": "/copy", "readonly": false, "transport": "initrd"}}
		contentRefused(t, job, "cannot be written back", "9p")
	})
}

// What a guest cannot be given is refused, naming transport and feature.
func TestContent_NotCarried(t *testing.T) {
	withNode(t, harness.NodeExtras{HostVolumes: map[string]string{"data": folder(t, 0o777), "lists": folder(t, 0o777)}})
	h := newHub(t)
	image := imageOf(t, kraftConfig("arm64", "CONFIG_LIBUKBOOT=y", "CONFIG_LIBUKLIBPARAM=y", "CONFIG_LIBUKCPIO=y"), kraftKernel(t, "arm64"))
	job := contentJob(t, contentServer(t))
	task := job.TaskGroups[0].Tasks[0]
	task.Config = map[string]any{"image": h.push("acme/no9p:1", image)}
	contentRefused(t, job, "volume_mount at /data", "is writable, which needs 9p", "CONFIG_LIBVIRTIO_9P")
}

func folder(t *testing.T, mode os.FileMode) string {
	t.Helper()
	dir := t.TempDir()
	must.NoError(t, os.Chmod(dir, mode))
	return dir
}

func contentJob(t *testing.T, server string) *api.Job {
	t.Helper()
	linux := site.Layout.Build("linux")
	job, err := harness.ParseJobFile(site.Layout.Path("e2e", "jobs", "content.nomad.hcl"), map[string]string{
		"kernel": filepath.Join(linux, "kernel"), "initrd": filepath.Join(linux, "initrd"), "server": server,
	})
	must.NoError(t, err)
	return job
}

// contentSays runs the job to its end and returns what the guest printed.
func contentSays(t *testing.T, server string) string {
	t.Helper()
	ctx := limit(t, 3*time.Minute)
	before := lookAtMachine(t)
	t.Cleanup(func() { nothingNew(t, before) }) // after the purge
	alloc := runToEnd(t, ctx, contentJob(t, server))
	said, err := site.Nomad.Logs(ctx, alloc, "content", "stdout")
	must.NoError(t, err)
	must.Eq(t, "complete", alloc.ClientStatus, must.Sprintf("%s\n%s", failure(alloc), said))
	return strings.ReplaceAll(said, "\r", "")
}

func contentRefused(t *testing.T, job *api.Job, says ...string) {
	t.Helper()
	alloc := runToEnd(t, limit(t, time.Minute), job)
	must.Eq(t, "failed", alloc.ClientStatus)
	for _, words := range says {
		must.StrContains(t, failure(alloc), words)
	}
}

// contentServer serves the job's artifacts.
func contentServer(t *testing.T) string {
	t.Helper()
	raw := make([]byte, 1<<20)
	copy(raw, "RAW DISK")
	files := map[string][]byte{"/fetched": []byte("fetched by Nomad"), "/raw": raw, "/qcow2": emptyQCOW2()}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if _, err := w.Write(content); err != nil && context.Cause(r.Context()) == nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// emptyQCOW2 is a disk of 1 MiB in QEMU's format (its docs/interop/qcow2.txt):
// a cluster each for the header, the table of reference counts, the counts,
// and the table of the disk's clusters, of which there are none.
func emptyQCOW2() []byte {
	const cluster = 1 << 16
	disk := make([]byte, 4*cluster)
	put64 := func(at int, value uint64) { binary.BigEndian.PutUint64(disk[at:], value) }
	put32 := func(at int, value uint32) { binary.BigEndian.PutUint32(disk[at:], value) }
	copy(disk, "QFI\xfb")
	put32(4, 3)          // version
	put32(20, 16)        // bits of a cluster's size
	put64(24, 1<<20)     // size
	put32(36, 1)         // entries of the table of clusters
	put64(40, 3*cluster) // where it is
	put64(48, cluster)   // where the table of counts is
	put32(56, 1)         // its clusters
	put32(96, 4)         // bits of a count, as a power of two
	put32(100, 104)      // length of the header
	put64(cluster, 2*cluster)
	for i := range 4 {
		binary.BigEndian.PutUint16(disk[2*cluster+2*i:], 1)
	}
	return disk
}
