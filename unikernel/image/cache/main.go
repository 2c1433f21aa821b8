// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package cache

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// DefaultMaxMiB is the cache's size where the operator sets none.
const DefaultMaxMiB = 2048

const usage = `Usage: nomad-driver-unikernel cache [options] COMMAND

Commands:
  ls          list the images in the cache, the least recently used one first
  rm NAME...  remove images, each named by its digest (or the start of it) or
              by a reference; one that a guest runs from is kept
  gc          remove the least recently used images until the cache is within
              its size, and what crashes left

Options:
`

// Main is the command line for operators: cache ls, rm and gc. dir is the
// folder where -dir names no other. It returns the exit status: 0 done,
// 1 failed, 2 wrong usage.
func Main(args []string, dir string, out, errs io.Writer) int {
	flags := flag.NewFlagSet("cache", flag.ContinueOnError)
	flags.SetOutput(errs)
	flags.Usage = func() {
		fmt.Fprint(errs, usage)
		flags.PrintDefaults()
	}
	flags.StringVar(&dir, "dir", dir, "the cache's folder (the plugin's cache { dir })")
	size := flags.Int64("max-size", DefaultMaxMiB, "the cache's size for gc, in MiB (the plugin's cache { max_size }); 0 removes all that is not in use")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	command, ok := commands[flags.Arg(0)]
	if !ok || (len(flags.Args()) > 1) != command.names || *size < 0 {
		flags.Usage()
		return 2
	}
	c, err := Open(dir, *size)
	if err == nil {
		err = command.run(c, flags.Args()[1:], out)
	}
	if err != nil {
		fmt.Fprintln(errs, err)
		return 1
	}
	return 0
}

var commands = map[string]struct {
	names bool // it takes names of images
	run   func(*Cache, []string, io.Writer) error
}{
	"ls": {false, list},
	"rm": {true, remove},
	"gc": {false, collect},
}

func list(c *Cache, _ []string, out io.Writer) error {
	infos, err := c.List()
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "DIGEST\tSIZE\tLAST USED\tSTATE\tIMAGE")
	for _, info := range infos {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n",
			info.short(), size(info.SizeBytes), info.LastUsed.Format(time.DateTime), info.state(), info.Source)
	}
	return table.Flush()
}

// short is enough of the digest to name the image by.
func (i Info) short() string {
	digest := strings.TrimPrefix(i.Digest, "sha256:")
	if digest == "" {
		digest = i.Key
	}
	return digest[:min(12, len(digest))]
}

func (i Info) state() string {
	switch {
	case i.Damaged:
		return "damaged"
	case i.InUse:
		return "in use"
	}
	return "idle"
}

func remove(c *Cache, names []string, out io.Writer) error {
	var errs []error
	for _, name := range names {
		key, err := c.Find(name)
		if err == nil {
			err = c.Remove(key)
		}
		if errors.Is(err, ErrInUse) {
			err = fmt.Errorf("%s: a guest runs from it: stop its task first", name)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintln(out, "removed", name)
	}
	return errors.Join(errs...)
}

func collect(c *Cache, _ []string, out io.Writer) error {
	removed, err := c.Collect(0)
	var freed int64
	for _, info := range removed {
		fmt.Fprintln(out, "removed", info.short(), info.Source)
		freed += info.SizeBytes
	}
	fmt.Fprintf(out, "freed %s\n", size(freed))
	return err
}

func size(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/mib) }
