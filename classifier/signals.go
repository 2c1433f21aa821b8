// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package classifier

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Nature says how a signal counts.
type Nature string

const (
	// Measure speaks for either runtime and tells of the application: it counts
	// as evidence.
	Measure Nature = "measure"
	// Burden is what only a container's system gives, or what makes an
	// application harder to have as a unikernel. It counts only where it raises
	// the score: to find one more never moves a task toward the unikernel.
	Burden Nature = "burden"
	// Circumstance tells of the cluster, not of the application: it counts
	// beside measures and is no evidence.
	Circumstance Nature = "circumstance"
)

// Signal is one thing known about a task and what it says.
type Signal struct {
	// Name is the signal's name in the policy's weights.
	Name string `json:"name"`
	// Value is what was found.
	Value string `json:"value"`
	// Source is where it was read, such as "task meta" or "resources.cpu".
	Source string `json:"source"`
	Nature Nature `json:"nature"`
	// Score is 0 (light: unikernel) to 100 (heavy: container).
	Score float64 `json:"score"`
	// Weight is the policy's.
	Weight int `json:"weight"`
	// Share is the part of the task's score that comes from it, in percent of
	// all weights that count. A burden that would lower the score has none.
	Share float64 `json:"share"`

	rank int // its place in signalKinds
}

func (g Signal) String() string {
	return fmt.Sprintf("%s %s: %.0f, %.0f %%", g.Name, g.Value, g.Score, g.Share)
}

// signalKind declares a signal. The policy's weights go by these names, and
// docs/hybrid.md lists them.
type signalKind struct {
	name   string
	nature Nature
	from   string
	// by is how the policy scores it: "scale", "scores", "found" (the score of
	// its name in the table of that name), or "" where something else does.
	by string
}

var signalKinds = []signalKind{
	{"complexity", Measure, "hybrid_complexity", ""},
	{"workload", Measure, "hybrid_workload", ""},

	{"cpu", Measure, "resources.cpu, MHz", "scale"},
	{"cores", Measure, "resources.cores", "scale"},
	{"memory", Measure, "resources.memory or memory_max, MiB", "scale"},
	{"count", Measure, "count of the group, where more than one", "scale"},
	{"type", Burden, "type of the job", "scores"},
	{"devices", Burden, "resources.device", "found"},
	{"lifecycle", Burden, "lifecycle hook", "found"},
	{"templates", Burden, "number of templates", "scale"},
	{"artifacts", Burden, "number of artifacts", "scale"},
	{"volumes", Burden, "volume_mount, config.volumes, config.mount", "found"},
	{"checks", Burden, "script checks", "found"},
	{"connect", Burden, "Consul Connect in the group's services", "found"},
	{"network", Burden, "network mode of the group or of config", "scores"},
	{"capabilities", Burden, "config.cap_add", "found"},
	{"privileged", Burden, "config.privileged", "found"},
	{"command", Burden, "config.command, entrypoint and args", "scores"},
	{"user", Burden, "user of the task", "found"},

	{"image_size", Measure, "container image: MiB of its files", "scale"},
	{"layers", Burden, "container image: number of layers", "scale"},
	{"runtime", Measure, "container image: what its entry point is", "scores"},
	{"contents", Burden, "container image: kind of work that its libraries tell", ""},
	{"processes", Burden, "container image: managers of several processes", "found"},
	{"forks", Burden, "container image: calls to start processes, from the ELF symbols", "found"},
	{"shell", Burden, "container image: a shell", "found"},
	{"packages", Burden, "container image: a package manager", "found"},
	{"image_user", Burden, "container image: its user", "found"},
	{"ports", Burden, "container image: number of exposed ports", "scale"},
	{"stop_signal", Burden, "container image: its stop signal", "found"},

	{"unikernel_arch", Burden, "unikernel image: architectures of the container image that it lacks, percent", "scale"},
	{"unikernel_memory", Burden, "unikernel image: the least memory it boots in, percent of the task's", "scale"},
	{"unikernel_lacks", Burden, "unikernel image: what the job gives it that it cannot take", "found"},

	{"peak", Measure, "running job: most memory used, MiB (-cluster)", "scale"},
	{"peak_cpu", Measure, "running job: most CPU used, MHz (-cluster)", "scale"},
	{"nodes", Burden, "nodes that fit a container and not a unikernel, percent (-cluster)", "scale"},
	{"emulated", Burden, "fitting nodes without KVM for the guest, percent (-cluster)", "scale"},
	{"free", Circumstance, "memory that fitting nodes have free, percent (-cluster)", "scale"},
	{"neighbours", Circumstance, "tasks running on fitting nodes that are unikernels, percent (-cluster)", "scale"},
}

// kindOf finds a declared signal and its place.
func kindOf(name string) (signalKind, int) {
	i := slices.IndexFunc(signalKinds, func(k signalKind) bool { return k.name == name })
	if i < 0 {
		panic("no such signal: " + name) // a slip of ours, which every test would meet
	}
	return signalKinds[i], i
}

// signalNames are the names that weights may have, sorted.
func signalNames() []string {
	names := make([]string, len(signalKinds))
	for i, k := range signalKinds {
		names[i] = k.name
	}
	slices.Sort(names)
	return names
}

// collect gathers the signals of a task and the score they make.
func (s *subject) collect() {
	s.hintSignals()
	s.resourceSignals()
	s.jobSignals()
	s.imageSignals()
	s.unikernelSignals()
	s.score = sum(s.signals)
	s.recorded = s.score
	if s.cluster == nil {
		return
	}
	s.clusterSignals()
	s.score = sum(s.signals)
}

func (s *subject) signal(name, value, source string, score float64) {
	kind, rank := kindOf(name)
	if weight := s.policy.weight(name); weight > 0 {
		s.signals = append(s.signals, Signal{
			Name: name, Value: value, Source: source, Nature: kind.nature, Score: score, Weight: weight, rank: rank,
		})
	}
}

// scaled adds a signal whose score the policy's scale gives.
func (s *subject) scaled(name string, figure float64, unit, source string) {
	if score, ok := s.policy.scale(name, figure); ok {
		s.signal(name, strings.TrimSpace(fmt.Sprintf("%g %s", figure, unit)), source, score)
	}
}

// tabled adds a signal whose score a table of the policy gives for a kind.
func (s *subject) tabled(name, kind, value, source string) {
	if score, ok := s.policy.score(name, kind); ok {
		s.signal(name, value, source, score)
	}
}

// found adds a signal that is either there or not, with what was found.
func (s *subject) found(name, source string, what ...string) {
	if len(what) == 0 {
		return
	}
	if score, ok := s.policy.score("found", name); ok {
		s.signal(name, strings.Join(what, ", "), source, score)
	}
}

// sum weighs the signals and gives each its share. Without a measure there is
// no score. Burdens join from the highest on while they raise the mean: the
// result is the largest that any of their sets would make, so it never falls
// when a burden is added or any score rises.
func sum(signals []Signal) *int {
	total, points := 0, 0.0
	measured := false
	var burdens []*Signal
	for i := range signals {
		g := &signals[i]
		g.Share = 0
		if g.Nature == Burden {
			burdens = append(burdens, g)
			continue
		}
		measured = measured || g.Nature == Measure
		total, points = total+g.Weight, points+g.Score*float64(g.Weight)
	}
	if !measured {
		return nil
	}
	slices.SortStableFunc(burdens, func(a, b *Signal) int { return cmp.Compare(b.Score, a.Score) })
	joined := map[*Signal]bool{}
	for _, g := range burdens {
		if g.Score*float64(total) <= points {
			break
		}
		joined[g] = true
		total, points = total+g.Weight, points+g.Score*float64(g.Weight)
	}
	for i := range signals {
		if g := &signals[i]; g.Nature != Burden || joined[g] {
			g.Share = math.Round(1000*float64(g.Weight)/float64(total)) / 10
		}
	}
	score := int(math.Round(points / float64(total)))
	return &score
}

// evidence is the weight of what is known of the application.
func (s *subject) evidence() int {
	total := 0
	for _, g := range s.signals {
		if g.Nature == Measure {
			total += g.Weight
		}
	}
	return total
}

// known is the weight of all that the score is made of.
func (s *subject) known() int {
	total := 0
	for _, g := range s.signals {
		if g.Share > 0 {
			total += g.Weight
		}
	}
	return total
}

// loudest orders signals for explanations: those that count by their pull away
// from the middle, then the others.
func (s *subject) loudest() []Signal {
	out := slices.Clone(s.signals)
	pull := func(g Signal) float64 {
		if g.Share == 0 {
			return 0
		}
		return math.Abs(g.Score-50) * float64(g.Weight)
	}
	slices.SortStableFunc(out, func(a, b Signal) int {
		return cmp.Or(cmp.Compare(pull(b), pull(a)), cmp.Compare(a.rank, b.rank))
	})
	return out
}
