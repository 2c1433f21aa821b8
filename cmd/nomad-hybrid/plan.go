// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"strings"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier"
)

type planCommand struct {
	*command
	opts jobOptions
}

func (c *planCommand) Synopsis() string { return "Show what would be decided for each task, and why" }

func (c *planCommand) Help() string {
	return strings.TrimSpace(`
Usage: nomad-hybrid plan [options] JOB

  Shows for each task of a job whether it would become a container or a
  unikernel, why, and how the job would change. Writes nothing.

  JOB is a path, a URL that Nomad would take, or - for standard input.

Options:
` + outOptionHelp + jobOptionsHelp + nomadOptionsHelp)
}

func (c *planCommand) Run(args []string) int {
	flags := flag.NewFlagSet("plan", flag.ContinueOnError)
	c.opts.register(flags)
	job, status, done := c.jobArgument("plan", flags, args, c.Help)
	if done {
		return status
	}
	file, result, err := c.classify(&c.opts, job)
	if err != nil {
		c.errorf("%v", err)
		return exitFailed
	}
	result.Report.Diff = classifier.Diff(file, result.File)
	var out bytes.Buffer
	if c.opts.json {
		if err := writeJSON(&out, result.Report); err != nil {
			c.errorf("%v", err)
			return exitFailed
		}
	} else {
		p := printer{w: &out, width: c.width, color: c.outColor && !c.opts.noColor && c.opts.out == ""}
		p.report(result.Report)
		p.diff(result.Report.Diff)
	}
	if err := c.write(c.opts.out, out.Bytes()); err != nil {
		c.errorf("%v", err)
		return exitFailed
	}
	return c.opts.status(result.Report)
}

func writeJSON(out *bytes.Buffer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
