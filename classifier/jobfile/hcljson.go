// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package jobfile

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tailscale/hujson"
)

// hclJSONEditor edits jobs in HCL's JSON syntax, where a block is an object, or
// a list of objects, below its labels, and every string is a template.
type hclJSONEditor struct {
	f    *File
	of   map[Ref]int // a task's place among the sites
	refs [][]Ref     // by site: the tasks that it makes
}

// jsonSite is the object that makes a task, or the tasks of a dynamic block.
type jsonSite struct {
	task   *hujson.Value
	scopes []*hujson.Value // the task, its group, the job: where meta is looked up
}

// newHCLJSONEditor finds out which object makes which tasks as the editor of
// HCL's own syntax does: Nomad's parser reads a copy of the job in which every
// driver is the number of its object.
func newHCLJSONEditor(f *File) (editor, error) {
	root, sites, err := jsonSites(f)
	if err != nil {
		return nil, err
	}
	ed := hclJSONEditor{f: f, of: map[Ref]int{}, refs: make([][]Ref, len(sites))}
	for i, s := range sites {
		if err := setExact(s.task, "driver", probePrefix+strconv.Itoa(i)); err != nil {
			return nil, err
		}
	}
	job, err := parseJob(root.Pack(), HCLJSON, nil, f.opts)
	if err != nil {
		return nil, fmt.Errorf("find the tasks in the text: %w", err)
	}
	for gi, g := range job.TaskGroups {
		for ti, task := range g.Tasks {
			n, err := strconv.Atoi(strings.TrimPrefix(task.Driver, probePrefix))
			if err != nil || n >= len(sites) {
				return nil, fmt.Errorf("%s: task %q comes from syntax that is not known here: %w", f.opts.Path, task.Name, ErrNotEditable)
			}
			ref := Ref{Group: gi, Task: ti}
			ed.of[ref] = n
			ed.refs[n] = append(ed.refs[n], ref)
		}
	}
	return ed, nil
}

// jsonSites parses the source anew and finds its sites, in the same order each
// time.
func jsonSites(f *File) (*hujson.Value, []jsonSite, error) {
	root, err := hujson.Parse(slices.Clone(f.Source))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", f.opts.Path, err)
	}
	var sites []jsonSite
	for _, job := range labelled(exactMember(&root, "job")) {
		sites = collectJSON(sites, job, []*hujson.Value{job})
	}
	return &root, sites, nil
}

// collectJSON finds the sites below a job or a group.
func collectJSON(sites []jsonSite, parent *hujson.Value, scopes []*hujson.Value) []jsonSite {
	visit := func(kind string, body *hujson.Value) {
		inner := append([]*hujson.Value{body}, scopes...)
		if kind == "task" {
			sites = append(sites, jsonSite{body, inner})
			return
		}
		sites = collectJSON(sites, body, inner)
	}
	for _, kind := range []string{"group", "task"} {
		for _, body := range labelled(exactMember(parent, kind)) {
			visit(kind, body)
		}
		for _, dynamic := range bodies(exactMember(parent, "dynamic")) {
			for _, block := range bodies(exactMember(dynamic, kind)) {
				for _, content := range bodies(exactMember(block, "content")) {
					visit(kind, content)
				}
			}
		}
	}
	return sites
}

// labelled are the bodies of blocks with one label: the values of an object, or
// of a list of such objects.
func labelled(v *hujson.Value) []*hujson.Value {
	var out []*hujson.Value
	for _, object := range bodies(v) {
		members := object.Value.(*hujson.Object).Members
		for i := range members {
			out = append(out, bodies(&members[i].Value)...)
		}
	}
	return out
}

// bodies are the objects that a value is or lists.
func bodies(v *hujson.Value) []*hujson.Value {
	if v == nil {
		return nil
	}
	switch body := v.Value.(type) {
	case *hujson.Object:
		return []*hujson.Value{v}
	case *hujson.Array:
		var out []*hujson.Value
		for i := range body.Elements {
			out = append(out, bodies(&body.Elements[i])...)
		}
		return out
	}
	return nil
}

func (ed hclJSONEditor) siblings(ref Ref) []Ref {
	site, ok := ed.of[ref]
	if !ok {
		return []Ref{ref}
	}
	return slices.SortedFunc(slices.Values(ed.refs[site]), compareRefs)
}

func (ed hclJSONEditor) rewrite(edits []Edit) (draft, error) {
	bySite := map[int]map[Ref]Edit{}
	for _, e := range edits {
		site, ok := ed.of[e.Ref]
		if !ok {
			return draft{}, fmt.Errorf("no task at %+v", e.Ref)
		}
		if bySite[site] == nil {
			bySite[site] = map[Ref]Edit{}
		}
		bySite[site][e.Ref] = e
	}
	root, sites, err := jsonSites(ed.f)
	if err != nil {
		return draft{}, err
	}
	for i := range sites {
		if len(bySite[i]) == 0 {
			continue
		}
		if err := ed.rewriteSite(sites[i], i, bySite[i]); err != nil {
			return draft{}, fmt.Errorf("%s: %s: %w", ed.f.opts.Path, ed.f.Name(ed.refs[i][0]), err)
		}
	}
	return draft{src: root.Pack()}, nil
}

// rewriteSite edits one object. Where it makes several tasks they must all ask
// for the same change.
func (ed hclJSONEditor) rewriteSite(s jsonSite, site int, edits map[Ref]Edit) error {
	refs := ed.refs[site]
	var first []byte
	for _, ref := range refs {
		e, ok := edits[ref]
		if !ok {
			return fmt.Errorf("it is made by a dynamic block together with %s, which stays as it is: %w", ed.f.Name(ref), ErrNotEditable)
		}
		if len(refs) == 1 {
			break
		}
		root, sites, err := jsonSites(ed.f)
		if err == nil {
			err = editTaskHCLJSON(sites[site], e)
		}
		if err != nil {
			return err
		}
		if text := root.Pack(); first == nil {
			first = text
		} else if !bytes.Equal(first, text) {
			return fmt.Errorf("it is made by a dynamic block together with %s, which would have to be changed in another way: %w", ed.f.Name(ref), ErrNotEditable)
		}
	}
	return editTaskHCLJSON(s, edits[refs[0]])
}

func editTaskHCLJSON(s jsonSite, e Edit) error {
	if e.Driver != "" {
		if err := setExact(s.task, "driver", e.Driver); err != nil {
			return err
		}
	}
	if err := editConfigHCLJSON(s, e); err != nil {
		return err
	}
	if e.MemoryMiB != nil {
		if err := setInBlock(s.task, "resources", "memory", *e.MemoryMiB); err != nil {
			return err
		}
	}
	for _, p := range e.Meta {
		if err := setInBlock(s.task, "meta", p.Key, escape(p.Value)); err != nil {
			return err
		}
	}
	for _, c := range e.Constraints {
		if err := appendBlock(s.task, "constraint", placementJSON(c.LTarget, c.Operand, c.RTarget, nil)); err != nil {
			return err
		}
	}
	for _, a := range e.Affinities {
		if err := appendBlock(s.task, "affinity", placementJSON(a.LTarget, a.Operand, a.RTarget, a.Weight)); err != nil {
			return err
		}
	}
	return nil
}

func editConfigHCLJSON(s jsonSite, e Edit) error {
	if e.Unwrap != "" {
		config, err := block(s.task, "config")
		if err != nil {
			return err
		}
		inner, err := block(config, e.Unwrap)
		if err != nil {
			return err
		}
		if config == nil || inner == nil {
			return fmt.Errorf("the config has no %q: %w", e.Unwrap, ErrNotEditable)
		}
		config.Value = inner.Value
	}
	for _, c := range e.Config {
		if !c.Remove {
			if err := setInBlock(s.task, "config", c.Key, hintValue(s, c)); err != nil {
				return err
			}
			continue
		}
		config, err := block(s.task, "config")
		if err != nil {
			return err
		}
		if config == nil || !remove(config, c.Key) {
			return fmt.Errorf("config.%s is not written as a key of config: %w", c.Key, ErrNotEditable)
		}
	}
	return nil
}

// hintValue is a new value of config: the author's own template where it is a
// hint taken as it is, else the value, with what would be evaluated escaped.
func hintValue(s jsonSite, c ConfigChange) any {
	for _, scope := range s.scopes {
		for _, meta := range bodies(exactMember(scope, "meta")) {
			if v := exactMember(meta, c.Hint); v != nil && c.Hint != "" {
				if text, ok := v.Value.(hujson.Literal); ok && text.Kind() == '"' {
					return text.String()
				}
			}
		}
	}
	return escape(c.Value)
}

// escape keeps HCL from evaluating what is in a value's strings.
func escape(v any) any {
	switch v := v.(type) {
	case string:
		return strings.NewReplacer("${", "$${", "%{", "%%{").Replace(v)
	case []string:
		out := make([]any, len(v))
		for i, s := range v {
			out[i] = escape(s)
		}
		return out
	case []map[string]any:
		out := make([]any, len(v))
		for i, m := range v {
			escaped := map[string]any{}
			for key, value := range m {
				escaped[key] = escape(value)
			}
			out[i] = escaped
		}
		return out
	}
	return v
}

// block is the one object of an unlabelled block, nil where there is none.
func block(parent *hujson.Value, name string) (*hujson.Value, error) {
	v := exactMember(parent, name)
	if v == nil {
		return nil, nil
	}
	found := bodies(v)
	if len(found) != 1 {
		return nil, fmt.Errorf("%s is not one object: %w", name, ErrNotEditable)
	}
	return found[0], nil
}

// setInBlock sets a key in a block, which is made where it is absent.
func setInBlock(task *hujson.Value, name, key string, value any) error {
	b, err := block(task, name)
	if err != nil {
		return err
	}
	if b == nil {
		return setExact(task, name, map[string]any{key: value})
	}
	return setExact(b, key, value)
}

// appendBlock adds one more block of a kind.
func appendBlock(task *hujson.Value, name string, value map[string]any) error {
	v := exactMember(task, name)
	if v == nil {
		return setExact(task, name, value)
	}
	if object, ok := v.Value.(*hujson.Object); ok {
		v.Value = &hujson.Array{Elements: []hujson.Value{{Value: object}}}
	}
	return appendTo(task, name, value)
}

// placementJSON is a constraint or an affinity. Attributes stay as people write
// them: Nomad's parser hands an unknown reference on as it is.
func placementJSON(attribute, operator, value string, weight *int8) map[string]any {
	out := map[string]any{"attribute": attribute}
	if operator != "" && operator != "=" {
		out["operator"] = operator
	}
	if value != "" {
		out["value"] = value
	}
	if weight != nil {
		out["weight"] = *weight
	}
	return out
}
