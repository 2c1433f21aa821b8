// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/helper/pluginutils/hclutils"
	"github.com/hashicorp/nomad/helper/uuid"
	"github.com/hashicorp/nomad/nomad/structs"
	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers"
	dtestutil "github.com/hashicorp/nomad/plugins/drivers/testutils"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// patience is how long a test waits for what must happen at all.
const patience = 60 * time.Second

// built is where make steps puts the project's own unikernel.
const built = "../build/steps"

// harness is a driver behind Nomad's own RPC, as an agent talks to it. It is
// not killed: go-plugin stops its server twice then, which races.
type harness struct {
	*dtestutil.DriverHarness
	t      *testing.T
	driver *Driver
	quiet  bool // tasks have no logs: Nomad waits seconds for pipes that no task opened
}

func newHarness(t *testing.T, runDir string, options string) *harness {
	t.Helper()
	d := New(hclog.NewNullLogger())
	d.runDir = runDir
	h := &harness{DriverHarness: dtestutil.NewDriverHarness(t, d), t: t, driver: d}
	must.NoError(t, h.SetConfig(&base.Config{PluginConfig: pluginConfig(t, options)}))
	return h
}

// pluginConfig is the plugin's config block as an agent sends it.
func pluginConfig(t *testing.T, options string) []byte {
	t.Helper()
	images, err := filepath.Abs(built)
	must.NoError(t, err)
	var plugin PluginConfig
	hclutils.NewConfigParser(pluginSpec).ParseHCL(t,
		fmt.Sprintf("config {\n image_paths = [%q]\n %s\n}", images, options), &plugin)
	var data []byte
	must.NoError(t, base.MsgPackEncode(&data, &plugin))
	return data
}

// runDir is a run directory of a test's own, which must be empty at its end.
func runDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "unikernel-run-")
	must.NoError(t, err)
	must.NoError(t, os.Chmod(dir, 0o711))
	t.Cleanup(func() {
		left, err := filepath.Glob(filepath.Join(dir, "*"))
		must.NoError(t, err)
		must.SliceEmpty(t, left)
		must.NoError(t, os.RemoveAll(dir))
	})
	return dir
}

// imagePath is the project's unikernel for an architecture.
func imagePath(t *testing.T, arch guest.Arch) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(built, "steps-"+string(arch)))
	must.NoError(t, err)
	return path
}

// newTask is a task of 64 MiB with a port "http" from the host to 8080.
func (h *harness) newTask(config string) (*drivers.TaskConfig, int) {
	h.t.Helper()
	port := freePort(h.t)
	task := &drivers.TaskConfig{
		ID:      fmt.Sprintf("%s/steps/%s", uuid.Generate(), uuid.Generate()[:8]),
		Name:    "steps",
		AllocID: uuid.Generate(),
		Env:     map[string]string{"LOG": "info"},
		Resources: &drivers.Resources{
			NomadResources: &structs.AllocatedTaskResources{
				Cpu:    structs.AllocatedCpuResources{CpuShares: 100},
				Memory: structs.AllocatedMemoryResources{MemoryMB: 64},
			},
			LinuxResources: &drivers.LinuxResources{CPUShares: 100, MemoryLimitBytes: 64 << 20},
			Ports: &structs.AllocatedPorts{
				{Label: "http", Value: port, To: 8080, HostIP: "127.0.0.1"},
			},
		},
	}
	var decoded TaskConfig
	hclutils.NewConfigParser(taskSpec).ParseHCL(h.t, "config {\n"+config+"\n}", &decoded)
	must.NoError(h.t, task.EncodeConcreteDriverConfig(&decoded))
	h.t.Setenv("TMPDIR", h.t.TempDir()) // Nomad's harness leaves folders there
	h.t.Cleanup(h.MkAllocDir(task, !h.quiet))
	if h.quiet {
		task.StdoutPath, task.StderrPath = os.DevNull, os.DevNull
	}
	return task, port
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (h *harness) start(task *drivers.TaskConfig) *drivers.TaskHandle {
	h.t.Helper()
	handle, _, err := h.StartTask(task)
	must.NoError(h.t, err)
	h.t.Cleanup(func() { _ = h.driver.DestroyTask(task.ID, true) })
	return handle
}

func (h *harness) wait(task *drivers.TaskConfig) *drivers.ExitResult {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	ch, err := h.WaitTask(ctx, task.ID)
	must.NoError(h.t, err)
	result := <-ch
	must.NotNil(h.t, result)
	return result
}

// get asks a guest until it answers: user-mode networking takes connections
// before the guest listens.
func get(t *testing.T, url string) string {
	t.Helper()
	client := &http.Client{Timeout: 2 * time.Second}
	deadline := time.Now().Add(patience)
	for {
		response, err := client.Get(url)
		if err == nil {
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			must.NoError(t, err)
			must.Eq(t, http.StatusOK, response.StatusCode)
			return string(body)
		}
		if time.Now().After(deadline) {
			t.Fatalf("no answer from %s: %v", url, err)
		}
	}
}

func stepsConfig(t *testing.T, arch guest.Arch, more string) string {
	initrd, err := filepath.Abs(filepath.Join(built, "steps.cpio"))
	must.NoError(t, err)
	return fmt.Sprintf("image = %q\n initrd = %q\n guest = \"unikraft\"\n accelerator = \"tcg\"\n %s", imagePath(t, arch), initrd, more)
}

func TestTask_Serves(t *testing.T) {
	for _, arch := range guest.Arches {
		t.Run(string(arch), func(t *testing.T) {
			h := newHarness(t, runDir(t), "")
			task, port := h.newTask(stepsConfig(t, arch, `ports = ["http"]
				args = ["--name=a b", "it's", "a,b"]`))
			h.start(task)

			url := fmt.Sprintf("http://127.0.0.1:%d", port)
			must.Eq(t, "ok\n", get(t, url+"/healthz"))
			must.StrContains(t, get(t, url+"/top"), `"id":`)
			must.StrContains(t, get(t, url+"/env"), `"LOG":"info"`)
			must.StrContains(t, get(t, url+"/args"), `"--name=a b","it's","a,b"`)

			must.NoError(t, h.StopTask(task.ID, 10*time.Second, "SIGTERM"))
			must.Eq(t, 15, h.wait(task).Signal)
			must.NoError(t, h.DestroyTask(task.ID, false))
		})
	}
}

func TestTask_ReturnValueAndLog(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	task, _ := h.newTask(stepsConfig(t, guest.ARM64, `args = ["--exit=7"]`))
	h.start(task)
	result := h.wait(task)
	must.Eq(t, 7, result.ExitCode, must.Sprintf("%v", result.Err))
	must.False(t, result.OOMKilled)

	status, err := h.InspectTask(task.ID)
	must.NoError(t, err)
	must.Eq(t, drivers.TaskStateExited, status.State)
	awaitLog(t, task, "main returned 7")
}

// awaitLog waits until Nomad's logmon has written a text.
func awaitLog(t *testing.T, task *drivers.TaskConfig, text string) {
	t.Helper()
	awaitText(t, filepath.Join(task.TaskDir().LogDir, "steps.stdout.0"), text)
}

// awaitText waits until a file holds a text.
func awaitText(t *testing.T, path, text string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		log, _ := os.ReadFile(path)
		if strings.Contains(string(log), text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %q in %s: %q", text, path, log)
		}
		time.Sleep(20 * time.Millisecond) // who writes tells no one when it has written
	}
}

// What is told of a guest that works adds up to what its QEMU took: no message
// leaves out any time, and none tells of any twice.
func TestTask_Stats(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	task, _ := h.newTask(stepsConfig(t, guest.ARM64, `args = ["--burn-cpu"]`))
	h.start(task)
	known, err := h.driver.tasks.get(task.ID)
	must.NoError(t, err)
	group := known.cgroup
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	began := time.Now()
	before, err := group.CPUTime()
	must.NoError(t, err)
	ch, err := h.TaskStats(ctx, task.ID, 100*time.Millisecond)
	must.NoError(t, err)

	first := (<-ch).Timestamp
	var span, told time.Duration // of time, and of processor time
	for at := first; span < time.Second; {
		usage, ok := <-ch
		must.True(t, ok, must.Sprint("no more statistics"))
		cpu, memory := usage.ResourceUsage.CpuStats, usage.ResourceUsage.MemoryStats
		told += time.Duration(cpu.Percent / 100 * float64(usage.Timestamp-at))
		at = usage.Timestamp
		span = time.Duration(at - first)
		must.InDelta(t, cpu.Percent, cpu.UserMode+cpu.SystemMode, 1)
		must.Positive(t, memory.RSS)
		must.GreaterEq(t, memory.RSS, memory.Usage)
	}
	after, err := group.CPUTime()
	must.NoError(t, err)
	const slack = 100 * time.Millisecond // between taking the time and reading the counter
	took, untold := after-before, time.Since(began)-span
	must.Between(t, took-2*untold-slack, told, took+slack) // QEMU's processor and its main loop
}

func TestTask_WritesAllItsMemory(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	task, port := h.newTask(stepsConfig(t, guest.ARM64, `ports = ["http"]
		args = ["--fill-memory"]`))
	h.start(task)
	must.Eq(t, "ok\n", get(t, fmt.Sprintf("http://127.0.0.1:%d/healthz", port)))
}

func TestStartTask_Refuses(t *testing.T) {
	noise := filepath.Join(t.TempDir(), "noise")
	must.NoError(t, os.WriteFile(noise, []byte(strings.Repeat("noise", 4096)), 0o644))
	image := func(more string) string {
		return fmt.Sprintf("image = %q\n%s", imagePath(t, guest.ARM64), more)
	}
	cases := []struct {
		name   string
		config string
		memory int64
		say    []string
	}{
		{"missing image", `image = "local/none"`, 64, []string{"local/none"}},
		{"path outside", fmt.Sprintf("image = %q", noise), 64, []string{"image_paths"}},
		{"unknown guest", image(`guest = "plan9"`), 64, []string{"config.guest", "plan9", "unikraft"}},
		{"guest not told", image(""), 64, []string{"config.guest", "unikraft"}},
		{"other architecture", image(`guest = "unikraft"
			arch = "x86_64"`), 64, []string{"arm64", "x86_64"}},
		{"unknown architecture", image(`arch = "riscv"`), 64, []string{"config.arch", "riscv", "arm64"}},
		{"unknown port", image(`guest = "unikraft"
			ports = ["metrics"]`), 64, []string{"config.ports", "metrics", "http"}},
		{"port twice", image(`guest = "unikraft"
			ports = ["http", "http"]`), 64, []string{"http", "twice"}},
		{"port without network card", image(`guest = "unikraft"
			ports = ["http"]
			network_mode = "none"`), 64, []string{"config.network_mode", "none", "ports"}},
		{"unknown network mode", image(`network_mode = "bridge"`), 64, []string{"config.network_mode", "bridge", "group's network block"}},
		{"too little memory", image(`guest = "unikraft"`), 24, []string{"resources.memory = 24", "set memory to"}},
		{"unknown accelerator", image(`accelerator = "xen"`), 64, []string{"config.accelerator", "xen", "kvm"}},
		{"extra argument", image(`extra_args = ["-daemonize"]`), 64, []string{"config.extra_args", "-daemonize", "args_allowlist"}},
		{"bad pattern", image("ready {\n pattern = \"(\"\n}"), 64, []string{"config.ready.pattern"}},
		{"ready port that is not forwarded", image("ports = [\"http\"]\nready {\n port = \"admin\"\n}"), 64, []string{"config.ready.port", "admin", "http"}},
		{"no time to get ready", image("ready {\n timeout = \"-1s\"\n}"), 64, []string{"config.ready.timeout", "-1s"}},
		{"option in a machine type", image("machine {\n type = \"virt,dumpdtb=/tmp/x\"\n}"), 64, []string{"config.machine.type", "dumpdtb"}},
		{"option in a CPU model", image("machine {\n cpu = \"max -daemonize\"\n}"), 64, []string{"config.machine.cpu", "daemonize"}},
		{"unknown machine", image(`guest = "unikraft"
			accelerator = "tcg"
			machine {
				type = "no-such-board"
			}`), 64, []string{"config.machine.type", "no-such-board", "use one of virt"}},
	}
	h := newHarness(t, runDir(t), "")
	h.quiet = true
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			task, _ := h.newTask(tc.config)
			task.Resources.NomadResources.Memory.MemoryMB = tc.memory
			_, _, err := h.StartTask(task)
			for _, say := range tc.say {
				must.ErrorContains(t, err, say)
			}
			must.False(t, structs.IsRecoverable(err), must.Sprint("trying again mends no mistake"))
		})
	}
}

func TestStartTask_PortTaken(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	task, port := h.newTask(stepsConfig(t, guest.ARM64, `ports = ["http"]`))
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	must.NoError(t, err)
	defer l.Close()
	_, _, err = h.StartTask(task)
	must.ErrorContains(t, err, fmt.Sprint(port))
	must.True(t, structs.IsRecoverable(err))
}

func TestDestroyTask_NeedsForce(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	task, _ := h.newTask(stepsConfig(t, guest.ARM64, ""))
	h.start(task)
	must.ErrorContains(t, h.DestroyTask(task.ID, false), "running")
	must.NoError(t, h.DestroyTask(task.ID, true))
	_, err := h.InspectTask(task.ID)
	must.ErrorContains(t, err, drivers.ErrTaskNotFound.Error())
}

func TestSetConfig_Refuses(t *testing.T) {
	cases := []struct{ config, say string }{
		{`image_paths = ["relative"]`, "image_paths"},
		{`user = "no-such-user-here"`, "no-such-user-here"},
		{`memory_overhead = "lots"`, "memory_overhead"},
		{`args_allowlist = ["("]`, "args_allowlist"},
		{"logs {\n collector = \"syslog\"\n}", "logs.collector"},
		{"logs {\n max_files = 0\n}", "logs.max_files"},
		{"logs {\n max_file_size = \"0\"\n}", "logs.max_file_size"},
		{`cache { dir = "relative" }`, "cache: dir"},
		{"cache {\n mirror {\n registry = \"docker.io\"\n hosts = [\"mirror\"]\n }\n }", "cache: mirror"},
		{`verify { image = "**" }`, `verify "**": keys`},
		{"verify {\n image = \"**\"\n keys = [\"/absent/cosign.pub\"]\n }", "/absent/cosign.pub"},
	}
	for _, tc := range cases {
		t.Run(tc.say, func(t *testing.T) {
			var plugin PluginConfig
			hclutils.NewConfigParser(pluginSpec).ParseHCL(t, "config { "+tc.config+" }", &plugin)
			var data []byte
			must.NoError(t, base.MsgPackEncode(&data, &plugin))
			must.ErrorContains(t, New(hclog.NewNullLogger()).SetConfig(&base.Config{PluginConfig: data}), tc.say)
		})
	}
}

func TestFingerprint(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ch, err := h.Fingerprint(ctx)
	must.NoError(t, err)
	fp := <-ch
	must.Eq(t, drivers.HealthStateHealthy, fp.Health, must.Sprint(fp.HealthDescription))
	for _, name := range []string{"version", "guests", "kvm", "arch.arm64", "arch.x86_64", "qemu.arm64.version", "memory_overhead_mib"} {
		must.MapContainsKey(t, fp.Attributes, "driver.unikernel."+name)
	}
}

func TestTask_OutOfMemory(t *testing.T) {
	h := newHarness(t, runDir(t), `memory_overhead = "1MiB"`)
	task, _ := h.newTask(stepsConfig(t, guest.ARM64, `args = ["--fill-memory"]`))
	h.start(task)
	result := h.wait(task)
	must.True(t, result.OOMKilled, must.Sprintf("%+v", result))
	must.Eq(t, 9, result.Signal)
	must.ErrorContains(t, result.Err, "memory")
}
