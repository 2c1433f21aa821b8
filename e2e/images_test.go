// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

// Jobs whose images come from registries, layouts and files, packed as the
// tools of this field pack them.
func TestImages(t *testing.T) {
	h, key := newHub(t), newKey(t)
	private := privateRegistry(t)
	cache := nodeWithImages(t, fmt.Sprintf(`
		verify {
			image = "%s/signed/*"
			keys  = [%q]
		}
		verify {
			image    = "**"
			unsigned = true
		}`, h.host, key.public), private.AuthFile)
	t.Run("from a registry in this process", func(t *testing.T) { imagesOfEachKind(t, h.host) })
	t.Run("from Debian's registry, with a password", func(t *testing.T) {
		imagesOfEachKind(t, private.Host, remote.WithAuth(&authn.Basic{Username: private.User, Password: private.Password}))
	})
	t.Run("nomad-hybrid looks into Debian's registry", func(t *testing.T) { imagesInspected(t, private) })
	t.Run("from layouts and files", func(t *testing.T) { imagesOnDisk(t) })
	t.Run("the job wins over the image", func(t *testing.T) { imagesDefaults(t, h) })
	t.Run("signed", func(t *testing.T) { imagesSigned(t, h, key) })
	t.Run("twenty tasks make one download", func(t *testing.T) { imagesPulledOnce(t, h, cache) })
	t.Run("plugin killed in mid-pull", func(t *testing.T) { imagesKilledInMidPull(t, h, cache) })
	t.Run("refused", func(t *testing.T) { imagesRefused(t, h, cache) })
}

// nodeWithImages has the node pull into a cache of its own, and returns its
// folder.
func nodeWithImages(t *testing.T, more, authFile string) string {
	t.Helper()
	dir := filepath.Join(site.Nomad.Dir, "image-cache") // beside the agents' files, on a disk
	must.NoError(t, os.RemoveAll(dir))
	withNode(t, harness.NodeExtras{Driver: fmt.Sprintf("cache {\n dir = %q\n auth_file = %q\n}\n%s", dir, authFile, more)})
	return dir
}

func privateRegistry(t *testing.T) *harness.Registry {
	t.Helper()
	private, err := site.StartRegistry(limit(t, time.Minute))
	must.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		must.NoError(t, site.StopRegistry(ctx))
	})
	return private
}

func imageJob(t *testing.T, vars map[string]string) *api.Job {
	t.Helper()
	job, err := harness.ParseJobFile(site.Layout.Path("e2e", "jobs", "image.nomad.hcl"), vars)
	must.NoError(t, err)
	return job
}

// imageRuns runs a job of n instances of an image, and checks what they answer.
func imageRuns(t *testing.T, ctx context.Context, n int, args []string, vars map[string]string) {
	t.Helper()
	vars["count"] = strconv.Itoa(n)
	job := imageJob(t, vars)
	purge(t, *job.ID)
	must.NoError(t, site.Nomad.RunService(ctx, job))
	imageAnswers(t, ctx, n, args)
}

func imageAnswers(t *testing.T, ctx context.Context, n int, args []string) {
	t.Helper()
	want := averages(t).top()
	instances, err := site.Nomad.Instances(ctx, "image", n)
	must.NoError(t, err)
	for _, at := range instances {
		var top userAverage
		must.NoError(t, get(ctx, at, "/top", &top))
		must.Eq(t, want, top)
		var got []string
		must.NoError(t, get(ctx, at, "/args", &got))
		must.Eq(t, args, got)
	}
}

// imageArgs are what each image brings.
var imageArgs = []string{"--port=8081"}

// Packages of each kind run on both architectures, with the arguments that
// they bring.
func imagesOfEachKind(t *testing.T, host string, options ...remote.Option) {
	kinds := []struct {
		name string
		make func(t *testing.T, arch string, args ...string) v1.Image
		vars map[string]string
		path string // of the kernel in the image
	}{
		{"kraftkit", func(t *testing.T, arch string, args ...string) v1.Image { return kraftkit(t, "qemu", arch, args...) }, nil, ""},
		{"urunc", urunc, nil, ""},
		{"ordinary", ordinary, map[string]string{"initrd": "#/boot/data.cpio", "guest": "unikraft"}, "#/boot/kernel"},
		{"compressed", compressed, nil, ""},
	}
	for _, kind := range kinds {
		short := host + "/acme/" + kind.name + ":1"
		reference := push(t, short, indexOf(t, kind.make(t, "arm64", imageArgs...), kind.make(t, "x86_64", imageArgs...)), options...)
		imageRunsOnBoth(t, kind.name, reference+kind.path, kind.vars)
	}
}

// imageRunsOnBoth runs an image once on each architecture. "ARCH" in the
// reference stands for that.
func imageRunsOnBoth(t *testing.T, name, reference string, more map[string]string) {
	t.Helper()
	for _, arch := range []string{"arm64", "x86_64"} {
		t.Run(name+" "+arch, func(t *testing.T) {
			ctx := limit(t, time.Minute)
			before := lookAtMachine(t)
			t.Cleanup(func() { nothingNew(t, before) }) // after the purge
			vars := map[string]string{"image": strings.ReplaceAll(reference, "ARCH", arch), "arch": arch}
			maps.Copy(vars, more)
			imageRuns(t, ctx, 1, imageArgs, vars)
			must.StrContains(t, site.Nomad.Describe(ctx, "image"), "Booted unikraft guest on "+arch)
		})
	}
}

// nomad-hybrid looks into a private registry with what docker login has stored,
// and says so where that does not do.
func imagesInspected(t *testing.T, private *harness.Registry) {
	ctx := limit(t, time.Minute)
	login := remote.WithAuth(&authn.Basic{Username: private.User, Password: private.Password})
	inspect := func(dir, image string) (string, error) {
		program, err := site.Layout.Program("nomad-hybrid")
		must.NoError(t, err)
		cmd := exec.CommandContext(ctx, program, "inspect", image)
		cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+dir, "DOCKER_HOST="+site.Docker.Host)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	unikernel := push(t, private.Host+"/look/unikernel:1", kraftkit(t, "qemu", "arm64"), login)
	container := push(t, private.Host+"/look/container:1", ordinary(t, "arm64"), login)
	stored := filepath.Dir(private.AuthFile)
	for image, want := range map[string]string{unikernel: "unikraft", container: "/boot/kernel"} {
		out, err := inspect(stored, image)
		must.NoError(t, err, must.Sprint(out))
		must.StrContains(t, out, want)
	}
	out, err := inspect(stored, private.Host+"/look/none:1")
	must.Error(t, err)
	must.StrContains(t, out, "neither Docker nor its registry has it")

	wrong := t.TempDir()
	must.NoError(t, os.WriteFile(filepath.Join(wrong, "config.json"),
		fmt.Appendf(nil, `{"auths": {%q: {"username": %q, "password": "guessed"}}}`, private.Host, private.User), 0o600))
	out, err = inspect(wrong, container)
	must.Error(t, err)
	must.StrContains(t, out, private.Host+" refuses the name and password stored for it")
	out, err = inspect(t.TempDir(), container)
	must.Error(t, err)
	must.StrContains(t, out, private.Host+" asks for a name and password")
}

// OCI layouts, as folders and as tar files, and compressed kernels.
func imagesOnDisk(t *testing.T) {
	dir := filepath.Join(site.ScratchImages(), "on-disk")
	must.NoError(t, os.RemoveAll(dir))
	t.Cleanup(func() { must.NoError(t, os.RemoveAll(dir)) })
	index := indexOf(t, kraftkit(t, "qemu", "arm64", imageArgs...), kraftkit(t, "qemu", "x86_64", imageArgs...))
	folder, err := layout.Write(filepath.Join(dir, "layout"), empty.Index)
	must.NoError(t, err)
	must.NoError(t, folder.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "1.2"})))
	var archive bytes.Buffer
	tarred := tar.NewWriter(&archive)
	must.NoError(t, tarred.AddFS(os.DirFS(filepath.Join(dir, "layout"))))
	must.NoError(t, tarred.Close())
	must.NoError(t, os.WriteFile(filepath.Join(dir, "layout.tar"), archive.Bytes(), 0o644))
	for _, arch := range []string{"arm64", "x86_64"} {
		kernel := built(t, "steps-"+arch)
		must.NoError(t, os.WriteFile(filepath.Join(dir, "steps-"+arch+".gz"), gzipped(t, kernel), 0o644))
		must.NoError(t, os.WriteFile(filepath.Join(dir, "steps-"+arch+".zst"), zstandard(t, kernel), 0o644))
	}
	imageRunsOnBoth(t, "layout", "oci-layout:"+filepath.Join(dir, "layout")+":1.2", nil)
	imageRunsOnBoth(t, "layout as tar", "oci-layout:"+filepath.Join(dir, "layout.tar"), nil)
	file := map[string]string{"guest": "unikraft", "initrd": filepath.Join(site.ImageDir(), "steps.cpio"), "args": list(imageArgs...)}
	imageRunsOnBoth(t, "gzip", filepath.Join(dir, "steps-ARCH.gz"), file)
	imageRunsOnBoth(t, "zstd", filepath.Join(dir, "steps-ARCH.zst"), file)
}

// Arguments and environment come from the image, unless the job says others.
func imagesDefaults(t *testing.T, h *hub) {
	config := kraftConfig("arm64")
	config.Config = v1.Config{Cmd: []string{"--port=1", "of the image"}, Env: []string{"GIVEN_BY=the image", "KEPT=of the image"}}
	args := []string{"--port=8081", "of the job"}
	ctx := limit(t, time.Minute)
	image := imageOf(t, config, kraftKernel(t, "arm64"), kraftInitrd(t))
	imageRuns(t, ctx, 1, args, map[string]string{"image": h.push("acme/defaults:1", image), "args": list(args...)})
	instances, err := site.Nomad.Instances(ctx, "image", 1)
	must.NoError(t, err)
	var env map[string]string
	must.NoError(t, get(ctx, instances[0], "/env", &env))
	must.Eq(t, "the job", env["GIVEN_BY"])
	must.Eq(t, "of the image", env["KEPT"])
}

func imagesPulledOnce(t *testing.T, h *hub, cache string) {
	const tasks = 20
	before := lookAtMachine(t)
	t.Cleanup(func() { nothingNew(t, before) }) // after the purge
	noise := make([]byte, 50<<20)
	_, err := rand.Read(noise)
	must.NoError(t, err)
	image, err := mutate.Append(ordinary(t, "arm64", imageArgs...), layer(t, map[string][]byte{"boot/kernel": built(t, "steps-arm64"), "noise": noise}))
	must.NoError(t, err)
	ctx := limit(t, 3*time.Minute)
	reference := h.push("acme/large:1", image)
	imageRuns(t, ctx, tasks, imageArgs, map[string]string{"image": reference + "#/boot/kernel", "initrd": "#/boot/data.cpio", "guest": "unikraft"})
	must.Eq(t, []int{1, 1}, h.downloaded(image))
	cacheIsWhole(t, cache)

	// What runs is kept, also from an operator.
	digest, err := image.Digest()
	must.NoError(t, err)
	must.StrContains(t, cacheCommand(t, cache, 0, "ls"), "in use")
	must.StrContains(t, cacheCommand(t, cache, 1, "rm", digest.Hex), "a guest runs from it")
	cacheCommand(t, cache, 0, "-max-size=0", "gc")
	must.Eq(t, 1, strings.Count(cacheCommand(t, cache, 0, "ls"), "acme/"))
	must.NoError(t, site.Nomad.Purge(ctx, "image"))
	must.StrContains(t, cacheCommand(t, cache, 0, "rm", digest.Hex), "removed")
}

// cacheCommand runs the plugin's own command for operators, and returns what it
// says.
func cacheCommand(t *testing.T, cache string, status int, args ...string) string {
	t.Helper()
	program, err := site.Layout.Program(harness.PluginName)
	must.NoError(t, err)
	cmd := exec.Command(program, append([]string{"cache", "-dir", cache}, args...)...)
	said, err := cmd.CombinedOutput()
	must.Eq(t, status, cmd.ProcessState.ExitCode(), must.Sprintf("%v: %s", err, said))
	return string(said)
}

// The plugin is killed while half of a kernel is in its cache. Nomad starts it
// again, and the task runs without having failed.
func imagesKilledInMidPull(t *testing.T, h *hub, cache string) {
	ctx := limit(t, time.Minute)
	before := lookAtMachine(t)
	t.Cleanup(func() { nothingNew(t, before) }) // after the purge
	args := []string{"--port=8081", "slow"}
	image := kraftkit(t, "qemu", "arm64", args...)
	layers, err := image.Layers()
	must.NoError(t, err)
	job := imageJob(t, map[string]string{"image": h.push("acme/steps:slow", image)})
	halfway := h.stall(layers[0])
	purge(t, *job.ID)
	must.NoError(t, site.Nomad.Submit(ctx, job))
	select {
	case <-halfway:
	case <-ctx.Done():
		t.Fatalf("nothing was pulled: %v\n%s", context.Cause(ctx), site.Nomad.Describe(context.Background(), *job.ID))
	}
	must.SliceLen(t, 1, names(t, cache, "tmp"))

	must.NoError(t, site.Nomad.KillPlugin(ctx))
	_, err = site.Nomad.WaitAllocs(ctx, *job.ID, imageHealthy)
	must.NoError(t, err)
	imageAnswers(t, ctx, 1, args)
	must.Eq(t, []int{2, 2}, h.downloaded(image))
	cacheIsWhole(t, cache)
}

// imageHealthy tells whether there are allocations, and none but such that
// pass their checks.
func imageHealthy(allocs []*api.AllocationListStub) bool {
	return len(allocs) > 0 && !slices.ContainsFunc(allocs, func(a *api.AllocationListStub) bool {
		return a.ClientStatus != "running" || a.DeploymentStatus == nil || a.DeploymentStatus.Healthy == nil || !*a.DeploymentStatus.Healthy
	})
}

// cacheIsWhole fails the test if the cache holds half of an image, or a lock
// that nobody holds.
func cacheIsWhole(t *testing.T, cache string) {
	t.Helper()
	images := names(t, cache, "images")
	must.Positive(t, len(images))
	for _, image := range images {
		must.Eq(t, []string{"about.json", "initrd", "kernel"}, names(t, cache, "images", image))
	}
	must.SliceEmpty(t, names(t, cache, "tmp"))
	must.SliceEmpty(t, names(t, cache, "locks"))
}

// names lists a folder.
func names(t *testing.T, path ...string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(path...))
	must.NoError(t, err)
	var all []string
	for _, entry := range entries {
		all = append(all, entry.Name())
	}
	return all
}

// What a reference does not have is told in the task's events.
func imagesRefused(t *testing.T, h *hub, cache string) {
	some := h.push("acme/some:1", indexOf(t, kraftkit(t, "fc", "x86_64"), kraftkit(t, "qemu", "arm64")))
	cases := []struct {
		name, image, arch string
		says              []string
	}{
		{"wrong platform", some, "x86_64", []string{some, "no image for qemu/x86_64", "it has fc/x86_64, qemu/arm64"}},
		{"missing tag", h.host + "/acme/some:2", "", []string{"acme/some:2", "no such image or tag"}},
		{"registry gone", "127.0.0.1:1/acme/some:1", "", []string{"127.0.0.1:1", "refused"}},
		{"not signed", h.push("signed/steps:2", kraftkit(t, "qemu", "arm64")), "", []string{"signed/steps:2", "has no signature"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before := lookAtMachine(t)
			t.Cleanup(func() { nothingNew(t, before) }) // after the purge
			alloc := runOne(t, limit(t, time.Minute), map[string]string{"image": c.image, "arch": c.arch})
			must.Eq(t, "failed", alloc.ClientStatus)
			said := failure(alloc)
			t.Log(said)
			for _, words := range c.says {
				must.StrContains(t, said, words)
			}
			cacheIsWhole(t, cache)
		})
	}
}
