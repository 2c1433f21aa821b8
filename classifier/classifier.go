// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Package classifier decides for each task of a Nomad job whether a container
// or a unikernel serves it better, says why, and rewrites the job for Nomad's
// docker driver or for the unikernel driver.
//
// The order of a decision: what the author fixed; what is impossible;
// application-awareness, a score from the author's hints, the requested
// resources and what the container image is made of; resource-awareness, what
// the cluster's nodes offer. Undecided means container, with the reason. The
// same input gives the same output, byte for byte.
package classifier

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier/jobfile"
)

// Options say by what to decide. The zero value uses the default policy and
// looks at nothing but the job.
type Options struct {
	Policy *Policy
	// Images looks into images; nil looks into none.
	Images Images
	// Cluster looks at the live cluster; nil does not.
	Cluster Cluster
	// Namespace is the one that the job goes to, where that is not for the job
	// to say: of the request that carries it, or of the caller's environment.
	Namespace string
}

// Result is a classified job.
type Result struct {
	Report *Report
	// File is the rewritten job; the one given where nothing changed.
	File *jobfile.File
}

// ErrRefused marks a job that asks for what cannot be: a wrong hint, or a
// runtime that the author fixed and that cannot run the task.
var ErrRefused = errors.New("the job cannot be classified")

// Classify decides about every task of a job and rewrites it.
func Classify(ctx context.Context, f *jobfile.File, o Options) (*Result, error) {
	if o.Policy == nil {
		o.Policy = Default()
	}
	job := f.Job
	o.Namespace = cmp.Or(o.Namespace, deref(job.Namespace))
	policy := o.Policy.For(o.Namespace, deref(job.NodePool))
	subjects, err := readSubjects(f, policy)
	if err != nil {
		return nil, err
	}
	if err := look(ctx, o, subjects); err != nil {
		return nil, err
	}
	var errs []error
	for _, s := range subjects {
		errs = append(errs, s.decide())
	}
	if err := refused(errs...); err != nil {
		return nil, err
	}
	out, err := apply(f, subjects)
	if err != nil {
		return nil, err
	}
	return &Result{Report: newReport(f, o.Namespace, policy, subjects), File: out}, nil
}

// readSubjects reads the hints of every task; all that is wrong is told at once.
func readSubjects(f *jobfile.File, policy *Policy) ([]*subject, error) {
	var subjects []*subject
	var errs []error
	for gi, group := range f.Job.TaskGroups {
		for ti, task := range group.Tasks {
			s, err := newSubject(jobfile.Ref{Group: gi, Task: ti}, policy, f.Job, group, task)
			subjects, errs = append(subjects, s), append(errs, err)
		}
	}
	return subjects, refused(errs...)
}

// refused joins complaints about the job, each once: a hint at the job's level
// would else be told for every task.
func refused(errs ...error) error {
	seen := map[string]bool{}
	var out []error
	for _, err := range errs {
		if err == nil || seen[err.Error()] {
			continue
		}
		seen[err.Error()] = true
		out = append(out, err)
	}
	if len(out) == 0 {
		return nil
	}
	return fmt.Errorf("%w:\n%w", ErrRefused, errors.Join(out...))
}
