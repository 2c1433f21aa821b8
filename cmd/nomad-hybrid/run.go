// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier/jobfile"
)

type runCommand struct {
	*command
	opts                                                      jobOptions
	detach, verbose, override, preserveCounts, preserveMemory bool
	checkIndex                                                string
	evalPriority                                              int
}

func (c *runCommand) Synopsis() string { return "Rewrite a job, submit it, and follow it" }

func (c *runCommand) Help() string {
	return strings.TrimSpace(`
Usage: nomad-hybrid run [options] JOB

  Rewrites a job as "render" does, registers it, and follows the evaluation
  and the deployment as "nomad job run" does. Nomad keeps the original text as
  the job's submission, so that an edit in its UI starts from what you wrote.

  Ends with 0 when the job is placed, 2 when Nomad could not place all of it,
  1 when anything failed, 3 when -strict found an undecided task (nothing is
  submitted then).

Options:

  -detach              Return when the job is registered.
  -check-index INDEX   Register only if the job's modify index is this one;
                       0: only if the job does not exist.
  -eval-priority N     Priority of the evaluation.
  -policy-override     Override soft mandatory Sentinel policies.
  -preserve-counts     Keep the counts of the running job's groups.
  -preserve-resources  Keep the resources of the running job's tasks.
  -verbose             Full identifiers.
` + jobOptionsHelp + nomadOptionsHelp)
}

func (c *runCommand) Run(args []string) int {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	c.opts.register(flags)
	flags.BoolVar(&c.detach, "detach", false, "")
	flags.StringVar(&c.checkIndex, "check-index", "", "")
	flags.IntVar(&c.evalPriority, "eval-priority", 0, "")
	flags.BoolVar(&c.override, "policy-override", false, "")
	flags.BoolVar(&c.preserveCounts, "preserve-counts", false, "")
	flags.BoolVar(&c.preserveMemory, "preserve-resources", false, "")
	flags.BoolVar(&c.verbose, "verbose", false, "")
	job, status, done := c.jobArgument("run", flags, args, c.Help)
	if done {
		return status
	}
	if c.opts.out != "" {
		return c.usage("run", "-o is of plan and render; run writes no file")
	}
	return c.submit(job)
}

func (c *runCommand) submit(job string) int {
	options, err := c.registerOptions()
	if err != nil {
		return c.usage("run", "%v", err)
	}
	file, result, err := c.classify(&c.opts, job)
	if err != nil {
		c.errorf("%v", err)
		return exitFailed
	}
	if err := c.reportAside(&c.opts, result.Report); err != nil {
		c.errorf("%v", err)
		return exitFailed
	}
	if status := c.opts.status(result.Report); status != exitDone {
		c.errorf("Nothing was submitted: -strict was given and %s undecided.", plural(result.Report.Undecided, "task")+" stayed")
		return status
	}
	if options.Submission, err = c.submission(file); err != nil {
		c.errorf("%v", err)
		return exitFailed
	}
	return c.register(result.File.Job, options)
}

func (c *runCommand) registerOptions() (*api.RegisterOptions, error) {
	o := &api.RegisterOptions{
		PolicyOverride: c.override, PreserveCounts: c.preserveCounts,
		PreserveResources: c.preserveMemory, EvalPriority: c.evalPriority,
	}
	if c.checkIndex == "" {
		return o, nil
	}
	index, err := strconv.ParseUint(c.checkIndex, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("-check-index %q is no index; give the job's modify index, or 0 for a new job", c.checkIndex)
	}
	o.EnforceIndex, o.ModifyIndex = true, index
	return o, nil
}

// submission is the job as its author wrote it, for Nomad to keep.
func (c *runCommand) submission(f *jobfile.File) (*api.JobSubmission, error) {
	if f.Format == jobfile.JSON {
		return &api.JobSubmission{Source: string(f.Source), Format: "json"}, nil
	}
	vars := map[string]string{}
	for _, e := range os.Environ() {
		if name, ok := strings.CutPrefix(e, "NOMAD_VAR_"); ok {
			addVar(vars, name)
		}
	}
	given := map[string]string{}
	for _, v := range c.opts.vars {
		addVar(given, v)
	}
	maps.Copy(vars, given) // -var counts more than the environment
	var files strings.Builder
	for _, path := range c.opts.varFiles {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read the variables: %w", err)
		}
		files.Write(content)
		files.WriteByte('\n')
	}
	format := "hcl2"
	if f.Format == jobfile.HCLJSON {
		format = "json" // as Nomad's own tool calls it
	}
	return &api.JobSubmission{Source: string(f.Source), Format: format, VariableFlags: vars, Variables: files.String()}, nil
}

func addVar(vars map[string]string, s string) {
	if name, value, ok := strings.Cut(s, "="); ok {
		vars[name] = value
	}
}

// register submits the job and follows it.
func (c *runCommand) register(job *api.Job, options *api.RegisterOptions) int {
	client, err := c.opts.nomad.client()
	if err != nil {
		c.errorf("%v", err)
		return exitFailed
	}
	if job.Region != nil {
		client.SetRegion(*job.Region)
	}
	if job.Namespace != nil {
		client.SetNamespace(*job.Namespace)
	}
	resp, _, err := client.Jobs().RegisterOpts(job, options, (&api.WriteOptions{}).WithContext(c.ctx))
	if err != nil {
		c.errorf("%v", c.opts.nomad.explain(explainRegister(err, options)))
		return exitFailed
	}
	if resp.Warnings != "" {
		fmt.Fprintf(c.out, "Job Warnings:\n%s\n\n", resp.Warnings)
	}
	if c.detach || job.IsPeriodic() || job.IsParameterized() || job.IsMultiregion() {
		fmt.Fprintln(c.out, "Job registration successful")
		if resp.EvalID != "" {
			fmt.Fprintln(c.out, "Evaluation ID:", resp.EvalID)
		}
		return exitDone
	}
	f := &follower{client: client, out: c.out, verbose: c.verbose}
	status, err := f.evaluation(c.ctx, resp.EvalID)
	if err != nil {
		c.errorf("%v", err)
	}
	return status
}

// explainRegister tells a job that changed meanwhile from other failures.
func explainRegister(err error, o *api.RegisterOptions) error {
	if _, why, refused := strings.Cut(err.Error(), api.RegisterEnforceIndexErrPrefix); o.EnforceIndex && refused {
		return fmt.Errorf("the job was not updated: -check-index %d%s; plan it again, and take the index that is there now",
			o.ModifyIndex, strings.TrimSuffix(strings.TrimPrefix(why, fmt.Sprintf(" %d", o.ModifyIndex)), ")"))
	}
	return fmt.Errorf("submit the job: %w", err)
}
