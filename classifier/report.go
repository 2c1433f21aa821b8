// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package classifier

import (
	"fmt"

	"github.com/aymanbagabas/go-udiff"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier/jobfile"
)

// ReportVersion is the version of the report's JSON. Fields may be added
// without a new version.
const ReportVersion = 1

// Report tells what was decided about a job, and why. Its JSON is what -json
// prints; docs/hybrid.md describes it.
type Report struct {
	Version   int          `json:"version"`
	Job       string       `json:"job"`
	Namespace string       `json:"namespace,omitempty"`
	Format    string       `json:"format"`
	Policy    string       `json:"policy"`
	Changed   bool         `json:"changed"`
	Undecided int          `json:"undecided"`
	Tasks     []TaskReport `json:"tasks"`
	Diff      string       `json:"diff,omitempty"`
}

// TaskReport tells what was decided about a task.
type TaskReport struct {
	Group      string   `json:"group"`
	Task       string   `json:"task"`
	Count      int      `json:"count"`
	Driver     string   `json:"driver"`
	NewDriver  string   `json:"new_driver"`
	Decision   Decision `json:"decision"`
	Rule       Rule     `json:"rule"`
	Considered bool     `json:"considered"`
	Changed    bool     `json:"changed"`
	Score      *int     `json:"score,omitempty"`
	Signals    []Signal `json:"signals,omitempty"`
	Reasons    []string `json:"reasons"`
	Notes      []string `json:"notes,omitempty"`
	// UnikernelImage is the image that it would run as a unikernel, if one is
	// known.
	UnikernelImage *NamedImage `json:"unikernel_image,omitempty"`
	AsContainer    *Placement  `json:"as_container,omitempty"`
	AsUnikernel    *Placement  `json:"as_unikernel,omitempty"`
}

// NamedImage is a unikernel image, who named it, and what it is.
type NamedImage struct {
	Ref string `json:"ref"`
	// From is where it was named: "task meta" and so on, "config", or the
	// policy's catalog with its pattern.
	From string `json:"from"`
	// Facts are what was seen in it; none where it was not looked into.
	Facts *UnikernelImage `json:"facts,omitempty"`
}

func (s *subject) namedImage() *NamedImage {
	ref := s.unikernelImage()
	if ref == "" || !s.considered() {
		return nil
	}
	from := "config"
	if s.task.Driver == driverDocker {
		if hint, ok := s.hints[HintUnikernelImage]; ok {
			from = hint.Level + " meta"
		} else {
			from = fmt.Sprintf("catalog %q", s.entry.Container)
		}
	}
	return &NamedImage{Ref: ref, From: from, Facts: s.unikernel}
}

func newReport(f *jobfile.File, namespace string, p *Policy, subjects []*subject) *Report {
	r := &Report{
		Version: ReportVersion, Job: deref(f.Job.ID), Namespace: namespace,
		Format: string(f.Format), Policy: p.ID(), Tasks: []TaskReport{},
	}
	for _, s := range subjects {
		t := s.report()
		r.Changed = r.Changed || t.Changed
		if t.Rule == RuleUndecided {
			r.Undecided++
		}
		r.Tasks = append(r.Tasks, t)
	}
	return r
}

func (s *subject) report() TaskReport {
	t := TaskReport{
		Group: deref(s.group.Name), Task: s.task.Name, Count: 1,
		Driver: s.task.Driver, NewDriver: s.task.Driver,
		Decision: s.decision, Rule: s.rule, Considered: s.considered(), Changed: changes(s.edit),
		Score: s.score, Signals: s.loudest(), Reasons: s.reasons, Notes: s.notes,
		UnikernelImage: s.namedImage(),
	}
	if s.group.Count != nil {
		t.Count = *s.group.Count
	}
	if s.edit != nil && s.edit.Driver != "" {
		t.NewDriver = s.edit.Driver
	}
	if s.cluster != nil {
		t.AsContainer, t.AsUnikernel = &s.cluster.Container, &s.cluster.Unikernel
	}
	return t
}

// Diff is the change of the job's text as a unified diff, "" where there is
// none.
func Diff(before, after *jobfile.File) string {
	return udiff.Unified("a/"+before.Base(), "b/"+before.Base(), string(before.Source), string(after.Source))
}
