// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package classifier

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier/jobfile"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/image"
)

// Drivers that a task may name for nomad-hybrid to decide about it.
const (
	driverDocker    = "docker"
	driverUnikernel = "unikernel"
	driverHybrid    = "hybrid"
)

// Sides of `driver = "hybrid"`.
const (
	sideContainer = "container"
	sideUnikernel = "unikernel"
)

// subject is a task under decision.
type subject struct {
	ref    jobfile.Ref
	policy *Policy
	job    *api.Job
	group  *api.TaskGroup
	task   *api.Task
	hints  Hints
	entry  *Entry   // the catalog's entry for the task's container image
	before Decision // recorded by an earlier run, "" where there is none

	image     *ContainerImage // what its container image is made of, if looked at
	unikernel *UnikernelImage // what its unikernel image is, if looked at
	cluster   *GroupView      // what the cluster offers its group, if looked at

	unwrapped map[string]map[string]any // sides of `driver = "hybrid"`

	decision Decision
	rule     Rule
	score    *int
	recorded *int // score without the cluster's signals
	signals  []Signal
	reasons  []string
	notes    []string
	edit     *jobfile.Edit
}

func newSubject(ref jobfile.Ref, p *Policy, job *api.Job, group *api.TaskGroup, task *api.Task) (*subject, error) {
	s := &subject{ref: ref, policy: p, job: job, group: group, task: task}
	hints, err := readHints(p, job, group, task)
	if err != nil {
		return s, err
	}
	s.hints = hints
	switch Decision(task.Meta[MetaDecision]) {
	case Container:
		s.before = Container
	case Unikernel:
		s.before = Unikernel
	case "":
	default:
		return s, s.errorf("meta %s: %q will not do; remove it, nomad-hybrid writes it", MetaDecision, task.Meta[MetaDecision])
	}
	if task.Driver == driverHybrid {
		if err := s.readSides(); err != nil {
			return s, err
		}
	}
	if image := s.containerImage(); task.Driver == driverDocker && image != "" {
		s.entry = p.lookup(image)
	}
	return s, nil
}

// readSides checks the two halves of a hybrid task's config.
func (s *subject) readSides() error {
	s.unwrapped = map[string]map[string]any{}
	for _, key := range sorted(s.task.Config) {
		if key != sideContainer && key != sideUnikernel {
			return s.errorf("config.%s: with driver = %q, config holds a container block and a unikernel block only; "+
				"put %s into the one that it belongs to", key, driverHybrid, key)
		}
		inner, err := jobfile.Nested(s.task.Config, key)
		if err != nil {
			return s.errorf("%w", err)
		}
		s.unwrapped[key] = inner
	}
	for _, side := range []string{sideContainer, sideUnikernel} {
		if s.unwrapped[side] == nil {
			return s.errorf("config.%s: with driver = %q both sides are given; add the block, or name the driver that is meant", side, driverHybrid)
		}
		if image, _ := s.unwrapped[side]["image"].(string); image == "" {
			return s.errorf("config.%s.image is missing; name the image", side)
		}
	}
	return nil
}

// containerImage is the image the task would run as a container, "" where none
// is known.
func (s *subject) containerImage() string {
	switch s.task.Driver {
	case driverHybrid:
		image, _ := s.unwrapped[sideContainer]["image"].(string)
		return image
	case driverDocker:
		image, _ := s.task.Config["image"].(string)
		return image
	default:
		return s.hints.text(HintContainerImage)
	}
}

// unikernelImage is the image the task would run as a unikernel.
func (s *subject) unikernelImage() string {
	if s.task.Driver == driverHybrid {
		image, _ := s.unwrapped[sideUnikernel]["image"].(string)
		return image
	}
	if s.task.Driver == driverUnikernel {
		image, _ := s.task.Config["image"].(string)
		return image
	}
	if image := s.hints.text(HintUnikernelImage); image != "" {
		return image
	}
	if s.entry != nil {
		return s.entry.Unikernel
	}
	return ""
}

// considered tells whether there is anything to decide: the author hinted, or
// the operator's catalog knows the image. All other tasks stay as written.
func (s *subject) considered() bool {
	switch s.task.Driver {
	case driverHybrid:
		return true
	case driverDocker, driverUnikernel:
		return len(s.hints) > 0 || s.entry != nil || s.before != ""
	default:
		return false
	}
}

func (s *subject) runtime() string {
	if v := s.hints.text(HintRuntime); v != "" {
		return v
	}
	return "auto"
}

func (s *subject) because(format string, args ...any) {
	s.reasons = append(s.reasons, fmt.Sprintf(format, args...))
}

func (s *subject) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

func (s *subject) errorf(format string, args ...any) error {
	return fmt.Errorf("%s: "+format, append([]any{place("task", s.job, s.group, s.task)}, args...)...)
}

// look collects what the images and the cluster tell about the tasks.
func look(ctx context.Context, o Options, subjects []*subject) error {
	for _, s := range subjects {
		if !s.considered() {
			continue
		}
		if err := s.lookIntoImages(ctx, o.Images); err != nil {
			return err
		}
	}
	if o.Cluster == nil {
		return nil
	}
	for _, s := range subjects {
		if !s.considered() {
			continue
		}
		need := Need{Namespace: o.Namespace, Job: s.job, Group: s.group, Task: s.task, Arch: s.arch(), MemoryMiB: s.memoryAsUnikernel()}
		if s.unikernel != nil {
			need.GuestMiB = s.unikernel.MemoryMiB
		}
		view, err := o.Cluster.Group(ctx, need)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrCluster, err)
		}
		s.cluster = view
		if s.before == "" {
			s.before = view.Before
		}
	}
	return nil
}

// lookIntoImages asks for facts about both images. An image that cannot be
// looked into is a note, not an error: the job may still name it rightly.
func (s *subject) lookIntoImages(ctx context.Context, images Images) error {
	if images == nil {
		return nil
	}
	if ref := s.containerImage(); ref != "" && !strings.Contains(ref, "${") {
		facts, err := images.Container(ctx, ref)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			s.note("container image %s not looked into: %v", ref, err)
		}
		s.image = facts
	}
	if ref := s.unikernelImage(); ref != "" && !strings.Contains(ref, "${") {
		facts, err := images.Unikernel(ctx, ref)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var no *image.NotBootable
		if errors.As(err, &no) {
			facts = &UnikernelImage{Ref: ref, Problem: no.Error()}
		} else if err != nil {
			s.note("unikernel image %s not looked into: %v", ref, err)
		}
		s.unikernel = facts
	}
	return nil
}
