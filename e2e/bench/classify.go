// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// tasksOfJob is how many tasks one job has.
const tasksOfJob = 1000

// classification is what deciding for many tasks takes.
type classification struct {
	Tasks      int     `json:"tasks"`
	Seconds    float64 `json:"seconds"`
	OneJob     float64 `json:"one_job_seconds"` // of 1,000 tasks; the median
	PeakMiB    float64 `json:"peak_mib"`
	Unikernels int     `json:"unikernels"`
}

// classify has nomad-hybrid render jobs of 1,000 tasks each.
func (b *bench) classify(ctx context.Context) error {
	program, err := b.site.Layout.Program("nomad-hybrid")
	if err != nil {
		return err
	}
	path := filepath.Join(filepath.Dir(b.site.State), "thousand.nomad.hcl")
	if err := os.WriteFile(path, []byte(manyTasks(tasksOfJob)), 0o644); err != nil {
		return err
	}
	render := func() (*exec.Cmd, []byte, error) {
		cmd := exec.CommandContext(ctx, program, "render", "-no-color", "-no-images", path)
		out, err := cmd.Output()
		if err != nil {
			return nil, nil, fmt.Errorf("nomad-hybrid render %s: %w", path, err)
		}
		return cmd, out, nil
	}
	if _, _, err := render(); err != nil { // fills caches
		return err
	}
	c := classification{Tasks: b.params.Tasks}
	var jobs []float64 // seconds
	began := time.Now()
	for done := 0; done < b.params.Tasks; done += tasksOfJob {
		say(fmt.Sprintf("Classifying tasks %d to %d", done+1, done+tasksOfJob))
		one := time.Now()
		cmd, out, err := render()
		if err != nil {
			return err
		}
		jobs = append(jobs, time.Since(one).Seconds())
		c.Unikernels += strings.Count(string(out), `driver = "unikernel"`)
		if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
			c.PeakMiB = max(c.PeakMiB, float64(usage.Maxrss)/1024)
		}
	}
	c.Seconds = time.Since(began).Seconds()
	c.OneJob, _ = middle(jobs)
	if c.Unikernels != b.params.Tasks/2 {
		return fmt.Errorf("%d of %d tasks became unikernels, want half: see %s", c.Unikernels, b.params.Tasks, path)
	}
	b.report.Classification = c
	return nil
}

// manyTasks is a job of n tasks, every second of which is light.
func manyTasks(n int) string {
	var job strings.Builder
	job.WriteString("job \"many\" {\n")
	for i := range n {
		hints := `hybrid_workload = "computer-vision"
      hybrid_complexity = "high"`
		if i%2 == 0 {
			hints = `hybrid_workload = "data-science"
      hybrid_complexity = "low"
      hybrid_unikernel_image = "/opt/unikernels/steps-x86_64"
      hybrid_unikernel_guest = "unikraft"
      hybrid_unikernel_memory = "48"`
		}
		fmt.Fprintf(&job, `
group "g%d" {
  network {
    port "http" { to = 8080 }
  }
  task "t%d" {
    driver = "docker"
    config {
      image = "steps:local"
      ports = ["http"]
    }
    meta {
      %s
    }
    resources {
      cpu    = 100
      memory = 64
    }
  }
}
`, i, i, hints)
	}
	job.WriteString("}\n")
	return job.String()
}
