// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/hashicorp/nomad/jobspec2"
)

// ParseJob reads a job file as `nomad job run -var …` does.
func ParseJob(name string, source []byte, vars map[string]string) (*api.Job, error) {
	args := make([]string, 0, len(vars))
	for key, value := range vars {
		args = append(args, key+"="+value)
	}
	slices.Sort(args)
	job, err := jobspec2.ParseWithConfig(&jobspec2.ParseConfig{
		Path: name, Body: source, ArgVars: args, AllowFS: true, Strict: true,
	})
	if err != nil {
		return nil, fmt.Errorf("parsing job %s: %w", name, err)
	}
	job.Canonicalize()
	return job, nil
}

// ParseJobFile is ParseJob of a file.
func ParseJobFile(path string, vars map[string]string) (*api.Job, error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return ParseJob(path, source, vars)
}

// Register registers a job. It is placed once a node can take it.
func (c *Cluster) Register(ctx context.Context, job *api.Job) error {
	_, err := c.register(ctx, job)
	return err
}

func (c *Cluster) register(ctx context.Context, job *api.Job) (*api.JobRegisterResponse, error) {
	answer, _, err := c.Client.Jobs().Register(job, (&api.WriteOptions{}).WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("registering job %s: %w", *job.ID, err)
	}
	return answer, nil
}

// Submit registers a job and waits until all of it is placed.
func (c *Cluster) Submit(ctx context.Context, job *api.Job) error {
	answer, err := c.register(ctx, job)
	if err != nil {
		return err
	}
	var eval *api.Evaluation
	err = await(ctx, func(q *api.QueryOptions) (uint64, bool, error) {
		var meta *api.QueryMeta
		eval, meta, err = c.Client.Evaluations().Info(answer.EvalID, q)
		if err != nil {
			return 0, false, err
		}
		return meta.LastIndex, eval.Status != "pending", nil
	})
	if err != nil {
		return fmt.Errorf("waiting for the placement of job %s: %w", *job.ID, err)
	}
	if eval.Status != "complete" || len(eval.FailedTGAllocs) > 0 {
		return fmt.Errorf("job %s was not placed: evaluation %s: %s", *job.ID, eval.Status, placementFailures(eval))
	}
	return nil
}

func placementFailures(eval *api.Evaluation) string {
	var all []string
	for group, m := range eval.FailedTGAllocs {
		all = append(all, fmt.Sprintf("group %s: nodes evaluated %d, exhausted %d, constraints %v, dimensions %v",
			group, m.NodesEvaluated, m.NodesExhausted, m.ConstraintFiltered, m.DimensionExhausted))
	}
	return strings.Join(append(all, eval.StatusDescription), "; ")
}

// RunService submits a service job and waits until its deployment succeeded,
// which takes every check to pass. A job that is placed without a deployment,
// such as one with max_parallel = 0 or a smaller count, is waited for until
// all that is to run runs.
func (c *Cluster) RunService(ctx context.Context, job *api.Job) error {
	if err := c.Submit(ctx, job); err != nil {
		return err
	}
	deployment, err := c.deployment(ctx, *job.ID)
	if err != nil {
		return err
	}
	if deployment == nil {
		_, err := c.WaitAllocs(ctx, *job.ID, allRun)
		return err
	}
	ended := func(d *api.Deployment) bool {
		return !slices.Contains([]string{"running", "initializing", "pending"}, d.Status)
	}
	deployment, err = c.WaitDeployment(ctx, deployment.ID, ended)
	if err == nil && deployment.Status != "successful" {
		err = fmt.Errorf("deployment %s: %s", deployment.Status, deployment.StatusDescription)
	}
	if err != nil {
		return fmt.Errorf("job %s did not become healthy: %w\n%s", *job.ID, err, c.Describe(context.WithoutCancel(ctx), *job.ID))
	}
	return nil
}

// deployment is that of a job's newest version, or nil. It is made together
// with the allocations: a job that was placed without one gets none.
func (c *Cluster) deployment(ctx context.Context, jobID string) (*api.Deployment, error) {
	q := (&api.QueryOptions{}).WithContext(ctx)
	job, _, err := c.Client.Jobs().Info(jobID, q)
	if err != nil {
		return nil, fmt.Errorf("reading job %s: %w", jobID, err)
	}
	deployment, _, err := c.Client.Jobs().LatestDeployment(jobID, q)
	if err != nil {
		return nil, fmt.Errorf("reading the deployment of job %s: %w", jobID, err)
	}
	if deployment == nil || deployment.JobVersion != *job.Version {
		return nil, nil
	}
	return deployment, nil
}

// WaitDeployment waits until a deployment satisfies a condition, and returns it.
func (c *Cluster) WaitDeployment(ctx context.Context, id string, until func(*api.Deployment) bool) (*api.Deployment, error) {
	var deployment *api.Deployment
	err := await(ctx, func(q *api.QueryOptions) (uint64, bool, error) {
		var meta *api.QueryMeta
		var err error
		deployment, meta, err = c.Client.Deployments().Info(id, q)
		if err != nil {
			return 0, false, err
		}
		return meta.LastIndex, until(deployment), nil
	})
	if err != nil {
		return nil, fmt.Errorf("waiting for deployment %s: %w", id, err)
	}
	return deployment, nil
}

// allRun tells whether all that is to run runs.
func allRun(allocs []*api.AllocationListStub) bool {
	return len(allocs) > 0 && !slices.ContainsFunc(allocs, func(a *api.AllocationListStub) bool {
		return a.DesiredStatus == "run" && a.ClientStatus != "running"
	})
}

// WaitAllocs waits until a job's allocations satisfy a condition, and returns them.
func (c *Cluster) WaitAllocs(ctx context.Context, jobID string, until func([]*api.AllocationListStub) bool) ([]*api.AllocationListStub, error) {
	var allocs []*api.AllocationListStub
	err := await(ctx, func(q *api.QueryOptions) (uint64, bool, error) {
		var meta *api.QueryMeta
		var err error
		allocs, meta, err = c.Client.Jobs().Allocations(jobID, true, q)
		if err != nil {
			return 0, false, err
		}
		return meta.LastIndex, until(allocs), nil
	})
	if err != nil {
		err = fmt.Errorf("waiting for the allocations of job %s: %w\n%s", jobID, err, c.Describe(context.WithoutCancel(ctx), jobID))
	}
	return allocs, err
}

// Ended tells whether there are allocations and each is over.
func Ended(allocs []*api.AllocationListStub) bool {
	return len(allocs) > 0 && !slices.ContainsFunc(allocs, func(a *api.AllocationListStub) bool {
		return a.ClientStatus == "pending" || a.ClientStatus == "running" || a.ClientStatus == "unknown"
	})
}

// Running tells whether n allocations run, or one of them is over already.
func Running(allocs []*api.AllocationListStub, n int) bool {
	running := 0
	for _, alloc := range allocs {
		if alloc.ClientStatus != "running" && alloc.ClientStatus != "pending" {
			return true
		}
		if alloc.ClientStatus == "running" {
			running++
		}
	}
	return running == n
}

// Purge stops a job, waits for the end of its allocations, and has Nomad
// forget it and remove its folders. Purging at once would not do: the server
// then forgets allocations whose tasks still run.
func (c *Cluster) Purge(ctx context.Context, jobID string) error {
	if err := c.deregister(ctx, jobID, false); err != nil {
		return err
	}
	allocs, err := c.WaitAllocs(ctx, jobID, func(allocs []*api.AllocationListStub) bool {
		return len(allocs) == 0 || Ended(allocs)
	})
	if err != nil {
		return err
	}
	if err := c.deregister(ctx, jobID, true); err != nil {
		return err
	}
	// What follows tells nobody when it is done.
	return retry(ctx, 100*time.Millisecond, func() error {
		if err := c.Client.System().GarbageCollect(); err != nil {
			return err
		}
		return errors.Join(c.foldersGone(allocs), c.servicesGone(ctx, jobID))
	})
}

func (c *Cluster) deregister(ctx context.Context, jobID string, purge bool) error {
	_, _, err := c.Client.Jobs().Deregister(jobID, purge, (&api.WriteOptions{}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("stopping job %s: %w", jobID, err)
	}
	return nil
}

func (c *Cluster) foldersGone(allocs []*api.AllocationListStub) error {
	for _, alloc := range allocs {
		if left := glob([]string{filepath.Join(c.Dir, "*", "alloc", alloc.ID)}); len(left) > 0 {
			return fmt.Errorf("job %s: allocation %s still has its folder %s", alloc.JobID, alloc.ID, left[0])
		}
	}
	return nil
}

func (c *Cluster) servicesGone(ctx context.Context, jobID string) error {
	q := (&api.QueryOptions{}).WithContext(ctx)
	namespaces, _, err := c.Client.Services().List(q)
	if err != nil {
		return err
	}
	for _, namespace := range namespaces {
		for _, service := range namespace.Services {
			found, _, err := c.Client.Services().Get(service.ServiceName, q)
			if err != nil {
				return err
			}
			if slices.ContainsFunc(found, func(r *api.ServiceRegistration) bool { return r.JobID == jobID }) {
				return fmt.Errorf("job %s: service %s is still registered", jobID, service.ServiceName)
			}
		}
	}
	return nil
}

func (c *Cluster) allocDir(id string) string { return filepath.Join(c.Dir, "client", "alloc", id) }

// PurgeAll purges every job.
func (c *Cluster) PurgeAll(ctx context.Context) error {
	jobs, _, err := c.Client.Jobs().List((&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("listing jobs: %w", err)
	}
	var errs []error
	for _, job := range jobs {
		errs = append(errs, c.Purge(ctx, job.ID))
	}
	return errors.Join(errs...)
}

// ForgetJobs is PurgeAll for jobs that have all ended, which are many. It waits
// until nothing is left of them.
func (c *Cluster) ForgetJobs(ctx context.Context) error {
	if err := c.DropJobs(ctx); err != nil {
		return err
	}
	return retry(ctx, 250*time.Millisecond, func() error {
		if err := c.Client.System().GarbageCollect(); err != nil {
			return err
		}
		left, err := filepath.Glob(c.allocDir("*"))
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d allocations still have their folders, such as %s", len(left), left[0])
		}
		return err
	})
}

// DropJobs has Nomad remove all jobs, which have ended, with their allocations.
func (c *Cluster) DropJobs(ctx context.Context) error {
	jobs, _, err := c.Client.Jobs().List((&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("listing jobs: %w", err)
	}
	for _, job := range jobs {
		if err := c.deregister(ctx, job.ID, true); err != nil {
			return err
		}
	}
	return c.Client.System().GarbageCollect()
}

// Instances waits until a service has n instances in Nomad's service
// discovery, and returns them ordered by port.
func (c *Cluster) Instances(ctx context.Context, service string, n int) ([]*api.ServiceRegistration, error) {
	var found []*api.ServiceRegistration
	err := await(ctx, func(q *api.QueryOptions) (uint64, bool, error) {
		var meta *api.QueryMeta
		var err error
		found, meta, err = c.Client.Services().Get(service, q)
		if err != nil {
			return 0, false, err
		}
		return meta.LastIndex, len(found) == n, nil
	})
	if err != nil {
		return nil, fmt.Errorf("service %s: %d instances, want %d: %w", service, len(found), n, err)
	}
	sort.Slice(found, func(i, j int) bool { return found[i].Port < found[j].Port })
	return found, nil
}

// Describe tells what happened to a job's tasks, for messages.
func (c *Cluster) Describe(ctx context.Context, jobID string) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	allocs, _, err := c.Client.Jobs().Allocations(jobID, true, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return err.Error()
	}
	var out strings.Builder
	for _, alloc := range allocs {
		fmt.Fprintf(&out, "allocation %.8s of group %s: %s %s\n", alloc.ID, alloc.TaskGroup, alloc.ClientStatus, alloc.ClientDescription)
		for task, state := range alloc.TaskStates {
			for _, event := range state.Events {
				fmt.Fprintf(&out, "  task %s: %s: %s\n", task, event.Type, event.DisplayMessage)
			}
		}
	}
	return out.String()
}

// await repeats a blocking query until it is done or ctx ends. Errors that come
// while a server elects its leader pass by themselves.
func await(ctx context.Context, query func(*api.QueryOptions) (index uint64, done bool, err error)) error {
	var index uint64
	for {
		q := (&api.QueryOptions{WaitIndex: index, WaitTime: 30 * time.Second}).WithContext(ctx)
		next, done, err := query(q)
		if done && err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		if err != nil && !strings.Contains(err.Error(), "No cluster leader") {
			return err
		}
		if err == nil {
			index = next
		}
	}
}
