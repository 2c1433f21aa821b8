// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e && realimages

package e2e

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

// realImages names a folder with the images below, which this project does not
// build. They serve HTTP on 8080, with /healthz.
const realImages = "REAL_IMAGES"

// TestNetwork_Matrix reaches real Unikraft and MirageOS images in each network
// mode. It is not among the tests that make runs:
//
//	REAL_IMAGES=/folder go test -tags e2e,realimages -run Matrix -v ./e2e
func TestNetwork_Matrix(t *testing.T) {
	images := []struct {
		file, guest, release string
		args                 []string
	}{
		{file: "steps-arm64", guest: "unikraft"},
		{file: "steps-x86_64", guest: "unikraft"},
		{file: "uk017-http-arm64", guest: "unikraft", release: "0.17.0"},
		{file: "uk017-http-x86_64", guest: "unikraft", release: "0.17.0"},
		{file: "uk018-http-arm64", guest: "unikraft", release: "0.18.0"},
		{file: "uk018-http-x86_64", guest: "unikraft", release: "0.18.0"},
		{file: "mirage-web-arm64.qemu", guest: "mirage", args: []string{"--ipv4-only=true"}},
		{file: "mirage-web-x86_64.qemu", guest: "mirage", args: []string{"--ipv4-only=true"}},
		{file: "mirage-web-x86_64.virtio", guest: "solo5", args: []string{"--ipv4-only=true"}},
	}
	withNode(t, harness.NodeExtras{CNIConfigs: cniConfigs(t)})
	keepBridge(t)
	for _, image := range images {
		path := realImage(t, image.file)
		for _, mode := range []string{"host", "bridge", "cni/" + cniName} {
			t.Run(image.file+" "+mode, func(t *testing.T) {
				ctx := limit(t, 90*time.Second)
				vars := map[string]string{
					"image": path, "guest": image.guest, "guest_version": image.release, "mode": mode, "args": list(image.args...),
				}
				if image.guest != "unikraft" || image.release != "" {
					vars["initrd"] = ""
				}
				alloc := runNetwork(t, ctx, vars)[0]
				port := portOf(alloc, "http")
				must.NoError(t, says(ctx, t, address(port.HostIP, port.Value)))
				if alloc.NetworkStatus != nil && alloc.NetworkStatus.Address != "" {
					must.NoError(t, says(ctx, t, address(alloc.NetworkStatus.Address, port.To)))
				}
				if strings.HasPrefix(image.file, "steps") {
					checkReached(t, ctx, alloc, 8080)
				}
			})
		}
		t.Run(image.file+" none", func(t *testing.T) {
			ctx := limit(t, 90*time.Second)
			before := lookAtMachine(t)
			t.Cleanup(func() { nothingNew(t, before) }) // after the purge
			job := parseJob(t, site.Layout.Path("e2e", "jobs", "one.nomad.hcl"), map[string]string{
				"image": path, "guest": image.guest, "guest_version": image.release, "network_mode": "none", "args": list(image.args...),
			})
			purge(t, *job.ID)
			must.NoError(t, site.Nomad.Submit(ctx, job))
			_, err := site.Nomad.WaitAllocs(ctx, *job.ID, func(allocs []*api.AllocationListStub) bool {
				return len(allocs) == 1 && allocs[0].ClientStatus != "pending"
			})
			must.NoError(t, err)
			t.Log(site.Nomad.Describe(ctx, *job.ID)) // some end without a network, as their applications choose
		})
	}
}

// realImage copies an image to where the node takes images from.
func realImage(t *testing.T, file string) string {
	t.Helper()
	if strings.HasPrefix(file, "steps") {
		return filepath.Join(site.ImageDir(), file)
	}
	folder := os.Getenv(realImages)
	must.NotEq(t, "", folder, must.Sprintf("%s names no folder", realImages))
	data, err := os.ReadFile(filepath.Join(folder, file))
	must.NoError(t, err)
	path := filepath.Join(site.ScratchImages(), file)
	must.NoError(t, os.WriteFile(path, data, 0o644))
	return path
}

// says logs what a guest answers.
func says(ctx context.Context, t *testing.T, at string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at+"/", nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	t.Logf("%s: %s: %q", at, answer.Status, body)
	return nil
}
