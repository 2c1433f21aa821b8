// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package jobfile

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// hclEditor edits tasks in HCL. The syntax tree says where things are; the
// text between the places that change is never written anew.
type hclEditor struct {
	f     *File
	sites []*site
	of    map[Ref]*site
}

// site is the piece of text that makes a task: a task block, or the content of
// a dynamic one. Inside a dynamic block one site makes many tasks.
type site struct {
	task   *hclsyntax.Block
	scopes []*hclsyntax.Block // the task's block, its group's, the job's: where meta is looked up
	refs   []Ref
	many   bool // it stands in a dynamic block
}

func newHCLEditor(f *File) (editor, error) {
	if err := f.parseTree(); err != nil {
		return nil, err
	}
	ed := &hclEditor{f: f, of: map[Ref]*site{}}
	for _, b := range f.tree.Blocks {
		if b.Type == "job" {
			ed.collect(b, []*hclsyntax.Block{b}, false)
		}
	}
	if ed.inOrder() {
		return ed, nil
	}
	if err := ed.probe(); err != nil {
		return nil, err
	}
	return ed, nil
}

// inOrder matches sites and tasks by their order, which is all it takes where
// no dynamic block makes any: it saves the parse that probe needs. Nomad's
// parser puts the tasks directly below the job first.
func (ed *hclEditor) inOrder() bool {
	var alone, grouped []*site
	for _, s := range ed.sites {
		switch {
		case s.many:
			return false
		case len(s.scopes) == 2:
			alone = append(alone, s)
		default:
			grouped = append(grouped, s)
		}
	}
	sites, next := append(alone, grouped...), 0
	of := map[Ref]*site{}
	for gi, g := range ed.f.Job.TaskGroups {
		for ti, task := range g.Tasks {
			if next >= len(sites) || len(sites[next].task.Labels) != 1 || sites[next].task.Labels[0] != task.Name {
				return false
			}
			of[Ref{Group: gi, Task: ti}] = sites[next]
			next++
		}
	}
	if next != len(sites) {
		return false
	}
	for ref, s := range of {
		s.refs = []Ref{ref}
	}
	ed.of = of
	return true
}

// collect finds the sites below a job or a group. A dynamic block counts by
// its content.
func (ed *hclEditor) collect(parent *hclsyntax.Block, scopes []*hclsyntax.Block, many bool) {
	for _, b := range parent.Body.Blocks {
		kind, content, many := b.Type, b, many
		if b.Type == "dynamic" && len(b.Labels) == 1 {
			kind, many = b.Labels[0], true
			if content = child(b, "content"); content == nil {
				continue
			}
		}
		inner := append([]*hclsyntax.Block{content}, scopes...)
		switch kind {
		case "group":
			ed.collect(content, inner, many)
		case "task":
			ed.sites = append(ed.sites, &site{task: content, scopes: inner, many: many})
		}
	}
}

func child(b *hclsyntax.Block, name string) *hclsyntax.Block {
	for _, c := range b.Body.Blocks {
		if c.Type == name {
			return c
		}
	}
	return nil
}

const probePrefix = "nomad-hybrid-site-"

// probe finds out which site makes which tasks, by asking Nomad's parser: it
// parses a copy of the job in which the driver of every site is the site's
// number.
func (ed *hclEditor) probe() error {
	t := newText(ed.f.Source)
	for i, s := range ed.sites {
		t.setAttr(s.task, "driver", strconv.Quote(probePrefix+strconv.Itoa(i)))
	}
	src, err := t.bytes()
	if err != nil {
		return err
	}
	job, err := parseJob(src, HCL, nil, ed.f.opts)
	if err != nil {
		return fmt.Errorf("find the tasks in the text: %w", err)
	}
	for gi, g := range job.TaskGroups {
		for ti, task := range g.Tasks {
			n, err := strconv.Atoi(strings.TrimPrefix(task.Driver, probePrefix))
			if err != nil || n >= len(ed.sites) {
				return fmt.Errorf("%s: task %q comes from syntax that is not known here: %w",
					ed.f.opts.Path, task.Name, ErrNotEditable)
			}
			ref := Ref{Group: gi, Task: ti}
			ed.of[ref] = ed.sites[n]
			ed.sites[n].refs = append(ed.sites[n].refs, ref)
		}
	}
	return nil
}

func (ed *hclEditor) siblings(ref Ref) []Ref {
	s := ed.of[ref]
	if s == nil {
		return []Ref{ref}
	}
	return slices.SortedFunc(slices.Values(s.refs), compareRefs)
}

func compareRefs(a, b Ref) int {
	return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Task, b.Task))
}

// rewrite edits each site once. Where a site makes several tasks they must all
// ask for the same change of its text.
func (ed *hclEditor) rewrite(edits []Edit) (draft, error) {
	bySite := map[*site]map[Ref]Edit{}
	for _, e := range edits {
		s := ed.of[e.Ref]
		if s == nil {
			return draft{}, fmt.Errorf("no task at %+v", e.Ref)
		}
		if bySite[s] == nil {
			bySite[s] = map[Ref]Edit{}
		}
		bySite[s][e.Ref] = e
	}
	t := newText(ed.f.Source)
	for _, s := range ed.sites {
		if len(bySite[s]) == 0 {
			continue
		}
		if err := ed.rewriteSite(t, s, bySite[s]); err != nil {
			return draft{}, fmt.Errorf("%s: %s: %w", s.task.DefRange(), ed.f.Name(s.refs[0]), err)
		}
	}
	out, err := t.bytes()
	return draft{out, t.moved(groupSpans(ed.f.tree))}, err
}

func (ed *hclEditor) rewriteSite(t *text, s *site, edits map[Ref]Edit) error {
	var first *text
	for _, ref := range s.refs {
		e, ok := edits[ref]
		if !ok {
			return fmt.Errorf("it is made by a dynamic block together with %s, which stays as it is: %w",
				ed.f.Name(ref), ErrNotEditable)
		}
		one := newText(ed.f.Source)
		if err := ed.edit(one, s, e); err != nil {
			return err
		}
		if first != nil && !first.equal(one) {
			return fmt.Errorf("it is made by a dynamic block together with %s, which would have to be "+
				"changed in another way: %w", ed.f.Name(ref), ErrNotEditable)
		}
		first = one
	}
	t.add(first)
	return nil
}

// edit makes one task's edit in the text of its site.
func (ed *hclEditor) edit(t *text, s *site, e Edit) error {
	if e.Driver != "" {
		t.setAttr(s.task, "driver", strconv.Quote(e.Driver))
	}
	return errors.Join(
		ed.editConfig(t, s, e),
		ed.editMemory(t, s, e),
		ed.editMeta(t, s, e),
		ed.addPlacement(t, s, e),
	)
}

func (ed *hclEditor) editMemory(t *text, s *site, e Edit) error {
	if e.MemoryMiB == nil {
		return nil
	}
	resources, err := single(s.task, "resources")
	if err != nil {
		return err
	}
	value := strconv.Itoa(*e.MemoryMiB)
	if resources == nil {
		t.addBlock(s.task, "resources {\n\tmemory = "+value+"\n}")
		return nil
	}
	t.setAttr(resources, "memory", value)
	return nil
}

// addPlacement adds constraints and affinities at the end of the task.
func (ed *hclEditor) addPlacement(t *text, s *site, e Edit) error {
	for _, c := range e.Constraints {
		t.addBlock(s.task, placement("constraint", c.LTarget, c.Operand, c.RTarget, ""))
	}
	for _, a := range e.Affinities {
		weight := ""
		if a.Weight != nil {
			weight = strconv.Itoa(int(*a.Weight))
		}
		t.addBlock(s.task, placement("affinity", a.LTarget, a.Operand, a.RTarget, weight))
	}
	return nil
}

// placement writes a constraint or affinity. Attributes stay as people write
// them, ${attr.…}: Nomad's parser hands an unknown reference on as it is.
func placement(kind, attribute, operator, value, weight string) string {
	lines := []string{kind + " {", "\tattribute = \"" + attribute + "\""}
	if operator != "" && operator != "=" {
		lines = append(lines, "\toperator  = "+strconv.Quote(operator))
	}
	if value != "" {
		lines = append(lines, "\tvalue     = "+strconv.Quote(value))
	}
	if weight != "" {
		lines = append(lines, "\tweight    = "+weight)
	}
	return strings.Join(append(lines, "}"), "\n")
}

// single returns the one block of a type, nil where there is none. Several, or
// one made by a dynamic block, cannot be edited.
func single(b *hclsyntax.Block, name string) (*hclsyntax.Block, error) {
	var found *hclsyntax.Block
	for _, c := range b.Body.Blocks {
		if c.Type == "dynamic" && len(c.Labels) == 1 && c.Labels[0] == name {
			return nil, fmt.Errorf("%s: %s is made by a dynamic block: %w", c.DefRange(), name, ErrNotEditable)
		}
		if c.Type != name {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%s: a second %s block: %w", c.DefRange(), name, ErrNotEditable)
		}
		found = c
	}
	return found, nil
}
