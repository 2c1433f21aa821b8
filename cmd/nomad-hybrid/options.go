// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier/cluster"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier/jobfile"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier/look"
)

// jobOptions are the options of every command that takes a JOB.
type jobOptions struct {
	policy   string
	vars     stringList
	varFiles stringList
	lax      bool
	json     bool
	out      string
	cluster  bool
	noImages bool
	strict   bool
	noColor  bool
	nomad    nomadOptions
}

const jobOptionsHelp = `
  -policy FILE     Decide by this policy instead of the default one.
  -var NAME=VALUE  Value of a variable of the job; may be given repeatedly.
  -var-file FILE   File with values of variables; may be given repeatedly.
                   NOMAD_VAR_name in the environment works too.
  -hcl2-strict=false
                   Accept values for variables the job does not declare.
  -json            The report as JSON.
  -cluster         Look at the live cluster: nodes, drivers, KVM, what runs.
  -no-images       Look into no image.
  -strict          End with status 3 if a task could not be decided (it stays
                   a container).
  -no-color        No colour, as with NO_COLOR set in the environment.
`

const outOptionHelp = `
  -o FILE          Write the result to FILE instead of standard output.`

func (o *jobOptions) register(f *flag.FlagSet) {
	f.StringVar(&o.policy, "policy", "", "")
	f.Func("var", "", func(s string) error {
		if name, _, ok := strings.Cut(s, "="); !ok || name == "" {
			return errors.New("give NAME=VALUE")
		}
		return o.vars.Set(s)
	})
	f.Var(&o.varFiles, "var-file", "")
	f.BoolFunc("hcl2-strict", "", func(s string) error {
		o.lax = s == "false" || s == "0"
		return nil
	})
	f.BoolVar(&o.json, "json", false, "")
	f.StringVar(&o.out, "o", "", "")
	f.BoolVar(&o.cluster, "cluster", false, "")
	f.BoolVar(&o.noImages, "no-images", false, "")
	f.BoolVar(&o.strict, "strict", false, "")
	f.BoolVar(&o.noColor, "no-color", false, "")
	o.nomad.register(f)
}

// stringList is a flag that may be given repeatedly.
type stringList []string

func (l *stringList) String() string { return strings.Join(*l, ",") }

func (l *stringList) Set(s string) error {
	*l = append(*l, s)
	return nil
}

// errHelp asks for the command's help and status 0.
var errHelp = flag.ErrHelp

// parseFlags reads options; they may also follow the argument, as in
// `plan job.hcl -json`.
func parseFlags(f *flag.FlagSet, args []string) ([]string, error) {
	f.SetOutput(io.Discard)
	var rest []string
	for {
		if err := f.Parse(args); err != nil {
			return nil, err
		}
		args = f.Args()
		if len(args) == 0 {
			return rest, nil
		}
		rest, args = append(rest, args[0]), args[1:]
	}
}

// jobArgument reads a command's options and its one argument. The status
// counts where done is true.
func (c *command) jobArgument(name string, f *flag.FlagSet, args []string, help func() string) (job string, status int, done bool) {
	rest, err := parseFlags(f, args)
	switch {
	case errors.Is(err, errHelp):
		fmt.Fprintln(c.out, help())
		return "", exitDone, true
	case err != nil:
		return "", c.usage(name, "%v", err), true
	case len(rest) == 0:
		return "", c.usage(name, "The command takes one JOB: a path, a URL, or - for standard input"), true
	case len(rest) > 1:
		return "", c.usage(name, "The command takes one JOB, not %d: %s", len(rest), strings.Join(rest, " ")), true
	}
	return rest[0], exitDone, false
}

// imageTimeout bounds the look at one image: an edge site may have no way to
// its registry at the moment.
const imageTimeout = 30 * time.Second

// classify reads the job and decides about it.
func (c *command) classify(o *jobOptions, job string) (*jobfile.File, *classifier.Result, error) {
	debug.SetGCPercent(400) // a short life: memory is cheaper here than time
	opts := classifier.Options{Policy: classifier.Default()}
	if o.policy != "" {
		policy, err := readPolicy(o.policy)
		if err != nil {
			return nil, nil, err
		}
		opts.Policy = policy
	}
	if !o.noImages {
		opts.Images = &look.Looker{Timeout: imageTimeout}
	}
	src, name, err := c.readJob(job)
	if err != nil {
		return nil, nil, err
	}
	file, err := jobfile.Parse(src, jobfile.Options{
		Path: name, Vars: o.vars, VarFiles: o.varFiles, Env: os.Environ(), AllowFS: true, Lax: o.lax,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read the job: %w", err)
	}
	if opts.Namespace = c.namespace(o, file); o.cluster {
		client, err := o.nomad.client()
		if err != nil {
			return nil, nil, err
		}
		if file.Job.Region != nil {
			client.SetRegion(*file.Job.Region)
		}
		opts.Cluster = cluster.New(client)
	}
	result, err := classifier.Classify(c.ctx, file, opts)
	if err != nil {
		return nil, nil, o.nomad.explain(err)
	}
	return file, result, nil
}

// namespace is the one that `nomad job run` would register the job in: the
// job's own, else -namespace or NOMAD_NAMESPACE.
func (c *command) namespace(o *jobOptions, f *jobfile.File) string {
	if f.Job.Namespace != nil {
		return *f.Job.Namespace
	}
	return o.nomad.config().Namespace
}

func readPolicy(path string) (*classifier.Policy, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the policy: %w", err)
	}
	policy, err := classifier.ParsePolicy(src, path)
	if err != nil {
		return nil, fmt.Errorf("read the policy: %w", err)
	}
	return policy, nil
}

// write writes a command's result to -o FILE or to standard output. A file is
// written beside and renamed, so that it is whole or the old one.
func (c *command) write(path string, data []byte) error {
	if path == "" {
		_, err := c.out.Write(data)
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(tmp.Name()))
	}
	return nil
}

// undecided is the status of a command that did its work.
func (o *jobOptions) status(r *classifier.Report) int {
	if o.strict && r.Undecided > 0 {
		return exitUndecided
	}
	return exitDone
}
