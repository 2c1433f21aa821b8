// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package classifier

import (
	"fmt"
	"slices"
	"strings"
)

// What a job may give a guest, as UnikernelImage.Can and Cannot name it.
const (
	GivesEnvironment = "environment"
	GivesFiles       = "files"   // copies of files from the task's folder
	GivesVolumes     = "volumes" // folders of the host
)

// defaultOverheadMiB is the unikernel driver's default memory_overhead: QEMU's
// own share of a task's memory. The plugin's configuration may say otherwise.
const defaultOverheadMiB = 32

// unikernelSignals reads what the unikernel image is.
func (s *subject) unikernelSignals() {
	u := s.unikernel
	if u == nil || u.Missing || u.Problem != "" {
		return
	}
	from := "unikernel image " + u.Ref
	if lacking := s.lackedArch(); len(lacking) > 0 {
		percent := float64(100 * len(lacking) / len(knownArch(s.image.Arch)))
		if score, ok := s.policy.scale("unikernel_arch", percent); ok {
			s.signal("unikernel_arch", "not for "+strings.Join(lacking, ", "), from, score)
		}
	}
	if memory := s.memoryAsUnikernel(); u.MemoryMiB > 0 && memory > 0 {
		least := u.MemoryMiB + defaultOverheadMiB
		if score, ok := s.policy.scale("unikernel_memory", float64(100*least/memory)); ok {
			s.signal("unikernel_memory", fmt.Sprintf("needs %d MiB with QEMU's share, has %d", least, memory), from, score)
		}
	}
	s.found("unikernel_lacks", from, s.lacked()...)
}

// lackedArch are architectures that there is a container image for and no
// unikernel.
func (s *subject) lackedArch() []string {
	if s.image == nil || len(s.unikernel.Arch) == 0 {
		return nil
	}
	return slices.DeleteFunc(knownArch(s.image.Arch), func(a string) bool { return slices.Contains(s.unikernel.Arch, a) })
}

// knownArch are a container image's architectures as the unikernel driver
// names them; others it does not know.
func knownArch(arch []string) []string {
	var out []string
	for _, a := range arch {
		switch a {
		case "amd64", "x86_64":
			out = append(out, "x86_64")
		case "arm64", "aarch64":
			out = append(out, "arm64")
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// lacked is what the job gives the task that its unikernel image cannot take.
func (s *subject) lacked() []string {
	var lacked []string
	for _, what := range s.gives() {
		if slices.Contains(s.unikernel.Cannot, what) {
			lacked = append(lacked, what)
		}
	}
	return lacked
}

// gives is what the job gives a task beside its arguments and its address.
func (s *subject) gives() []string {
	var out []string
	environment := len(s.task.Env) > 0
	for _, t := range s.task.Templates {
		environment = environment || deref(t.Envvars)
	}
	if environment {
		out = append(out, GivesEnvironment)
	}
	mounts := s.container()
	if s.task.Driver != driverDocker {
		mounts = s.unwrapped[sideUnikernel]
	}
	if len(s.task.VolumeMounts) > 0 {
		out = append(out, GivesVolumes)
	}
	if slices.ContainsFunc([]string{"mount", "mounts", "volumes"}, func(key string) bool { return !asksNothing(mounts[key]) }) {
		out = append(out, GivesFiles)
	}
	return out
}

// unikernelBlockers says what about the unikernel image makes it impossible.
func (s *subject) unikernelBlockers() []string {
	u := s.unikernel
	if u != nil && u.Missing {
		return []string{fmt.Sprintf("unikernel image %s: there is none", u.Ref)}
	}
	if u != nil && u.Problem != "" {
		return []string{fmt.Sprintf("unikernel image %s: the driver would refuse it: it %s", u.Ref, u.Problem)}
	}
	var why []string
	if u == nil || !slices.Contains(u.Can, GivesVolumes) {
		for _, m := range s.task.VolumeMounts {
			why = append(why, fmt.Sprintf("volume_mount %q: the unikernel image is not known to mount folders of the host (9p)", deref(m.Volume)))
		}
	}
	if u == nil {
		return why
	}
	for _, what := range s.lacked() {
		switch what {
		case GivesEnvironment:
			why = append(why, fmt.Sprintf("env: unikernel image %s takes no environment; give it arguments in %s", u.Ref, HintUnikernelArgs))
		case GivesFiles:
			why = append(why, fmt.Sprintf("unikernel image %s takes no files from outside, and config mounts some", u.Ref))
		}
	}
	if arch := s.boundArch(); arch != "" && len(u.Arch) > 0 && !slices.Contains(u.Arch, arch) {
		why = append(why, fmt.Sprintf("unikernel image %s is for %s, not for %s", u.Ref, strings.Join(u.Arch, " and "), arch))
	}
	if memory := s.memoryAsUnikernel(); memory <= u.MemoryMiB {
		why = append(why, fmt.Sprintf("%d MiB of memory are too few for unikernel image %s: it needs %d, and QEMU its own share; give %s = \"%d\"",
			memory, u.Ref, u.MemoryMiB, HintUnikernelMemory, u.MemoryMiB+defaultOverheadMiB))
	}
	return why
}

// unikernelNotes says what may stand in the way on a node.
func (s *subject) unikernelNotes() []string {
	u := s.unikernel
	if u == nil || u.MemoryMiB == 0 {
		return nil
	}
	memory, least := s.memoryAsUnikernel(), u.MemoryMiB+defaultOverheadMiB
	if memory <= u.MemoryMiB || memory >= least {
		return nil
	}
	return []string{fmt.Sprintf("%d MiB of memory: the unikernel driver takes %d of them for QEMU unless memory_overhead says otherwise, and the image needs %d; %s = \"%d\" would do",
		memory, defaultOverheadMiB, u.MemoryMiB, HintUnikernelMemory, least)}
}
