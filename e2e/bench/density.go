// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

// crowd is what many instances at once take.
type crowd struct {
	Contender string  `json:"contender"`
	Instances int     `json:"instances"`
	Failure   string  `json:"failure,omitempty"` // empty: all answered
	Answered  float64 `json:"answered_seconds"`  // from submission until each had answered rightly
	Stopped   float64 `json:"stopped_seconds"`   // from the request until the last had ended
	// MemoryMiB is by how much the memory of all processes grew, for each
	// instance: those of the tasks, the agents and Docker's daemons (PSS).
	MemoryMiB float64 `json:"memory_mib_each"`
	QEMUMiB   float64 `json:"qemu_mib_each,omitempty"` // PSS of QEMU with its guest
	IdleCPU   float64 `json:"idle_cpu_percent"`        // of a core, the whole machine but this program

	PluginMiB   float64 `json:"plugin_mib"`
	PluginCPU   float64 `json:"plugin_cpu_percent"`
	PluginFiles int     `json:"plugin_files"`
}

// density runs more and more instances at once, until the first failure.
// Containers are taken along for the smaller crowds.
func (b *bench) density(ctx context.Context) error {
	makers := []contender{{name: container, task: b.containerTask}, {name: lean, task: b.unikernelTask}}
	failed := map[string]bool{}
	for _, n := range b.params.Density {
		for _, c := range makers {
			if failed[c.name] || c.name == container && n > mostContainers {
				continue
			}
			say(fmt.Sprintf("%d instances at once: %s", n, c.name))
			result, err := b.crowd(ctx, c, n)
			if err != nil {
				return fmt.Errorf("%d instances of %s: %w", n, c.name, err)
			}
			failed[c.name] = result.Failure != ""
			b.report.Density = append(b.report.Density, result)
		}
	}
	return nil
}

// mostContainers bounds the time that containers take for comparison.
const mostContainers = 50

func (b *bench) crowd(ctx context.Context, c contender, n int) (result crowd, err error) {
	result = crowd{Contender: c.name, Instances: n}
	job := jobOf("crowd", c.task(), n, 0)
	defer func() { err = errors.Join(err, b.site.Nomad.Purge(context.WithoutCancel(ctx), *job.ID)) }()
	before, err := b.siteMemory()
	if err != nil {
		return result, err
	}
	began := time.Now()
	if err := b.allAnswer(ctx, job, n); err != nil {
		if ctx.Err() != nil {
			return result, err
		}
		result.Failure = err.Error()
		return result, nil
	}
	result.Answered = time.Since(began).Seconds()
	if err := b.observeCrowd(ctx, before, &result); err != nil {
		return result, err
	}
	asked := time.Now()
	if _, _, err := b.site.Nomad.Client.Jobs().Deregister(*job.ID, false, (&api.WriteOptions{}).WithContext(ctx)); err != nil {
		return result, err
	}
	allocs, err := b.site.Nomad.WaitAllocs(ctx, *job.ID, harness.Ended)
	for _, alloc := range allocs {
		result.Stopped = max(result.Stopped, alloc.TaskStates[taskName].FinishedAt.Sub(asked).Seconds())
	}
	return result, err
}

// allAnswer submits a job and asks each instance until all answer rightly.
func (b *bench) allAnswer(ctx context.Context, job *api.Job, n int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, b.pace.crowd, fmt.Errorf("the limit of %v is over", b.pace.crowd))
	defer cancel()
	if err := b.site.Nomad.Submit(ctx, job); err != nil {
		return err
	}
	allocs, err := b.site.Nomad.WaitAllocs(ctx, *job.ID, func(allocs []*api.AllocationListStub) bool {
		return len(allocs) >= n && !slices.ContainsFunc(allocs, func(a *api.AllocationListStub) bool { return a.ClientStatus == api.AllocClientStatusPending })
	})
	if err != nil {
		return err
	}
	for _, alloc := range allocs {
		if alloc.ClientStatus != api.AllocClientStatusRunning {
			return fmt.Errorf("an instance was lost: allocation %s is %s\n%s", alloc.ID, alloc.ClientStatus, b.site.Nomad.Describe(ctx, *job.ID))
		}
	}
	found, err := b.site.Nomad.Instances(ctx, serviceName, n)
	if err != nil {
		return err
	}
	errs := make([]error, n)
	var all sync.WaitGroup
	for i, at := range found {
		all.Go(func() { errs[i] = b.pace.awaitAnswer(ctx, fmt.Sprintf("%s:%d", at.Address, at.Port), b.answer) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	allocs, err = b.site.Nomad.WaitAllocs(ctx, *job.ID, func([]*api.AllocationListStub) bool { return true })
	if err != nil {
		return err
	}
	if len(allocs) != n {
		return fmt.Errorf("%d instances took %d allocations: some were lost", n, len(allocs))
	}
	return nil
}

// siteMemory is the memory of all processes that the agents and Docker run, in MiB.
func (b *bench) siteMemory() (float64, error) {
	kib, err := b.site.Nomad.SiteMemory(filepath.Dir(b.site.State))
	return float64(kib) / 1024, err
}

// observeCrowd measures a crowd at rest.
func (b *bench) observeCrowd(ctx context.Context, before float64, result *crowd) error {
	if err := pause(ctx, 3*b.pace.settle); err != nil {
		return err
	}
	after, err := b.siteMemory()
	if err != nil {
		return err
	}
	n := float64(result.Instances)
	result.MemoryMiB = (after - before) / n
	plugin, err := b.plugin()
	if err != nil {
		return err
	}
	machines := childrenOf(plugin)
	var sum float64
	for _, pid := range machines {
		mib, err := pssOf(pid)
		if err != nil {
			return err
		}
		sum += mib
	}
	result.QEMUMiB = sum / n
	if result.PluginMiB, err = pssOf(plugin); err != nil {
		return err
	}
	result.PluginFiles = openFiles(plugin)
	cpu, err := cpuOver(ctx, 2*b.pace.idle, []int{plugin}, machines)
	if err != nil {
		return err
	}
	result.PluginCPU, result.IdleCPU = cpu[0], cpu[1]
	return nil
}

// childrenOf lists the processes that another started.
func childrenOf(pid int) []int {
	var all []int
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is well formed
	for _, list := range lists {
		data, err := os.ReadFile(list)
		if err != nil {
			continue // the thread ended
		}
		for _, field := range strings.Fields(string(data)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(all, child)
			}
		}
	}
	return all
}
