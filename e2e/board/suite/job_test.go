// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build board

package suite

import (
	_ "embed" // the job
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"
)

//go:embed jobs/steps.nomad.hcl
var stepsJob string

// submit registers the steps job with some of its variables set.
func (a *agent) submit(t *testing.T, variables string) *api.JobRegisterResponse {
	t.Helper()
	return a.submitHCL(t, stepsJob, variables)
}

// submitHCL registers a job as people write it.
func (a *agent) submitHCL(t *testing.T, text, variables string) *api.JobRegisterResponse {
	t.Helper()
	job, err := a.Jobs().ParseHCLOpts(&api.JobsParseRequest{JobHCL: text, Variables: variables, Canonicalize: true})
	must.NoError(t, err)
	response, _, err := a.Jobs().Register(job, nil)
	must.NoError(t, err)
	return response
}

// run submits the steps job and waits until its allocation is in one of the
// given client states.
func (a *agent) run(t *testing.T, variables string, states ...string) *api.Allocation {
	t.Helper()
	return a.runHCL(t, stepsJob, variables, states...)
}

// runHCL is run for the steps job as a test has changed it.
func (a *agent) runHCL(t *testing.T, text, variables string, states ...string) *api.Allocation {
	t.Helper()
	a.submitHCL(t, text, variables)
	job, _, err := a.Jobs().Info("steps", nil)
	must.NoError(t, err)
	var id string
	eventually(t, "the job has an allocation", func() error {
		allocs, _, err := a.Jobs().Allocations("steps", true, nil)
		if err != nil {
			return err
		}
		for _, alloc := range allocs {
			if alloc.JobVersion == *job.Version {
				id = alloc.ID
				return nil
			}
		}
		return fmt.Errorf("none of %d is of version %d", len(allocs), *job.Version)
	})
	return a.await(t, id, states...)
}

// await waits until an allocation is in one of the given client states.
func (a *agent) await(t *testing.T, id string, states ...string) *api.Allocation {
	t.Helper()
	var alloc *api.Allocation
	eventually(t, "the allocation is "+strings.Join(states, " or "), func() error {
		var err error
		if alloc, _, err = a.Allocations().Info(id, nil); err != nil {
			return err
		}
		for _, state := range states {
			if alloc.ClientStatus == state {
				return nil
			}
		}
		return fmt.Errorf("it is %s: %s", alloc.ClientStatus, told(alloc))
	})
	return alloc
}

// told is all that Nomad tells of the task's life.
func told(alloc *api.Allocation) string {
	var lines []string
	for _, state := range alloc.TaskStates {
		for _, event := range state.Events {
			lines = append(lines, fmt.Sprintf("%s: %s %v", event.Type, event.DisplayMessage, event.Details))
		}
	}
	return strings.Join(lines, "\n")
}

// end is the event of the task's end.
func end(t *testing.T, alloc *api.Allocation) *api.TaskEvent {
	t.Helper()
	for _, event := range alloc.TaskStates["steps"].Events {
		if event.Type == api.TaskTerminated {
			return event
		}
	}
	t.Fatalf("the task never ended: %s", told(alloc))
	return nil
}

// stopJobs stops every job, waits until their allocations ended, and checks
// that no QEMU is left.
func (a *agent) stopJobs(t *testing.T) {
	t.Helper()
	jobs, _, err := a.Jobs().List(nil)
	must.NoError(t, err)
	for _, job := range jobs {
		_, _, err := a.Jobs().Deregister(job.ID, false, nil)
		must.NoError(t, err)
	}
	allocs, _, err := a.Allocations().List(nil)
	must.NoError(t, err)
	for _, alloc := range allocs {
		a.await(t, alloc.ID, complete, failed)
	}
	must.SliceEmpty(t, guestPIDs(t), must.Sprint("QEMU processes were left behind"))
}

// address is where service discovery finds the one steps service.
func (a *agent) address(t *testing.T) string {
	t.Helper()
	return a.addresses(t, "steps", 1)[0]
}

// addresses are where service discovery finds the instances of a service.
func (a *agent) addresses(t *testing.T, service string, count int) []string {
	t.Helper()
	var addresses []string
	eventually(t, "the service "+service+" is found", func() error {
		services, _, err := a.Services().Get(service, nil)
		if err != nil {
			return err
		}
		if len(services) != count {
			return fmt.Errorf("%d instances, want %d", len(services), count)
		}
		addresses = nil
		for _, s := range services {
			addresses = append(addresses, fmt.Sprintf("http://%s:%d", s.Address, s.Port))
		}
		return nil
	})
	return addresses
}

// get asks the guest for a page until it answers.
func get(t *testing.T, url string) []byte {
	t.Helper()
	client := &http.Client{Timeout: 20 * time.Second}
	var body []byte
	eventually(t, url+" answers", func() error {
		response, err := client.Get(url)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("status %s", response.Status)
		}
		body, err = io.ReadAll(response.Body)
		return err
	})
	return body
}

// mustAnswer checks that the guest computed the data set's averages.
func mustAnswer(t *testing.T, address string) {
	t.Helper()
	var answer struct {
		Users []struct {
			ID      json.Number
			Average float64
		}
	}
	must.NoError(t, json.Unmarshal(get(t, address+"/average"), &answer))
	expected := averages(t)
	must.MapLen(t, len(answer.Users), expected)
	for _, user := range answer.Users {
		must.InDelta(t, expected[user.ID.String()], user.Average, 0.00501)
	}
}

// averages computes, apart from the guest, what it should answer.
func averages(t *testing.T) map[string]float64 {
	t.Helper()
	file, err := os.Open("/opt/unikernels/steps.csv")
	must.NoError(t, err)
	defer file.Close()
	records, err := csv.NewReader(file).ReadAll()
	must.NoError(t, err)
	steps, days := map[string]float64{}, map[string]float64{}
	for _, record := range records[1:] {
		n, err := strconv.ParseFloat(record[2], 64)
		must.NoError(t, err)
		steps[record[0]] += n
		days[record[0]]++
	}
	for user := range steps {
		steps[user] /= days[user]
	}
	return steps
}
