// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"
)

// startGate starts `nomad-hybrid serve` before an agent and returns its
// address.
func startGate(t *testing.T, env []string, args ...string) string {
	t.Helper()
	program, err := site.Layout.Program("nomad-hybrid")
	must.NoError(t, err)
	cmd := exec.Command(program, append([]string{"serve", "-listen", "127.0.0.1:0"}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	log, err := cmd.StderrPipe()
	must.NoError(t, err)
	must.NoError(t, cmd.Start())
	read := make(chan struct{})
	t.Cleanup(func() {
		must.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		<-read
		must.NoError(t, cmd.Wait(), must.Sprint("the gate did not end in order"))
	})
	listening := make(chan string, 1)
	go func() { // ends with the gate
		defer close(read)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			t.Log(lines.Text())
			if m := regexp.MustCompile(`listening: address=(\S+)`).FindStringSubmatch(lines.Text()); m != nil {
				listening <- m[1]
			}
		}
	}()
	select {
	case at := <-listening:
		return at
	case <-read:
		t.Fatal("the gate ended at once")
	case <-limit(t, time.Minute).Done():
		t.Fatal("the gate does not listen")
	}
	return ""
}

// siteGate is a gate before the site's server.
func siteGate(t *testing.T, args ...string) string {
	t.Helper()
	return "http://" + startGate(t, []string{"NOMAD_ADDR=" + site.Nomad.Address, "DOCKER_HOST=" + site.Docker.Host}, args...)
}

// tool runs a program of the build and returns its exit status and all that it
// printed.
func tool(t *testing.T, ctx context.Context, env []string, name string, args ...string) (status int, out string) {
	t.Helper()
	return toolIn(t, ctx, "", env, name, args...)
}

func toolIn(t *testing.T, ctx context.Context, in string, env []string, name string, args ...string) (status int, out string) {
	t.Helper()
	program, err := site.Layout.Program(name)
	must.NoError(t, err)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = strings.NewReader(in)
	text, err := cmd.CombinedOutput()
	var ended *exec.ExitError
	if !errors.As(err, &ended) {
		must.NoError(t, err, must.Sprintf("%s %v:\n%s", name, args, text))
	}
	must.NoError(t, ctx.Err(), must.Sprintf("%s %v:\n%s", name, args, text))
	t.Logf("%s %s (status %d)\n%s", name, strings.Join(args, " "), cmd.ProcessState.ExitCode(), text)
	return cmd.ProcessState.ExitCode(), string(text)
}

// Nobody changes how they submit: plain `nomad job run` through the gate runs
// the hybrid example as nomad-hybrid would, and its answers are right.
func TestGate(t *testing.T) {
	ctx := limit(t, 3*time.Minute)
	at := siteGate(t, "-cluster")
	env := []string{"NOMAD_ADDR=" + at}
	example := site.Layout.Path("examples", "hybrid", "hybrid.nomad.hcl")
	before := lookAtMachine(t)
	t.Cleanup(func() { nothingNew(t, before) })
	purge(t, "hybrid")

	events := eventsThrough(t, ctx, at)
	images := "images=" + site.ImageDir()
	status, out := tool(t, ctx, env, "nomad", "job", "run", "-var", images, example)
	must.Eq(t, 0, status, must.Sprint(out))
	running, _, err := site.Nomad.Client.Jobs().Info("hybrid", (&api.QueryOptions{}).WithContext(ctx))
	must.NoError(t, err)
	must.Eq(t, "docker", driverOf(t, running, "vision"))
	must.Eq(t, "unikernel", driverOf(t, running, "steps"))
	checkAnswers(t, ctx)
	checkChecks(t, ctx, "hybrid")

	// Nomad keeps what the author wrote, and a plan by the same text is empty.
	kept, _, err := site.Nomad.Client.Jobs().Submission("hybrid", int(*running.Version), (&api.QueryOptions{}).WithContext(ctx))
	must.NoError(t, err)
	written, err := os.ReadFile(example)
	must.NoError(t, err)
	must.Eq(t, string(written), kept.Source)
	status, out = tool(t, ctx, env, "nomad", "job", "plan", "-var", images, example)
	must.Eq(t, 0, status, must.Sprint("a plan through the gate differs from what runs"))
	must.StrContains(t, out, `Job: "hybrid"`)
	status, out = tool(t, ctx, env, "nomad", "job", "validate", "-var", images, example)
	must.Eq(t, 0, status, must.Sprint(out))

	must.True(t, events(api.TopicDeployment), must.Sprint("no event of the deployment came through the gate"))
	checkFollow(t, ctx, env)
}

// eventsThrough opens the event stream through the gate; the function it
// returns waits for an event of a topic.
func eventsThrough(t *testing.T, ctx context.Context, at string) func(api.Topic) bool {
	t.Helper()
	client, err := api.NewClient(&api.Config{Address: at})
	must.NoError(t, err)
	stream, err := client.EventStream().Stream(ctx, map[api.Topic][]string{api.TopicDeployment: {"*"}}, 0, (&api.QueryOptions{}).WithContext(ctx))
	must.NoError(t, err)
	return func(topic api.Topic) bool {
		for batch := range stream {
			must.NoError(t, batch.Err)
			for _, event := range batch.Events {
				if event.Topic == topic {
					return true
				}
			}
		}
		return false
	}
}

// checkFollow reads a log that goes on, through the gate: its lines come while
// the stream is open.
func checkFollow(t *testing.T, ctx context.Context, env []string) {
	t.Helper()
	program, err := site.Layout.Program("nomad")
	must.NoError(t, err)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	allocs, err := site.Nomad.WaitAllocs(ctx, "hybrid", func(all []*api.AllocationListStub) bool { return len(all) == instances+1 })
	must.NoError(t, err)
	i := slices.IndexFunc(allocs, func(a *api.AllocationListStub) bool { return a.TaskGroup == "vision" })
	must.NotEq(t, -1, i)
	cmd := exec.CommandContext(ctx, program, "alloc", "logs", "-f", "-stderr", "-task", "vision", allocs[i].ID) // -job would take any of them
	cmd.Env = append(os.Environ(), append(env, "NOMAD_NAMESPACE=default")...)
	out, err := cmd.StdoutPipe()
	must.NoError(t, err)
	must.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	must.NoError(t, err)
	must.StrContains(t, line, "looking for faces")
	cancel()
	must.Error(t, cmd.Wait(), must.Sprint("the log ended by itself: it was not followed"))
}

// sleeper is a job whose task does nothing; exec in it is tested.
const sleeper = `job "sleeper" {
  group "g" {
    task "t" {
      driver = "docker"
      config {
        image = "` + proxyImage + `"
      }
      meta {
        hybrid_runtime = "%s"
      }
      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
`

// Exec passes through the gate over its websocket, both ways and with the
// command's status.
func TestGate_Exec(t *testing.T) {
	ctx := limit(t, 2*time.Minute)
	buildProxy(t)
	env := []string{"NOMAD_ADDR=" + siteGate(t)}
	purge(t, "sleeper")
	status, out := toolIn(t, ctx, fmt.Sprintf(sleeper, "auto"), env, "nomad", "job", "run", "-")
	must.Eq(t, 0, status, must.Sprint(out))

	status, out = toolIn(t, ctx, "to and fro\n", env, "nomad", "alloc", "exec", "-i", "-t=false", "-task", "t", "-job", "sleeper", "/proxy", "-")
	must.Eq(t, 0, status)
	must.StrContains(t, out, "to and fro")
	status, out = toolIn(t, ctx, "", env, "nomad", "alloc", "exec", "-i=false", "-t=false", "-task", "t", "-job", "sleeper", "/proxy", "one", "two", "three")
	must.Eq(t, 1, status)
	must.StrContains(t, out, "want two arguments")
}

// A job that cannot be classified is refused with the reason, or passes as it
// came where the gate fails open; the rest of Nomad's API works either way.
func TestGate_Fails(t *testing.T) {
	ctx := limit(t, 2*time.Minute)
	wrong := fmt.Sprintf(sleeper, "vm")

	closed := []string{"NOMAD_ADDR=" + siteGate(t)}
	status, out := toolIn(t, ctx, wrong, closed, "nomad", "job", "run", "-detach", "-")
	must.Eq(t, 1, status)
	must.StrContains(t, out, `hybrid_runtime: "vm" will not do; give auto, container or unikernel`)
	status, out = tool(t, ctx, closed, "nomad", "job", "status")
	must.Eq(t, 0, status)
	must.StrNotContains(t, out, "sleeper")

	open := []string{"NOMAD_ADDR=" + siteGate(t, "-fail-open")}
	purge(t, "sleeper")
	status, out = toolIn(t, ctx, strings.Replace(wrong, "group \"g\" {", "group \"g\" {\n    count = 0", 1), open, "nomad", "job", "run", "-detach", "-")
	must.Eq(t, 0, status, must.Sprint(out))
	job, _, err := site.Nomad.Client.Jobs().Info("sleeper", (&api.QueryOptions{}).WithContext(ctx))
	must.NoError(t, err)
	must.Eq(t, "docker", driverOf(t, job, "g"))
	must.Eq(t, "vm", job.TaskGroups[0].Tasks[0].Meta["hybrid_runtime"])
}

// The tool looks into images where they are: in a Docker daemon, and in a
// registry that it knows from its reference alone.
func TestInspect(t *testing.T) {
	ctx := limit(t, time.Minute)
	env := []string{"DOCKER_HOST=" + site.Docker.Host}
	status, out := tool(t, ctx, env, "nomad-hybrid", "inspect", "-json", "vision:local")
	must.Eq(t, 0, status)
	for _, want := range []string{`"runtime": "go"`, `"user": "65534:65534"`, `"8080/tcp"`, `"layers": 1`} {
		must.StrContains(t, out, want)
	}
	status, out = tool(t, ctx, env, "nomad-hybrid", "inspect", "steps:local")
	must.Eq(t, 0, status)
	must.StrContains(t, out, "static")

	registry := newHub(t)
	ref := registry.push("acme/vision:1", dockerImage(t, ctx, "vision:local"))
	status, fromHub := tool(t, ctx, []string{"DOCKER_HOST=unix:///nonexistent"}, "nomad-hybrid", "inspect", "-json", ref)
	must.Eq(t, 0, status)
	must.StrContains(t, fromHub, `"runtime": "go"`)

	status, out = tool(t, ctx, nil, "nomad-hybrid", "inspect", filepath.Join(site.ImageDir(), "steps-arm64"))
	must.Eq(t, 0, status)
	must.StrContains(t, out, "arm64")
}

// dockerImage is an image as Docker saves it.
func dockerImage(t *testing.T, ctx context.Context, tag string) v1.Image {
	t.Helper()
	archive, err := site.Docker.Client.ImageSave(ctx, []string{tag})
	must.NoError(t, err)
	defer func() { _ = archive.Close() }()
	saved, err := io.ReadAll(archive)
	must.NoError(t, err)
	image, err := tarball.Image(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(saved)), nil }, nil)
	must.NoError(t, err)
	return image
}
