// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"flag"
	"strings"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier"
)

type renderCommand struct {
	*command
	opts jobOptions
}

func (c *renderCommand) Synopsis() string { return "Write the rewritten job" }

func (c *renderCommand) Help() string {
	return strings.TrimSpace(`
Usage: nomad-hybrid render [options] JOB

  Writes the job with the decided tasks rewritten to standard output, and the
  report to standard error. HCL stays HCL, JSON stays JSON; all that was not
  decided stays byte for byte.

  JOB is a path, a URL that Nomad would take, or - for standard input.

Options:
` + outOptionHelp + jobOptionsHelp + nomadOptionsHelp)
}

func (c *renderCommand) Run(args []string) int {
	flags := flag.NewFlagSet("render", flag.ContinueOnError)
	c.opts.register(flags)
	job, status, done := c.jobArgument("render", flags, args, c.Help)
	if done {
		return status
	}
	_, result, err := c.classify(&c.opts, job)
	if err != nil {
		c.errorf("%v", err)
		return exitFailed
	}
	if err := c.reportAside(&c.opts, result.Report); err != nil {
		c.errorf("%v", err)
		return exitFailed
	}
	if status := c.opts.status(result.Report); status != exitDone {
		return status // nothing is written: a strict caller wants all or nothing
	}
	if err := c.write(c.opts.out, result.File.Source); err != nil {
		c.errorf("%v", err)
		return exitFailed
	}
	return exitDone
}

// reportAside writes the report to standard error.
func (c *command) reportAside(o *jobOptions, r *classifier.Report) error {
	var out bytes.Buffer
	if o.json {
		if err := writeJSON(&out, r); err != nil {
			return err
		}
	} else {
		p := printer{w: &out, width: c.width, color: c.errColor && !o.noColor}
		p.report(r)
	}
	_, err := c.err.Write(out.Bytes())
	return err
}
