// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package classifier

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier/jobfile"
)

// world is what a classification looks at beside the job.
type world struct {
	image     *ContainerImage
	unikernel *UnikernelImage
	view      *GroupView
}

func (w world) Container(context.Context, string) (*ContainerImage, error) { return w.image, nil }

func (w world) Unikernel(context.Context, string) (*UnikernelImage, error) { return w.unikernel, nil }

func (w world) Group(context.Context, Need) (*GroupView, error) { return w.view, nil }

// decideIn classifies the first task of a job in a world.
func decideIn(t *testing.T, src string, w world, p *Policy) TaskReport {
	t.Helper()
	f, err := jobfile.Parse([]byte(src), jobfile.Options{Path: "job.hcl"})
	must.NoError(t, err, must.Sprint(src))
	o := Options{Policy: p, Images: w}
	if w.view != nil {
		o.Cluster = w
	}
	r, err := Classify(context.Background(), f, o)
	must.NoError(t, err, must.Sprint(src))
	return r.Report.Tasks[0]
}

// everything is a job that has every signal a job can have.
const everything = `
job "j" {
  type = "system"
  group "g" {
    count = 4
    network { mode = "host" }
    service {
      name = "web"
      connect { native = true }
    }
    task "t" {
      driver = "docker"
      user   = "app"
      config {
        image      = "acme/app:1"
        command    = "/bin/sh"
        args       = ["-c", "echo 1 && exec app"]
        cap_add    = ["net_admin"]
        privileged = true
        volumes    = ["/srv:/srv"]
      }
      lifecycle { hook = "poststart" }
      env { A = "1" }
      template {
        data        = "x"
        destination = "local/x"
      }
      artifact { source = "https://example.com/a" }
      volume_mount {
        volume      = "data"
        destination = "/data"
      }
      service {
        name = "alive"
        check {
          name     = "ping"
          type     = "script"
          command  = "ping"
          interval = "1s"
          timeout  = "1s"
        }
      }
      meta {
        hybrid_complexity      = "low"
        hybrid_workload        = "web"
        hybrid_unikernel_image = "acme/unikernel:1"
      }
      resources {
        %s
        memory     = 48
        memory_max = 64
        device "nvidia/gpu" {}
      }
    }
  }
}
`

func everyWorld() world {
	return world{
		image: &ContainerImage{
			Ref: "acme/app:1", Arch: []string{"amd64", "arm64"}, SizeMiB: 120, Layers: 7, Runtime: "python",
			Libraries: []string{"numpy"}, Processes: []string{"supervisord"}, Forks: []string{"fork"},
			Shell: "bash", Packages: "apk", User: "app", Ports: []string{"80/tcp", "443/tcp"}, Signal: "SIGQUIT",
		},
		unikernel: &UnikernelImage{Ref: "acme/unikernel:1", Family: "mirage", Arch: []string{"arm64"}, MemoryMiB: 16, Cannot: []string{GivesEnvironment, GivesFiles}},
		view: &GroupView{
			Before: Container, PeakMiB: 40.7, PeakMHz: 120.4,
			Container: Placement{Fit: 4, Of: 4},
			Unikernel: Placement{Fit: 2, Of: 4, KVM: 1, FreeMiB: 512, TotalMiB: 2048, Runs: map[string]int{"docker": 3, "unikernel": 1}},
		},
	}
}

// TestSignals: each signal has its name, what was found, and where; a weight of
// 0 switches it off.
func TestSignals(t *testing.T) {
	want := map[string]string{
		"complexity": "low | task meta", "workload": "web | task meta",
		"cpu": "100 MHz | resources.cpu", "cores": "2 | resources.cores", "memory": "64 MiB | resources.memory_max",
		"count": "4 instances | group count", "type": "system | job type", "devices": "nvidia/gpu | resources.device",
		"lifecycle": "poststart | task lifecycle", "templates": "1 | task template", "artifacts": "1 | task artifact",
		"volumes": "data, /srv:/srv | volume_mount and config", "checks": `"ping" of service "alive" | service check`,
		"connect": "web | group service", "network": "host | group network", "capabilities": "net_admin | config.cap_add",
		"privileged": "true | config.privileged", "command": "shell: /bin/sh -c echo 1 && exec app | config", "user": "app | task user",
		"image_size": "120 MiB | image acme/app:1", "layers": "7 | image acme/app:1", "runtime": "python | image acme/app:1",
		"contents": "scientific (numpy) | image acme/app:1", "processes": "supervisord | image acme/app:1", "forks": "fork | image acme/app:1",
		"shell": "bash | image acme/app:1", "packages": "apk | image acme/app:1", "image_user": "app | image acme/app:1",
		"ports": "2 | image acme/app:1", "stop_signal": "SIGQUIT | image acme/app:1",
		"unikernel_arch":   "not for x86_64 | unikernel image acme/unikernel:1",
		"unikernel_memory": "needs 48 MiB with QEMU's share, has 48 | unikernel image acme/unikernel:1",
		"unikernel_lacks":  "environment, files | unikernel image acme/unikernel:1",
		"peak":             "40 MiB | running job, as a container", "peak_cpu": "120 MHz | running job, as a container",
		"nodes": "50 % | 4 nodes as a container, 2 as a unikernel", "emulated": "50 % | 2 fitting nodes, 1 with KVM",
		"free": "25 % | 512 of 2048 MiB on fitting nodes", "neighbours": "25 % | 4 tasks on fitting nodes",
	}
	got := map[string]string{}
	for _, resources := range []string{"cpu = 100", "cores = 2"} {
		for _, g := range decideIn(t, fmt.Sprintf(everything, resources), everyWorld(), Default()).Signals {
			got[g.Name] = g.Value + " | " + g.Source
			must.Positive(t, g.Weight)
		}
	}
	must.MapEq(t, want, got)
	must.Eq(t, signalNames(), slices.Sorted(maps.Keys(want)))

	for _, name := range signalNames() {
		p := Default()
		p.Weights.Values[name] = 0
		for _, g := range decideIn(t, fmt.Sprintf(everything, "cpu = 100"), everyWorld(), p).Signals {
			must.NotEq(t, name, g.Name)
		}
	}
}

// TestUnikernelBlockers: what is known of the unikernel image and rules it out.
func TestUnikernelBlockers(t *testing.T) {
	job := "job \"j\" {\n group \"g\" {\n task \"t\" {\n driver = \"docker\"\n config {\n image = \"a\"\n %s }\n %s\n meta {\n hybrid_complexity = \"low\"\n hybrid_unikernel_image = \"u\"\n %s }\n resources {\n memory = 48\n }\n}\n}\n}\n"
	tests := []struct {
		name, config, task, meta string
		unikernel                UnikernelImage
		want                     string // "": it becomes a unikernel
	}{
		{name: "nothing in the way", unikernel: UnikernelImage{Arch: []string{"arm64"}, MemoryMiB: 16}},
		{name: "there is none", unikernel: UnikernelImage{Missing: true}, want: "there is none"},
		{name: "it does not boot", unikernel: UnikernelImage{Problem: "is a shell script: give a kernel"}, want: "the driver would refuse it: it is a shell script"},
		{name: "no environment", task: "env { A = 1 }", unikernel: UnikernelImage{Cannot: []string{"environment"}}, want: "takes no environment; give it arguments in hybrid_unikernel_args"},
		{name: "no environment from a template", task: "template {\n data = \"A=1\"\n destination = \"local/e\"\n env = true\n}",
			unikernel: UnikernelImage{Cannot: []string{"environment"}}, want: "takes no environment"},
		{name: "no files", config: "volumes = [\"local/a:/a\"]\n", unikernel: UnikernelImage{Cannot: []string{"files"}}, want: "takes no files from outside"},
		{name: "a volume, unknown", task: "volume_mount {\n volume = \"data\"\n destination = \"/d\"\n}", unikernel: UnikernelImage{}, want: "volume_mount \"data\": the unikernel image is not known to mount"},
		{name: "a volume over 9p", task: "volume_mount {\n volume = \"data\"\n destination = \"/d\"\n}", unikernel: UnikernelImage{Can: []string{"volumes"}}},
		{name: "nothing given", unikernel: UnikernelImage{Cannot: []string{"environment", "files"}}},
		{name: "another architecture", meta: "hybrid_unikernel_arch = \"arm64\"\n", unikernel: UnikernelImage{Arch: []string{"x86_64"}}, want: "is for x86_64, not for arm64"},
		{name: "too little memory", unikernel: UnikernelImage{Arch: []string{"arm64"}, MemoryMiB: 48}, want: `hybrid_unikernel_memory = "80"`},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got := decideIn(t, fmt.Sprintf(job, tc.config, tc.task, tc.meta), world{unikernel: &tc.unikernel}, Default())
			if tc.want == "" {
				must.Eq(t, Unikernel, got.Decision, must.Sprint(got.Reasons))
				return
			}
			must.Eq(t, RuleImpossible, got.Rule)
			must.StrContains(t, strings.Join(got.Reasons, "\n"), tc.want)
		})
	}
	near := decideIn(t, fmt.Sprintf(job, "", "", ""), world{unikernel: &UnikernelImage{Arch: []string{"arm64"}, MemoryMiB: 20}}, Default())
	must.Eq(t, Unikernel, near.Decision)
	must.StrContains(t, strings.Join(near.Notes, "\n"), `hybrid_unikernel_memory = "52" would do`)
}

// scene is a task under decision that complications are added to.
type scene struct {
	policy    *Policy
	job       *api.Job
	group     *api.TaskGroup
	task      *api.Task
	image     *ContainerImage
	unikernel *UnikernelImage
	view      *GroupView
}

// complications make a task more complex, each in one way.
var complications = []func(*scene){
	func(s *scene) { s.job.Type = new(api.JobTypeSystem) },
	func(s *scene) { s.task.Resources.Devices = []*api.RequestedDevice{{Name: "gpu"}} },
	func(s *scene) { s.task.Lifecycle = &api.TaskLifecycle{Hook: "prestart"} },
	func(s *scene) { s.task.Templates = append(s.task.Templates, &api.Template{}) },
	func(s *scene) { s.task.Artifacts = append(s.task.Artifacts, &api.TaskArtifact{}) },
	func(s *scene) { s.task.VolumeMounts = append(s.task.VolumeMounts, &api.VolumeMount{Volume: new("v")}) },
	func(s *scene) { s.task.Config["volumes"] = []any{"local/a:/a"} },
	func(s *scene) { s.task.Services = []*api.Service{{Checks: []api.ServiceCheck{{Type: "script"}}}} },
	func(s *scene) {
		s.group.Services = []*api.Service{{Connect: &api.ConsulConnect{Native: true}}}
	},
	func(s *scene) { s.group.Networks = []*api.NetworkResource{{Mode: "host"}} },
	func(s *scene) { s.task.Config["cap_add"] = []any{"sys_admin"} },
	func(s *scene) { s.task.Config["privileged"] = true },
	func(s *scene) { s.task.Config["command"] = "/bin/sh" },
	func(s *scene) { s.task.User = "root" },
	func(s *scene) { s.task.Env = map[string]string{"A": "1"} },
	func(s *scene) { s.task.Resources.MemoryMB = new(*s.task.Resources.MemoryMB * 2) },
	func(s *scene) { s.task.Resources.CPU = new(*s.task.Resources.CPU * 2) },
	func(s *scene) { s.image.SizeMiB *= 3 },
	func(s *scene) { s.image.Layers += 10 },
	func(s *scene) { s.image.Libraries = append(s.image.Libraries, "numpy") },
	func(s *scene) { s.image.Libraries = append(s.image.Libraries, "libopencv_core") },
	func(s *scene) { s.image.Processes = []string{"supervisord"} },
	func(s *scene) { s.image.Forks = []string{"fork"} },
	func(s *scene) { s.image.Shell = "sh" },
	func(s *scene) { s.image.Packages = "apk" },
	func(s *scene) { s.image.User = "app" },
	func(s *scene) { s.image.Ports = append(s.image.Ports, "80/tcp") },
	func(s *scene) { s.image.Signal = "SIGQUIT" },
	func(s *scene) { s.unikernel.Arch = []string{"arm64"} },
	func(s *scene) { s.unikernel.Cannot = []string{GivesEnvironment} },
	func(s *scene) { s.unikernel.MemoryMiB += 16 },
	func(s *scene) { s.view.PeakMiB = s.view.PeakMiB*2 + 1 },
	func(s *scene) { s.view.PeakMHz = s.view.PeakMHz*2 + 1 },
	func(s *scene) { s.view.Unikernel.KVM = 0 },
	func(s *scene) { s.view.Container.Fit++ },
}

// TestBurdensMonotone: whatever is added to a task that makes it more complex,
// in whatever order, its score never falls and it never moves toward the
// unikernel.
func TestBurdensMonotone(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) // the same every time
	policy := Default()
	for range 100 {
		s := randomScene(random, policy)
		score, decision := s.decide(t)
		for _, i := range random.Perm(len(complications)) {
			complications[i](s)
			nowScore, now := s.decide(t)
			must.GreaterEq(t, score, nowScore, must.Sprintf("complication %d", i))
			must.False(t, decision == Container && now == Unikernel, must.Sprintf("complication %d", i))
			score, decision = nowScore, now
		}
	}
}

func randomScene(r *rand.Rand, policy *Policy) *scene {
	meta := map[string]string{HintUnikernelImage: "u", HintComplexity: fmt.Sprint(r.IntN(101)), HintUnikernelMemory: "4096"}
	if r.IntN(2) == 0 {
		meta[HintWorkload] = policy.Workloads[r.IntN(len(policy.Workloads))].Name
	}
	if r.IntN(3) == 0 {
		meta[MetaDecision] = []string{"container", "unikernel"}[r.IntN(2)]
	}
	task := &api.Task{
		Name: "t", Driver: "docker", Meta: meta, Config: map[string]any{"image": "a"},
		Resources: &api.Resources{CPU: new(50 + r.IntN(4000)), MemoryMB: new(16 + r.IntN(4000))},
	}
	group := &api.TaskGroup{Name: new("g"), Tasks: []*api.Task{task}, Count: new(1 + r.IntN(20))}
	kinds := slices.Sorted(maps.Keys(policy.Tables[slices.IndexFunc(policy.Tables, func(t *Table) bool { return t.Name == "runtime" })].Values))
	return &scene{
		policy: policy,
		job:    &api.Job{ID: new("j"), TaskGroups: []*api.TaskGroup{group}}, group: group, task: task,
		image:     &ContainerImage{Arch: []string{"amd64", "arm64"}, SizeMiB: 1 + 800*r.Float64(), Layers: 1, Runtime: kinds[r.IntN(len(kinds))]},
		unikernel: &UnikernelImage{Arch: []string{"arm64", "x86_64"}, MemoryMiB: 8},
		view: &GroupView{
			PeakMiB: 16, PeakMHz: 10, Container: Placement{Fit: 4, Of: 9},
			Unikernel: Placement{Fit: 4, Of: 9, KVM: 4, FreeMiB: r.IntN(1000), TotalMiB: 1000, Runs: map[string]int{"unikernel": r.IntN(9)}},
		},
	}
}

func (s *scene) decide(t *testing.T) (int, Decision) {
	t.Helper()
	sub, err := newSubject(jobfile.Ref{}, s.policy, s.job, s.group, s.task)
	must.NoError(t, err)
	sub.image, sub.unikernel, sub.cluster = s.image, s.unikernel, s.view
	must.NoError(t, sub.decide())
	return *sub.score, sub.decision
}
