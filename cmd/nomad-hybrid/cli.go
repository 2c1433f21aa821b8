// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/cli"
)

// Exit statuses; interface.md promises them. `run` also ends with 2 where Nomad
// could not place the job, as `nomad job run` does.
const (
	exitDone      = 0
	exitFailed    = 1
	exitUsage     = 2
	exitUndecided = 3
)

// streams are where a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
	// width of the terminal that out is, 0 where it is none.
	width int
	// outColor and errColor tell whether colour is shown.
	outColor, errColor bool
}

// command is what all commands share.
type command struct {
	ctx context.Context
	streams
}

func (c *command) errorf(format string, args ...any) {
	fmt.Fprintf(c.err, format+"\n", args...)
}

// usage complains about how a command was called.
func (c *command) usage(name, format string, args ...any) int {
	c.errorf(format, args...)
	c.errorf("See: nomad-hybrid %s -h", name)
	return exitUsage
}

const about = `nomad-hybrid decides for each task of a Nomad job whether a container or a
unikernel serves it better, says why, and rewrites the job accordingly.

`

// run runs the command that args name and returns the exit status.
func run(ctx context.Context, args []string, s streams) int {
	base := &command{ctx: ctx, streams: s}
	c := cli.NewCLI("nomad-hybrid", version)
	c.Args = args
	c.HelpWriter, c.ErrorWriter = s.out, s.err
	c.HelpFunc = func(commands map[string]cli.CommandFactory) string {
		return about + cli.BasicHelpFunc(c.Name)(commands) + "\n\"nomad-hybrid COMMAND -h\" tells more. Begin with: nomad-hybrid plan JOB"
	}
	c.Commands = map[string]cli.CommandFactory{
		"plan":    func() (cli.Command, error) { return &planCommand{command: base}, nil },
		"render":  func() (cli.Command, error) { return &renderCommand{command: base}, nil },
		"run":     func() (cli.Command, error) { return &runCommand{command: base}, nil },
		"serve":   func() (cli.Command, error) { return &serveCommand{command: base}, nil },
		"inspect": func() (cli.Command, error) { return &inspectCommand{command: base}, nil },
		"policy":  func() (cli.Command, error) { return &policyCommand{command: base}, nil },
	}
	code, err := c.Run()
	if err != nil {
		base.errorf("%v", err)
		return exitFailed
	}
	if code == 127 { // the library's status for an unknown command or none
		if name := c.Subcommand(); name != "" {
			base.errorf("\nThere is no command %q", name)
		}
		return exitUsage
	}
	return code
}

// version is set when a release is built.
var version = "dev"

func standardStreams() streams {
	s := streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	s.width, s.outColor = terminal(os.Stdout)
	_, s.errColor = terminal(os.Stderr)
	return s
}
