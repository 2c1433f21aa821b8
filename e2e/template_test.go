// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"
	"github.com/shoenig/test/wait"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

// When a template changes, the guest gets its new content by a restart.
func TestTemplate_Restart(t *testing.T) {
	ctx := limit(t, 2*time.Minute)
	runTemplate(t, ctx, map[string]string{"change_mode": "restart"})
	first, err := site.Nomad.Instances(ctx, "template", 1)
	must.NoError(t, err)
	must.Eq(t, 1000, templateAnswers(ctx, first[0]))

	setTemplate(t, 2000)
	must.Wait(t, wait.InitialSuccess(
		wait.BoolFunc(func() bool { return templateAnswers(ctx, first[0]) == 2000 }),
		wait.Timeout(time.Minute), wait.Gap(200*time.Millisecond),
	))
	// The client tells the server of it a moment later.
	_, err = site.Nomad.WaitAllocs(ctx, "template", func(allocs []*api.AllocationListStub) bool {
		return len(allocs) == 1 && allocs[0].TaskStates["template"].Restarts == 1
	})
	must.NoError(t, err)
}

// A unikernel has no signals of its own: one that means something to a machine
// does that, and another fails the task in words.
func TestTemplate_Signal(t *testing.T) {
	for signal, says := range map[string]string{
		"SIGHUP":  "means nothing to a unikernel",
		"SIGTERM": "Exit Code",
	} {
		t.Run(signal, func(t *testing.T) {
			ctx := limit(t, 2*time.Minute)
			runTemplate(t, ctx, map[string]string{"change_mode": "signal", "change_signal": signal})
			setTemplate(t, 2000)
			allocs, err := site.Nomad.WaitAllocs(ctx, "template", harness.Ended)
			must.NoError(t, err)
			alloc, err := site.Nomad.Allocation(ctx, allocs[0].ID)
			must.NoError(t, err)
			told := ""
			for _, event := range alloc.TaskStates["template"].Events {
				told += event.Type + ": " + event.DisplayMessage + "\n"
			}
			must.StrContains(t, told, says)
		})
	}
}

func runTemplate(t *testing.T, ctx context.Context, vars map[string]string) {
	t.Helper()
	before := lookAtMachine(t)
	t.Cleanup(func() { nothingNew(t, before) }) // after the purge
	setTemplate(t, 1000)
	vars["image"] = steps(runtime.GOARCH)
	job, err := harness.ParseJobFile(site.Layout.Path("e2e", "jobs", "template.nomad.hcl"), vars)
	must.NoError(t, err)
	purge(t, *job.ID)
	must.NoError(t, site.Nomad.RunService(ctx, job))
}

// setTemplate sets the variable that the template is made of: one day of one
// user, who took this many steps.
func setTemplate(t *testing.T, count int) {
	t.Helper()
	const path = "nomad/jobs/template"
	variable := api.NewVariable(path)
	variable.Items["csv"] = fmt.Sprintf("Id,ActivityDate,TotalSteps\n1,4/12/2016,%d\n", count)
	_, _, err := site.Nomad.Client.Variables().Update(variable, nil)
	must.NoError(t, err)
	t.Cleanup(func() {
		_, err := site.Nomad.Client.Variables().Delete(path, nil)
		must.NoError(t, err)
	})
}

// templateAnswers asks for the average; 0 while there is no answer.
func templateAnswers(ctx context.Context, at *api.ServiceRegistration) int {
	var top userAverage
	if get(ctx, at, "/top", &top) != nil {
		return 0
	}
	return int(top.Average)
}
