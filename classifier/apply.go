// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package classifier

import (
	"errors"
	"strings"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier/jobfile"
)

// apply writes the decisions into the job. Tasks that one piece of syntax
// makes must agree; what cannot be written stays a container, or is an error
// where the author fixed the runtime.
func apply(f *jobfile.File, subjects []*subject) (*jobfile.File, error) {
	if len(edits(subjects)) == 0 {
		return f, nil
	}
	if err := agree(f, subjects); err != nil {
		return nil, err
	}
	out, err := f.Rewrite(edits(subjects))
	if err == nil || !errors.Is(err, jobfile.ErrNotEditable) {
		return out, err
	}
	if err := giveWay(f, subjects); err != nil {
		return nil, err
	}
	return f.Rewrite(edits(subjects))
}

func edits(subjects []*subject) []jobfile.Edit {
	var out []jobfile.Edit
	for _, s := range subjects {
		if changes(s.edit) {
			out = append(out, *s.edit)
		}
	}
	return out
}

// together returns the subjects made by the same piece of syntax, for each
// such piece once.
func together(f *jobfile.File, subjects []*subject) ([][]*subject, error) {
	byRef := map[jobfile.Ref]*subject{}
	for _, s := range subjects {
		byRef[s.ref] = s
	}
	var out [][]*subject
	for _, s := range subjects {
		refs, err := f.Siblings(s.ref)
		if err != nil {
			return nil, err
		}
		if refs[0] != s.ref {
			continue
		}
		var set []*subject
		for _, r := range refs {
			set = append(set, byRef[r])
		}
		out = append(out, set)
	}
	return out, nil
}

// agree makes tasks of one dynamic block one decision.
func agree(f *jobfile.File, subjects []*subject) error {
	sets, err := together(f, subjects)
	if err != nil {
		return err
	}
	var errs []error
	for _, set := range sets {
		if len(set) > 1 {
			errs = append(errs, agreeSet(set))
		}
	}
	return refused(errs...)
}

func agreeSet(set []*subject) error {
	same := true
	for _, s := range set {
		same = same && s.decision == set[0].decision
	}
	if !same {
		for _, s := range set {
			if err := s.yield("one dynamic block makes it together with tasks that were decided otherwise"); err != nil {
				return err
			}
		}
		return nil
	}
	unifyRecord(set)
	return nil
}

// unifyRecord records the same in every task of a set: the heaviest score. A
// set in which some task stays as written is left alone, unless it must be
// rewritten.
func unifyRecord(set []*subject) {
	var score *int
	for _, s := range set {
		if s.edit == nil {
			leave(set)
			return
		}
		if s.recorded != nil && (score == nil || *s.recorded > *score) {
			score = s.recorded
		}
	}
	lacking := false
	for _, s := range set {
		lacking = lacking || len(s.lacking(recordedMeta(s.policy, s.decision, score))) > 0
	}
	for _, s := range set {
		s.edit.Meta = nil
		if lacking {
			s.edit.Meta = recordedMeta(s.policy, s.decision, score)
		}
	}
}

// leave takes back the edits of docker tasks, which can stay as they are.
func leave(set []*subject) {
	for _, s := range set {
		if s.task.Driver == driverDocker {
			s.edit = nil
		}
	}
}

// giveWay finds the edits that the syntax does not allow and takes them back.
func giveWay(f *jobfile.File, subjects []*subject) error {
	sets, err := together(f, subjects)
	if err != nil {
		return err
	}
	var errs []error
	for _, set := range sets {
		list := edits(set)
		if len(list) == 0 {
			continue
		}
		err := f.Check(list...)
		if err == nil {
			continue
		}
		if !errors.Is(err, jobfile.ErrNotEditable) {
			return err
		}
		why := strings.TrimSpace(err.Error())
		for _, s := range set {
			errs = append(errs, s.yield(why))
		}
	}
	return refused(errs...)
}

// yield takes an edit back: a docker task stays the container it is written
// as. Where it cannot stay, because the author fixed the runtime or its driver
// is "hybrid", that is an error.
func (s *subject) yield(why string) error {
	if s.edit == nil {
		return nil
	}
	if s.task.Driver != driverDocker || (s.rule == RuleFixed && s.decision == Unikernel) {
		return s.errorf("cannot be made a %s: %s", s.decision, why)
	}
	s.edit = nil
	if s.decision == Unikernel {
		s.decision, s.rule = Container, RuleUndecided
		s.because("it would be a unikernel, but %s", why)
		return nil
	}
	s.note("the decision is not recorded in its meta: %s", why)
	return nil
}
