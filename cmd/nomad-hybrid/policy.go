// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"strings"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier"
)

type policyCommand struct{ *command }

func (c *policyCommand) Synopsis() string { return "Print the default policy, with comments" }

func (c *policyCommand) Help() string {
	return strings.TrimSpace(`
Usage: nomad-hybrid policy [-check FILE]

  Prints the policy that holds where -policy is not given: a starting point
  for your own.

Options:

  -check FILE  Check a policy instead, and print its name with the hash that
               is recorded with decisions.
`)
}

func (c *policyCommand) Run(args []string) int {
	flags := flag.NewFlagSet("policy", flag.ContinueOnError)
	check := flags.String("check", "", "")
	rest, err := parseFlags(flags, args)
	switch {
	case errors.Is(err, errHelp):
		fmt.Fprintln(c.out, c.Help())
		return exitDone
	case err != nil:
		return c.usage("policy", "%v", err)
	case len(rest) > 0:
		return c.usage("policy", "The command takes no argument: %s", strings.Join(rest, " "))
	}
	if *check == "" {
		if err := c.write("", classifier.DefaultPolicy); err != nil {
			c.errorf("%v", err)
			return exitFailed
		}
		return exitDone
	}
	policy, err := readPolicy(*check)
	if err != nil {
		c.errorf("%v", err)
		return exitFailed
	}
	fmt.Fprintln(c.out, policy.ID())
	return exitDone
}
