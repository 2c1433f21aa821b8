// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Package jobfile reads Nomad jobs as people write them (HCL with variables,
// locals, dynamic blocks and functions, or the JSON of Nomad's API) and
// changes single tasks in place. What is not changed keeps its bytes: comments,
// layout, heredocs, the order of JSON keys, the spelling of numbers.
//
// The meaning of a job comes from Nomad's own parser, jobspec2. Edits are made
// in the text. After every rewrite the new text is parsed again and compared
// with what the edits should have done to the parsed job: a rewrite that would
// mean anything else is refused, never returned.
package jobfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/nomad/api"
	"github.com/hashicorp/nomad/jobspec2"
)

// Format is the language a job is written in.
type Format string

const (
	// HCL is Nomad's job language (HCL2).
	HCL Format = "hcl"
	// JSON is the job of Nomad's API, bare or under a "Job" key.
	JSON Format = "json"
	// HCLJSON is Nomad's job language in HCL's JSON syntax.
	HCLJSON Format = "hcl-json"
)

// Options say how a job is read. They mean what they mean to `nomad job run`.
type Options struct {
	// Path names the source in messages.
	Path string
	// Vars are NAME=VALUE pairs, as of -var.
	Vars []string
	// VarFiles are paths of files with values for variables.
	VarFiles []string
	// VarContent is the content of such a file, where there is no file.
	VarContent string
	// Env is the environment; NOMAD_VAR_name gives a variable's value.
	Env []string
	// AllowFS allows functions that read files, such as file().
	AllowFS bool
	// Lax tolerates values for variables that the job does not declare.
	Lax bool
}

// Ref names a task by its place in the parsed job.
type Ref struct {
	Group int // index in Job.TaskGroups
	Task  int // index in TaskGroup.Tasks
}

// ErrNotEditable marks a task whose syntax cannot be changed in place. The
// text around it says which part of it and why.
var ErrNotEditable = errors.New("cannot be edited in place")

// File is a job as it was written, with what it means.
type File struct {
	// Job is the parsed job, not canonicalized: what the author did not give
	// is nil. It must not be changed.
	Job *api.Job
	// Format is the language of Source.
	Format Format
	// Source is the text as it was read.
	Source []byte

	opts   Options
	tree   *hclsyntax.Body // of HCL; nil: not parsed yet
	editor editor
}

// editor changes tasks in the text of one format.
type editor interface {
	// siblings returns all tasks that the same piece of text makes, with ref
	// among them.
	siblings(ref Ref) []Ref
	// rewrite returns the text with the edits made.
	rewrite(edits []Edit) (draft, error)
}

// draft is a rewritten job that is not verified yet.
type draft struct {
	src    []byte
	groups []span // where its groups are, if that is known
}

// Parse reads a job. Errors of syntax or meaning name file, line and column.
func Parse(src []byte, opts Options) (*File, error) {
	format := detect(src)
	f := &File{Format: format, Source: src, opts: opts}
	var groups []span
	if format == HCL && f.parseTree() == nil {
		groups = groupSpans(f.tree)
	}
	var err error
	if f.Job, err = parseJob(src, format, groups, opts); err != nil {
		return nil, err
	}
	if err := f.checkShape(); err != nil {
		return nil, err
	}
	return f, nil
}

// checkShape refuses a job in which nothing can be decided because the parts
// that name its tasks are missing.
func (f *File) checkShape() error {
	if f.Format == JSON && f.Job.ID == nil && f.Job.TaskGroups == nil {
		return fmt.Errorf("%s: neither a Nomad job (ID, TaskGroups) nor one under a \"Job\" key; "+
			"give the JSON that `nomad job run -output` or `nomad job inspect` prints", f.opts.Path)
	}
	for gi, g := range f.Job.TaskGroups {
		if g == nil {
			return fmt.Errorf("%s: TaskGroups[%d] is null; remove it", f.opts.Path, gi)
		}
		for ti, t := range g.Tasks {
			if t == nil {
				return fmt.Errorf("%s: TaskGroups[%d].Tasks[%d] is null; remove it", f.opts.Path, gi, ti)
			}
		}
	}
	return nil
}

// Siblings returns all tasks that the same piece of text makes, in order and
// with ref among them: more than one where a dynamic block makes several
// groups or tasks. They can only be changed alike.
func (f *File) Siblings(ref Ref) ([]Ref, error) {
	if err := f.open(); err != nil {
		return nil, err
	}
	return f.editor.siblings(ref), nil
}

// Rewrite returns the job with the edits made and all else as it was. Edits
// that the syntax does not allow give an error that wraps ErrNotEditable.
// Without edits the file itself is returned.
func (f *File) Rewrite(edits []Edit) (*File, error) {
	if len(edits) == 0 {
		return f, nil
	}
	if err := f.open(); err != nil {
		return nil, err
	}
	out, err := f.editor.rewrite(edits)
	if err != nil {
		return nil, err
	}
	f.editor, f.tree = nil, nil // they are large, and the next parse has more to collect
	job, err := f.verify(out, edits)
	if err != nil {
		return nil, err
	}
	return &File{Job: job, Format: f.Format, Source: out.src, opts: f.opts}, nil
}

// Check says whether one edit can be made, by making it and throwing the
// result away without the final comparison.
func (f *File) Check(edits ...Edit) error {
	if err := f.open(); err != nil {
		return err
	}
	_, err := f.editor.rewrite(edits)
	return err
}

// parseTree parses the syntax of HCL, which says where things are.
func (f *File) parseTree() (err error) {
	if f.tree != nil {
		return nil
	}
	defer catch(&err, f.opts.Path)
	file, diags := hclsyntax.ParseConfig(f.Source, f.opts.Path, hcl.InitialPos)
	if diags.HasErrors() {
		return diags
	}
	body, ok := file.Body.(*hclsyntax.Body)
	if !ok {
		return fmt.Errorf("%s: not HCL's own syntax: %w", f.opts.Path, ErrNotEditable)
	}
	f.tree = body
	return nil
}

// open makes the editor when it is first needed.
func (f *File) open() (err error) {
	if f.editor != nil {
		return nil
	}
	switch f.Format {
	case HCL:
		f.editor, err = newHCLEditor(f)
	case JSON:
		f.editor, err = newJSONEditor(f)
	case HCLJSON:
		f.editor, err = newHCLJSONEditor(f)
	}
	return err
}

// detect tells the format by what jobspec2 and Nomad's -json flag go by: a
// brace at the start means JSON. Nomad's API spells "Job" or has the job's
// fields at the top; HCL's JSON syntax has "job" with labels below it.
func detect(src []byte) Format {
	text := strings.TrimLeft(string(src), " \t\r\n")
	if !strings.HasPrefix(text, "{") {
		return HCL
	}
	var top map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &top) != nil {
		return JSON
	}
	body, ok := top["job"]
	if !ok {
		return JSON
	}
	var labels map[string]json.RawMessage
	if json.Unmarshal(body, &labels) != nil {
		return HCLJSON // a list of blocks
	}
	if _, isAPI := labels["TaskGroups"]; isAPI {
		return JSON
	}
	return HCLJSON
}

// parseJob parses a job with Nomad's own parser. Where its groups are helps to
// do so faster; it may be unknown.
func parseJob(src []byte, format Format, groups []span, opts Options) (*api.Job, error) {
	if format == JSON {
		return parseJSON(src, opts)
	}
	if job := parsePieces(src, groups, piecesFor(len(groups)), opts); job != nil {
		return job, nil
	}
	return parseWhole(src, opts)
}

// parseJSON reads a job as `nomad job run -json` does: under "Job" or bare.
func parseJSON(src []byte, opts Options) (*api.Job, error) {
	if len(opts.Vars) > 0 || len(opts.VarFiles) > 0 {
		return nil, fmt.Errorf("%s: a JSON job takes no variables; leave -var and -var-file out", opts.Path)
	}
	either := struct {
		NestedJob *api.Job `json:"Job"`
		api.Job
	}{}
	if err := json.Unmarshal(src, &either); err != nil {
		return nil, fmt.Errorf("%s: %w", positionJSON(opts.Path, src, err), err)
	}
	if either.NestedJob != nil {
		return either.NestedJob, nil
	}
	return &either.Job, nil
}

// positionJSON adds line and column to the path where the error has an offset.
func positionJSON(path string, src []byte, err error) string {
	offset := int64(-1)
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &typ):
		offset = typ.Offset
	}
	if offset < 0 || offset > int64(len(src)) {
		return path
	}
	before := string(src[:offset])
	line := strings.Count(before, "\n") + 1
	column := len(before) - strings.LastIndex(before, "\n")
	return fmt.Sprintf("%s:%d,%d", path, line, max(column-1, 1))
}

// parseWhole parses HCL with Nomad's own parser.
func parseWhole(src []byte, opts Options) (job *api.Job, err error) {
	defer catch(&err, opts.Path)
	job, err = jobspec2.ParseWithConfig(&jobspec2.ParseConfig{
		Path:       opts.Path,
		BaseDir:    ".", // as `nomad job run`: file() is relative to where it is called
		Body:       src,
		AllowFS:    opts.AllowFS,
		ArgVars:    opts.Vars,
		VarFiles:   opts.VarFiles,
		VarContent: opts.VarContent,
		Envs:       opts.Env,
		Strict:     !opts.Lax,
	})
	return job, explain(err, opts.Path)
}

// catch makes a panic an error. Nomad's parser can panic on odd input (it
// slices the body by positions that may come from elsewhere), which must not
// end a gate that reads other people's jobs.
func catch(err *error, path string) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%s: Nomad's job parser failed on this input: %v", path, r)
	}
}

// explain adds the path where the parser knows no place, and what would do
// about a variable without a value.
func explain(err error, path string) error {
	if err == nil {
		return nil
	}
	text := strings.ReplaceAll(err.Error(), "<nil>: ", path+": ")
	if strings.Contains(text, "Unset variable") {
		text += "; give it with -var NAME=VALUE, -var-file FILE or NOMAD_VAR_NAME"
	}
	return errors.New(text)
}

// Name returns what a ref is called in messages: group and task.
func (f *File) Name(ref Ref) string {
	g := f.Job.TaskGroups[ref.Group]
	return fmt.Sprintf("task %q of group %q", g.Tasks[ref.Task].Name, str(g.Name))
}

// Base is the file name of the source, for diffs.
func (f *File) Base() string { return filepath.Base(f.opts.Path) }

func str(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
