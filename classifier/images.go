// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package classifier

import (
	"context"
	"fmt"
	"strings"
)

// Images looks into images without running them. Its errors are shown as
// notes: an image out of reach is no reason to refuse a job.
type Images interface {
	Container(ctx context.Context, ref string) (*ContainerImage, error)
	Unikernel(ctx context.Context, ref string) (*UnikernelImage, error)
}

// ContainerImage is what a container image is made of.
type ContainerImage struct {
	Ref     string   `json:"ref"`
	Digest  string   `json:"digest,omitempty"`
	Arch    []string `json:"arch,omitempty"`
	SizeMiB float64  `json:"size_mib"` // of all files, unpacked
	Layers  int      `json:"layers"`
	// Entry is the argv of entry point and command.
	Entry []string `json:"entry,omitempty"`
	// Runtime is what the entry point is: go, static, dynamic, shell, python,
	// node, jvm, dotnet, ruby, php, … or "" where it could not be told.
	Runtime string `json:"runtime,omitempty"`
	// Libraries are libraries and packages found, lower case, sorted.
	Libraries []string `json:"libraries,omitempty"`
	// Processes are managers of several processes that it starts.
	Processes []string `json:"processes,omitempty"`
	// Forks are calls to start processes that the entry point is linked with.
	Forks []string `json:"forks,omitempty"`
	// Shell and Packages name a shell and a package manager inside, if any.
	Shell    string   `json:"shell,omitempty"`
	Packages string   `json:"packages,omitempty"`
	User     string   `json:"user,omitempty"`
	Ports    []string `json:"ports,omitempty"`
	Signal   string   `json:"stop_signal,omitempty"`
}

// UnikernelImage is what a unikernel image is and needs.
type UnikernelImage struct {
	Ref     string   `json:"ref"`
	Family  string   `json:"family,omitempty"`
	Release string   `json:"release,omitempty"`
	Arch    []string `json:"arch,omitempty"` // arm64, x86_64
	SizeMiB float64  `json:"size_mib,omitempty"`
	// MemoryMiB is the least RAM that a guest of its family and architecture
	// was seen to boot in, and no less than its own files; 0: unknown.
	MemoryMiB int      `json:"memory_mib,omitempty"`
	Features  []string `json:"features,omitempty"`
	// GICs are the versions of ARM's interrupt controller that an arm64 kernel
	// drives; read from a kernel that is a file, else not known.
	GICs []int `json:"gics,omitempty"`
	// Can and Cannot name what a job may give that the image is known to take,
	// and known not to take: environment, files, volumes.
	Can     []string `json:"can,omitempty"`
	Cannot  []string `json:"cannot,omitempty"`
	Missing bool     `json:"missing,omitempty"` // the reference names nothing
	// Problem is why the driver would refuse it, "" where it would not.
	Problem string `json:"problem,omitempty"`
}

// jit are runtimes that compile while they run.
var jit = map[string]bool{"node": true, "jvm": true, "dotnet": true}

func (s *subject) imageSignals() {
	if s.image == nil {
		return
	}
	from := "image " + s.image.Ref
	if s.image.SizeMiB > 0 {
		s.scaled("image_size", float64(int(s.image.SizeMiB)), "MiB", from)
	}
	if s.image.Layers > 0 {
		s.scaled("layers", float64(s.image.Layers), "", from)
	}
	s.tabled("runtime", s.image.Runtime, s.image.Runtime, from)
	if kind, found := s.policy.workloadOf(s.image.Libraries); kind != nil {
		value := fmt.Sprintf("%s (%s)", kind.Name, strings.Join(found, ", "))
		s.signal("contents", value, from, float64(kind.Score))
	}
	s.found("processes", from, s.image.Processes...)
	s.found("forks", from, s.image.Forks...)
	s.found("shell", from, given(s.image.Shell)...)
	s.found("packages", from, given(s.image.Packages)...)
	s.found("image_user", from, given(s.image.User)...)
	if n := len(s.image.Ports); n > 0 {
		s.scaled("ports", float64(n), "", from)
	}
	s.found("stop_signal", from, given(s.image.Signal)...)
}

// given is a list of the one value, empty where there is none.
func given(v string) []string {
	if v == "" {
		return nil
	}
	return []string{v}
}

// workloadOf finds the heaviest kind of work that libraries tell of, and the
// libraries that told.
func (p *Policy) workloadOf(libraries []string) (*Workload, []string) {
	var best *Workload
	var told []string
	for _, w := range p.Workloads {
		var found []string
		for _, lib := range libraries {
			for _, pattern := range w.Finds {
				if wildcard(pattern, lib) {
					found = append(found, lib)
					break
				}
			}
		}
		if len(found) > 0 && (best == nil || w.Score > best.Score) {
			best, told = w, found
		}
	}
	if len(told) > 3 {
		told = append(told[:3:3], "…")
	}
	return best, told
}

// imageBlockers says what about the images makes a unikernel impossible.
func (s *subject) imageBlockers() []string {
	var why []string
	why = append(why, s.unikernelBlockers()...)
	if s.image == nil {
		return why
	}
	if len(s.image.Processes) > 0 {
		why = append(why, fmt.Sprintf("the container image starts several processes (%s); a unikernel is one", strings.Join(s.image.Processes, ", ")))
	}
	if mib, floor := s.memoryAsUnikernel(), s.policy.Memory.JITFloor; jit[s.image.Runtime] && mib < floor {
		why = append(why, fmt.Sprintf("%s compiles while it runs, and %d MiB is below the policy's memory.jit_floor of %d: such runtimes collapse there in a unikernel",
			s.image.Runtime, mib, floor))
	}
	return why
}

// memoryAsUnikernel is the memory the task would have as a unikernel, in MiB.
func (s *subject) memoryAsUnikernel() int {
	if mib, ok := s.hints.memory(); ok {
		return mib
	}
	if s.entry != nil && s.entry.MemoryMiB > 0 {
		return s.entry.MemoryMiB
	}
	if r := s.task.Resources; r != nil && r.MemoryMB != nil {
		return *r.MemoryMB
	}
	return 300 // Nomad's default
}

// Weigh tells what a container image alone says about a decision.
func (p *Policy) Weigh(image *ContainerImage) []Signal {
	s := &subject{policy: p, image: image}
	s.imageSignals()
	sum(s.signals)
	return s.loudest()
}
