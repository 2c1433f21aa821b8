// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package classifier

import "strings"

// Decision is the runtime that a task gets.
type Decision string

const (
	// Container: Nomad's docker driver.
	Container Decision = "container"
	// Unikernel: the unikernel driver.
	Unikernel Decision = "unikernel"
	// AsWritten: nothing was decided; the task's driver is another one.
	AsWritten Decision = "as written"
)

// Rule is the step of the order that made a decision.
type Rule string

const (
	// RuleFixed: the author said so.
	RuleFixed Rule = "fixed"
	// RuleImpossible: the other runtime cannot run the task.
	RuleImpossible Rule = "impossible"
	// RuleApplication: the score says so.
	RuleApplication Rule = "application"
	// RuleResources: the cluster has no place for the other runtime.
	RuleResources Rule = "resources"
	// RuleKept: an earlier decision holds.
	RuleKept Rule = "kept"
	// RuleUndecided: too little is known, or the score is between the borders.
	RuleUndecided Rule = "undecided"
	// RuleUntouched: neither hints nor the catalog concern the task.
	RuleUntouched Rule = "untouched"
)

// decide makes the decision about one task. An error is a demand of the
// author's that cannot be met.
func (s *subject) decide() error {
	if !s.considered() {
		return s.untouched()
	}
	s.collect()
	if s.before == Unikernel && s.task.Driver == driverUnikernel && s.runtime() != sideContainer {
		s.keep()
		return nil
	}
	toUnikernel, toContainer := s.asUnikernel(), s.asContainer()
	switch s.runtime() {
	case sideContainer:
		return s.fixed(Container, toContainer)
	case sideUnikernel:
		return s.fixed(Unikernel, toUnikernel)
	}
	if len(toContainer.blockers) > 0 && len(toUnikernel.blockers) > 0 {
		return s.errorf("neither runtime can run it:\n  as a unikernel: %s\n  as a container: %s",
			strings.Join(toUnikernel.blockers, "\n    "), strings.Join(toContainer.blockers, "\n    "))
	}
	if len(toUnikernel.blockers) > 0 {
		s.settle(Container, RuleImpossible, toContainer, toUnikernel.blockers...)
		if s.score != nil && *s.score >= s.policy.Thresholds.Container {
			s.because("its score of %d speaks for a container, too", *s.score)
		}
		return nil
	}
	if len(toContainer.blockers) > 0 {
		s.settle(Unikernel, RuleImpossible, toUnikernel, toContainer.blockers...)
		return nil
	}
	s.byScore(toUnikernel, toContainer)
	return nil
}

// untouched leaves a task as it is written. That is an error where the task
// itself asks for a runtime; a group's or job's hint may mean its other tasks.
func (s *subject) untouched() error {
	s.rule = RuleUntouched
	switch s.task.Driver {
	case driverDocker:
		s.decision = Container
		s.because("no hint and no catalog entry concerns it; name its unikernel in meta %s to have it decided", HintUnikernelImage)
	case driverUnikernel:
		s.decision = Unikernel
		s.because("the author named the driver")
	default:
		s.decision = AsWritten
		s.because("driver %q: nomad-hybrid decides about docker, unikernel and hybrid", s.task.Driver)
		if h := s.hints[HintRuntime]; h.Level == "task" && h.Value != "auto" {
			return s.errorf("meta %s = %q: driver %q cannot be translated; name docker, unikernel or hybrid, or remove the hint",
				HintRuntime, h.Value, s.task.Driver)
		}
	}
	return nil
}

// keep leaves a task that an earlier run rewrote: what it was before is no
// longer in the job, so it cannot be decided anew from this text.
func (s *subject) keep() {
	s.decision, s.rule = Unikernel, RuleKept
	s.because("meta %s says that nomad-hybrid made it a unikernel; render the original job to have it decided anew", MetaDecision)
}

func (s *subject) fixed(d Decision, way *way) error {
	if len(way.blockers) > 0 {
		return s.errorf("meta %s: a %s cannot run it:\n  %s", s.hints.describe(HintRuntime), d, strings.Join(way.blockers, "\n  "))
	}
	s.settle(d, RuleFixed, way, s.hints.describe(HintRuntime))
	if d == Unikernel {
		s.notes = append(s.notes, s.clusterBlockers()...)
	}
	return nil
}

// byScore is application-awareness, then resource-awareness.
func (s *subject) byScore(toUnikernel, toContainer *way) {
	t := s.policy.Thresholds
	switch {
	case s.score != nil && *s.score >= t.Container && s.known() >= t.Evidence:
		s.because("score %d: heavy; the policy makes %d and above a container", *s.score, t.Container)
		s.settle(Container, RuleApplication, toContainer)
	case s.score == nil || s.evidence() < t.Evidence:
		s.between(toUnikernel, toContainer, "too little is known of the application: its signals weigh %d, the policy asks for %d; give hybrid_complexity, hybrid_workload or resources", s.evidence(), t.Evidence)
	case *s.score <= t.Unikernel:
		s.because("score %d: light; the policy makes %d and below a unikernel", *s.score, t.Unikernel)
		s.place(toUnikernel, toContainer)
	default:
		s.between(toUnikernel, toContainer, "score %d: neither light (%d and below) nor heavy (%d and above); hybrid_complexity or hybrid_workload would settle it", *s.score, t.Unikernel, t.Container)
	}
}

// place decides for the unikernel unless the cluster has no node for it.
func (s *subject) place(toUnikernel, toContainer *way) {
	if why := s.clusterBlockers(); len(why) > 0 {
		s.settle(Container, RuleResources, toContainer, why...)
		return
	}
	s.settle(Unikernel, RuleApplication, toUnikernel)
}

// between keeps an earlier decision, so that a small change flips nothing; a
// new task is undecided, which means container.
func (s *subject) between(toUnikernel, toContainer *way, format string, args ...any) {
	s.because(format, args...)
	switch s.before {
	case Unikernel:
		s.because("it was decided to be a unikernel before")
		s.place(toUnikernel, toContainer)
		s.rule = RuleKept
	case Container:
		s.settle(Container, RuleKept, toContainer, "it was decided to be a container before")
	default:
		s.undecided(toContainer)
	}
}

// undecided means container. A docker task stays as it is written.
func (s *subject) undecided(toContainer *way) {
	s.decision, s.rule = Container, RuleUndecided
	if s.task.Driver == driverDocker {
		s.edit = nil
		return
	}
	s.record(toContainer)
}

// settle makes a decision by a way that is open.
func (s *subject) settle(d Decision, r Rule, way *way, reasons ...string) {
	s.decision, s.rule = d, r
	s.reasons = append(s.reasons, reasons...)
	s.notes = append(s.notes, way.notes...)
	s.record(way)
}
