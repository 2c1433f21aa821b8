// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package classifier

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier/jobfile"
)

// way is what it takes to run a task as one runtime, or why it cannot.
type way struct {
	decision Decision
	edit     jobfile.Edit
	blockers []string
	notes    []string
}

func (w *way) block(format string, args ...any) {
	w.blockers = append(w.blockers, fmt.Sprintf(format, args...))
}

func (w *way) set(key string, value any, hint string) {
	w.edit.Config = append(w.edit.Config, jobfile.ConfigChange{Key: key, Value: value, Hint: hint})
}

// asUnikernel is the way to run the task as a unikernel.
func (s *subject) asUnikernel() *way {
	w := &way{decision: Unikernel, edit: jobfile.Edit{Ref: s.ref}}
	switch s.task.Driver {
	case driverUnikernel:
		return w
	case driverHybrid:
		w.edit.Unwrap = sideUnikernel
	case driverDocker:
		s.translateToUnikernel(w)
	}
	w.edit.Driver = driverUnikernel
	w.blockers = append(w.blockers, taskBlockers(s.group, s.task)...)
	w.blockers = append(w.blockers, s.imageBlockers()...)
	w.notes = append(w.notes, s.unikernelNotes()...)
	s.rightSize(w)
	s.addPlacement(w)
	return w
}

// translateToUnikernel turns a docker config into the unikernel driver's.
func (s *subject) translateToUnikernel(w *way) {
	args, newArgs := s.hints.args(HintUnikernelArgs)
	tr := dockerToUnikernel(s.task.Config, newArgs)
	w.blockers, w.notes = append(w.blockers, tr.blockers...), append(w.notes, tr.notes...)
	switch image := s.unikernelImage(); {
	case image == "":
		w.block("no unikernel image is known for it; name one in meta %s or in the policy's catalog", HintUnikernelImage)
	case s.hints.text(HintUnikernelImage) != "":
		w.set("image", image, HintUnikernelImage)
	default:
		w.set("image", image, "")
		w.notes = append(w.notes, fmt.Sprintf("the policy's catalog maps %q to %s", s.entry.Container, image))
	}
	entry := s.entry
	if entry == nil || s.hints.text(HintUnikernelImage) != "" {
		entry = &Entry{} // it speaks of another image
	}
	s.setText(w, "guest", HintUnikernelGuest, entry.Guest)
	s.setText(w, "initrd", HintUnikernelInitrd, entry.Initrd)
	s.setText(w, "arch", HintUnikernelArch, "")
	if newArgs {
		w.set("args", args, "")
	}
	if kernelArgs, ok := s.hints.args(HintKernelArgs); ok {
		w.set("kernel_args", kernelArgs, "")
	}
	w.edit.Config = append(w.edit.Config, tr.changes...)
}

// setText sets a key from a hint, else from the catalog.
func (s *subject) setText(w *way, key, hint, fallback string) {
	if v := s.hints.text(hint); v != "" {
		w.set(key, v, hint)
	} else if fallback != "" {
		w.set(key, fallback, "")
	}
}

// rightSize sets the memory that the author or the catalog gives a unikernel.
func (s *subject) rightSize(w *way) {
	mib, asked := s.hints.memory()
	if !asked && s.entry != nil && s.entry.MemoryMiB > 0 {
		mib, asked = s.entry.MemoryMiB, true
	}
	if !asked {
		return
	}
	if r := s.task.Resources; r != nil {
		if r.MemoryMB != nil && *r.MemoryMB == mib {
			return
		}
		if most := deref(r.MemoryMaxMB); most > 0 && most < mib {
			w.block("resources.memory_max = %d is below the unikernel's memory of %d MiB; raise it or leave it out", most, mib)
			return
		}
	}
	w.edit.MemoryMiB = &mib
}

// asContainer is the way to run the task as a container.
func (s *subject) asContainer() *way {
	w := &way{decision: Container, edit: jobfile.Edit{Ref: s.ref}}
	switch s.task.Driver {
	case driverDocker:
		return w
	case driverHybrid:
		w.edit.Driver, w.edit.Unwrap = driverDocker, sideContainer
		return w
	}
	w.edit.Driver = driverDocker
	if s.hints.text(HintContainerImage) == "" {
		w.block("no container image is known for it; name one in meta %s", HintContainerImage)
	} else {
		w.set("image", s.hints.text(HintContainerImage), HintContainerImage)
	}
	tr := unikernelToDocker(s.task.Config)
	w.blockers = append(w.blockers, tr.blockers...)
	w.edit.Config = append(w.edit.Config, tr.changes...)
	return w
}

const (
	attrKVM  = "${attr.driver.unikernel.kvm}"
	attrArch = "${attr.driver.unikernel.arch.%s}"
)

// addPlacement adds what Nomad's own driver constraint does not say: the
// architecture an image is bound to, and that nodes with KVM are better. What
// the author says about the same attributes stands.
func (s *subject) addPlacement(w *way) {
	arch := s.arch()
	if arch != "" && !s.authorPlaces("driver.unikernel.arch.") && !s.authorPlaces("cpu.arch") {
		w.edit.Constraints = []*api.Constraint{{LTarget: fmt.Sprintf(attrArch, arch), Operand: api.ConstraintAttributeIsSet}}
	}
	if kind := deref(s.job.Type); kind == api.JobTypeSystem || kind == api.JobTypeSysbatch {
		return // Nomad refuses affinities there
	}
	if s.authorPlaces("driver.unikernel.kvm") || s.authorPlaces("driver.unikernel.arch.") {
		return
	}
	weight := int8(50)
	a := &api.Affinity{LTarget: attrKVM, Operand: "=", RTarget: "true", Weight: &weight}
	if arch != "" {
		a.LTarget, a.RTarget = fmt.Sprintf(attrArch, arch), "kvm"
	}
	w.edit.Affinities = []*api.Affinity{a}
}

// arch is the one architecture that the unikernel image is bound to, "" where
// it is not known or there are several.
func (s *subject) arch() string {
	if arch := s.boundArch(); arch != "" {
		return arch
	}
	if s.entry != nil && s.hints.text(HintUnikernelImage) == "" && len(s.entry.Arch) == 1 {
		return s.entry.Arch[0]
	}
	if s.unikernel != nil && len(s.unikernel.Arch) == 1 {
		return s.unikernel.Arch[0]
	}
	return ""
}

// boundArch is the architecture that the author bound the unikernel to.
func (s *subject) boundArch() string {
	if s.task.Driver == driverHybrid {
		arch, _ := s.unwrapped[sideUnikernel]["arch"].(string)
		return arch
	}
	return s.hints.text(HintUnikernelArch)
}

// authorPlaces tells whether the author constrains or prefers an attribute, at
// any level.
func (s *subject) authorPlaces(attr string) bool {
	var targets []string
	for _, list := range [][]*api.Constraint{s.job.Constraints, s.group.Constraints, s.task.Constraints} {
		for _, c := range list {
			targets = append(targets, c.LTarget, c.RTarget)
		}
	}
	for _, list := range [][]*api.Affinity{s.job.Affinities, s.group.Affinities, s.task.Affinities} {
		for _, a := range list {
			targets = append(targets, a.LTarget, a.RTarget)
		}
	}
	return slices.ContainsFunc(targets, func(t string) bool { return strings.Contains(t, "attr."+attr) })
}

// record takes a way's edit and adds the decision to the task's meta.
func (s *subject) record(w *way) {
	e := w.edit
	e.Meta = s.lacking(recordedMeta(s.policy, w.decision, s.recorded))
	s.edit = &e
}

// recordedMeta is the record of a decision. The score is the one that job and
// images make: the cluster's figures change by the minute, and a changed record
// would restart the task.
func recordedMeta(p *Policy, d Decision, score *int) []jobfile.Pair {
	pairs := []jobfile.Pair{{Key: MetaDecision, Value: string(d)}}
	if score != nil {
		pairs = append(pairs, jobfile.Pair{Key: MetaScore, Value: strconv.Itoa(*score)})
	}
	return append(pairs, jobfile.Pair{Key: MetaPolicy, Value: p.ID()})
}

// lacking returns what of a record the task's meta does not say already.
func (s *subject) lacking(pairs []jobfile.Pair) []jobfile.Pair {
	return slices.DeleteFunc(pairs, func(p jobfile.Pair) bool { return s.task.Meta[p.Key] == p.Value })
}

// changes tells whether an edit does anything.
func changes(e *jobfile.Edit) bool {
	return e != nil && (e.Driver != "" || e.Unwrap != "" || len(e.Config) > 0 || e.MemoryMiB != nil ||
		len(e.Meta) > 0 || len(e.Constraints) > 0 || len(e.Affinities) > 0)
}
