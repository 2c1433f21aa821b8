// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build board

package suite

import (
	"bytes"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/shoenig/test/must"
)

// The example for edge sites, on what it is for: a container and three
// unikernels on one ARM board.
func TestHybrid(t *testing.T) {
	startDocker(t)
	mustRun(t, "docker", "build", "--quiet", "--tag", "vision:local", "/host/vision")
	const variables = `images = "` + images + `"`
	rendered := mustRun(t, "nomad-hybrid", "render", "-no-images", "-var", "images="+images, "/host/hybrid.nomad.hcl")
	a := startAgent(t, "")
	a.submitHCL(t, rendered, variables)

	for _, address := range a.addresses(t, "steps", 3) {
		mustAnswer(t, address)
	}
	must.Len(t, 3, guestPIDs(t))
	vision := a.addresses(t, "vision", 1)[0]
	get(t, vision+"/healthz")
	t.Logf("faces: %s", get(t, vision+"/detect"))
}

// startDocker runs a daemon until the test ends. Its store is in memory, as
// all that the board writes.
func startDocker(t *testing.T) {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.Command("dockerd", "--iptables=false", "--ip6tables=false", "--ip-masq=false")
	cmd.Stdout, cmd.Stderr = &log, &log
	must.NoError(t, cmd.Start())
	t.Cleanup(func() {
		must.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		_ = cmd.Wait() // its status tells nothing
		if t.Failed() {
			t.Logf("dockerd's log:\n%s", log.String())
		}
	})
	eventually(t, "dockerd answers", func() error { return exec.Command("docker", "version").Run() })
}

// mustRun runs a program and returns what it printed on standard output.
func mustRun(t *testing.T, name string, args ...string) string {
	t.Helper()
	var out, complaints bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &complaints
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=0")
	must.NoError(t, cmd.Run(), must.Sprintf("%s: %s", name, complaints.String()))
	t.Logf("%s: %s", name, complaints.String())
	return out.String()
}
