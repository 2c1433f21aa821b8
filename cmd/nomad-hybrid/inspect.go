// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier/look"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/image"
)

type inspectCommand struct {
	*command
	policy  string
	json    bool
	noColor bool
}

func (c *inspectCommand) Synopsis() string { return "Show what an image is and needs" }

func (c *inspectCommand) Help() string {
	return strings.TrimSpace(`
Usage: nomad-hybrid inspect [options] IMAGE

  Looks into an image without running it: family, architecture, size, what its
  entry point is, which libraries tell the kind of work, and what that means
  for a decision.

  IMAGE is a reference (asked of Docker, then of its registry), oci-layout:PATH
  with or without :TAG, an archive of "docker save", or a unikernel's file.

Options:

  -policy FILE  Weigh by this policy instead of the default one.
  -json         As JSON.
  -no-color     No colour.
`)
}

// inspection is what -json prints.
type inspection struct {
	Image     string                     `json:"image"`
	Container *classifier.ContainerImage `json:"container,omitempty"`
	Unikernel *classifier.UnikernelImage `json:"unikernel,omitempty"`
	Takes     []image.Ability            `json:"takes,omitempty"` // how the unikernel takes what a job gives
	Signals   []classifier.Signal        `json:"signals,omitempty"`
}

func (c *inspectCommand) Run(args []string) int {
	flags := flag.NewFlagSet("inspect", flag.ContinueOnError)
	flags.StringVar(&c.policy, "policy", "", "")
	flags.BoolVar(&c.json, "json", false, "")
	flags.BoolVar(&c.noColor, "no-color", false, "")
	rest, err := parseFlags(flags, args)
	switch {
	case errors.Is(err, errHelp):
		fmt.Fprintln(c.out, c.Help())
		return exitDone
	case err != nil:
		return c.usage("inspect", "%v", err)
	case len(rest) != 1:
		return c.usage("inspect", "The command takes one IMAGE, not %d", len(rest))
	}
	policy := classifier.Default()
	if c.policy != "" {
		if policy, err = readPolicy(c.policy); err != nil {
			c.errorf("%v", err)
			return exitFailed
		}
	}
	found, err := c.inspect(policy, rest[0])
	if err != nil {
		c.errorf("%v", err)
		return exitFailed
	}
	var out bytes.Buffer
	if c.json {
		err = writeJSON(&out, found)
	} else {
		p := printer{w: &out, width: c.width, color: c.outColor && !c.noColor}
		p.inspection(found)
	}
	if err := errors.Join(err, c.write("", out.Bytes())); err != nil {
		c.errorf("%v", err)
		return exitFailed
	}
	return exitDone
}

// inspect looks at an image as a unikernel's first: a package of one is an
// ordinary image too, with a platform of its own.
func (c *inspectCommand) inspect(policy *classifier.Policy, ref string) (*inspection, error) {
	if _, err := os.Stat(ref); filepath.IsAbs(ref) && err != nil {
		return nil, fmt.Errorf("inspect: %w", err)
	}
	l := &look.Looker{}
	out := &inspection{Image: ref}
	uk, ukErr := l.Unikernel(c.ctx, ref)
	if ukErr == nil && uk != nil && uk.Missing {
		return nil, fmt.Errorf("inspect %s: neither Docker nor its registry has it", ref)
	}
	file := filepath.IsAbs(ref) && ukErr == nil // a kernel that boots, of whatever family
	if uk != nil && (uk.Family != "" || file) {
		out.Unikernel, out.Takes = uk, takes(uk)
		return out, nil
	}
	container, err := l.Container(c.ctx, ref)
	if err != nil {
		var no *image.NotBootable
		if errors.As(ukErr, &no) { // a file, and no archive either
			return nil, fmt.Errorf("inspect %s: it %w; nor is it an archive of `docker save`", ref, no)
		}
		if ukErr != nil && ukErr.Error() != err.Error() {
			err = fmt.Errorf("%w (nor is it a unikernel: %w)", err, ukErr)
		}
		return nil, fmt.Errorf("inspect %s: %w", ref, err)
	}
	out.Container, out.Signals = container, policy.Weigh(container)
	return out, nil
}

// takes tells what an image of which something is known takes of a job.
func takes(uk *classifier.UnikernelImage) []image.Ability {
	if uk.Family == "" || len(uk.Arch) == 0 {
		return nil
	}
	known := image.Image{Family: guest.Family(uk.Family), Release: uk.Release, Arch: guest.Arch(uk.Arch[0]), Features: uk.Features}
	return known.Takes()
}

// fewOptions is how many build options a person reads.
const fewOptions = 16

// gicNames is such as "GICv2, GICv3": ARM's interrupt controllers, by version.
func gicNames(versions []int) string {
	names := make([]string, len(versions))
	for i, version := range versions {
		names[i] = fmt.Sprintf("GICv%d", version)
	}
	return strings.Join(names, ", ")
}

func (p *printer) takes(abilities []image.Ability) {
	if len(abilities) == 0 {
		return
	}
	fmt.Fprintln(p.w, "\nOf what a job gives it takes:")
	for _, a := range abilities {
		p.indented("  ", fmt.Sprintf("%s: %s (%s)", a.What, a.Can, a.How))
	}
}

func (p *printer) inspection(i *inspection) {
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(p.w, "%-14s %s\n", name, value)
		}
	}
	field("image", i.Image)
	if u := i.Unikernel; u != nil {
		field("kind", "unikernel")
		field("family", cmp.Or(strings.TrimSpace(u.Family+" "+u.Release), "not told; name it in hybrid_unikernel_guest"))
		field("architectures", strings.Join(u.Arch, ", "))
		field("drives", gicNames(u.GICs))
		field("size", fmt.Sprintf("%.1f MiB", u.SizeMiB))
		if u.MemoryMiB > 0 {
			field("memory", fmt.Sprintf("%d MiB or more, and QEMU's own share (the driver's memory_overhead)", u.MemoryMiB))
		}
		field("takes", strings.Join(u.Can, ", "))
		field("takes no", strings.Join(u.Cannot, ", "))
		if len(u.Features) > fewOptions {
			field("features", fmt.Sprintf("%d build options; -json lists them", len(u.Features)))
		} else {
			field("features", strings.Join(u.Features, " "))
		}
		p.takes(i.Takes)
		fmt.Fprintln(p.w, "\nA job names it in meta hybrid_unikernel_image, or the policy's catalog does.")
		return
	}
	c := i.Container
	field("kind", "container")
	field("digest", c.Digest)
	field("architectures", strings.Join(c.Arch, ", "))
	field("size", fmt.Sprintf("%.1f MiB in %s", c.SizeMiB, plural(c.Layers, "layer")))
	field("entry", strings.Join(c.Entry, " "))
	field("runtime", c.Runtime)
	field("starts", strings.Join(c.Forks, ", "))
	field("manages", strings.Join(c.Processes, ", "))
	field("user", c.User)
	field("ports", strings.Join(c.Ports, ", "))
	field("stop signal", c.Signal)
	field("shell", c.Shell)
	field("packager", c.Packages)
	field("libraries", plural(len(c.Libraries), "known name"))
	fmt.Fprintln(p.w, "\nFor a decision it weighs:")
	for _, g := range i.Signals {
		p.indented("  ", fmt.Sprintf("%s %s: scores %.0f, weight %d", g.Name, g.Value, g.Score, g.Weight))
	}
	if len(c.Processes) > 0 {
		p.indented("  ", "It manages several processes: a unikernel is one, so it stays a container.")
	}
}
