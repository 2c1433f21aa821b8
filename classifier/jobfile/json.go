// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package jobfile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"
	"github.com/tailscale/hujson"
)

// jsonEditor edits the JSON of Nomad's API. hujson keeps the bytes of all that
// is not touched.
type jsonEditor struct {
	f *File
}

func newJSONEditor(f *File) (editor, error) { return jsonEditor{f}, nil }

// siblings: in JSON every task stands for itself.
func (ed jsonEditor) siblings(ref Ref) []Ref { return []Ref{ref} }

func (ed jsonEditor) rewrite(edits []Edit) (draft, error) {
	root, err := hujson.Parse(slices.Clone(ed.f.Source))
	if err != nil {
		return draft{}, fmt.Errorf("%s: %w", ed.f.opts.Path, err)
	}
	job := &root
	if nested := member(job, "Job"); nested != nil && nested.Value.Kind() == '{' {
		job = nested
	}
	for _, e := range edits {
		task, err := element(member(job, "TaskGroups"), e.Ref.Group)
		if err == nil {
			task, err = element(member(task, "Tasks"), e.Ref.Task)
		}
		if err == nil {
			err = editTask(task, e)
		}
		if err != nil {
			return draft{}, fmt.Errorf("%s: %s: %w", ed.f.opts.Path, ed.f.Name(e.Ref), err)
		}
	}
	return draft{src: root.Pack()}, nil
}

func editTask(task *hujson.Value, e Edit) error {
	if e.Driver != "" {
		if err := set(task, "Driver", e.Driver); err != nil {
			return err
		}
	}
	if e.Unwrap != "" {
		if err := unwrapJSON(task, e.Unwrap); err != nil {
			return err
		}
	}
	if err := editConfigJSON(task, e.Config); err != nil {
		return err
	}
	if e.MemoryMiB != nil {
		if err := setIn(task, "Resources", "MemoryMB", *e.MemoryMiB); err != nil {
			return err
		}
	}
	for _, p := range e.Meta {
		if err := setIn(task, "Meta", p.Key, p.Value); err != nil {
			return err
		}
	}
	for _, c := range e.Constraints {
		v := map[string]any{"LTarget": c.LTarget, "Operand": c.Operand, "RTarget": c.RTarget}
		if err := appendTo(task, "Constraints", v); err != nil {
			return err
		}
	}
	for _, a := range e.Affinities {
		if err := appendTo(task, "Affinities", affinityJSON(a)); err != nil {
			return err
		}
	}
	return nil
}

func affinityJSON(a *api.Affinity) map[string]any {
	v := map[string]any{"LTarget": a.LTarget, "Operand": a.Operand, "RTarget": a.RTarget}
	if a.Weight != nil {
		v["Weight"] = *a.Weight
	}
	return v
}

func editConfigJSON(task *hujson.Value, changes []ConfigChange) error {
	for _, c := range changes {
		if !c.Remove {
			if err := setIn(task, "Config", c.Key, c.Value); err != nil {
				return err
			}
			continue
		}
		config := member(task, "Config")
		if config == nil || !remove(config, c.Key) {
			return fmt.Errorf("key %s of Config is not there: %w", c.Key, ErrNotEditable)
		}
	}
	return nil
}

// unwrapJSON makes the content of one block inside Config the whole Config.
func unwrapJSON(task *hujson.Value, name string) error {
	config := member(task, "Config")
	inner := exactMember(config, name)
	if inner == nil {
		return fmt.Errorf("the Config has no %q: %w", name, ErrNotEditable)
	}
	if list, ok := inner.Value.(*hujson.Array); ok {
		if len(list.Elements) != 1 {
			return fmt.Errorf("key %s of Config has %d elements, not one: %w", name, len(list.Elements), ErrNotEditable)
		}
		inner = &list.Elements[0]
	}
	config.Value = inner.Value
	return nil
}

// member finds a field of an object as encoding/json would: the last one whose
// name matches, whatever its case.
func member(v *hujson.Value, name string) *hujson.Value {
	return find(v, func(s string) bool { return strings.EqualFold(s, name) })
}

// exactMember finds a key of a map, where case counts.
func exactMember(v *hujson.Value, name string) *hujson.Value {
	return find(v, func(s string) bool { return s == name })
}

func find(v *hujson.Value, match func(string) bool) *hujson.Value {
	if v == nil {
		return nil
	}
	object, ok := v.Value.(*hujson.Object)
	if !ok {
		return nil
	}
	for i := len(object.Members) - 1; i >= 0; i-- {
		m := &object.Members[i]
		if name, ok := m.Name.Value.(hujson.Literal); ok && match(name.String()) {
			return &m.Value
		}
	}
	return nil
}

func element(v *hujson.Value, i int) (*hujson.Value, error) {
	if v != nil {
		if list, ok := v.Value.(*hujson.Array); ok && i < len(list.Elements) {
			return &list.Elements[i], nil
		}
	}
	return nil, fmt.Errorf("element %d of the list is not where it should be: %w", i, ErrNotEditable)
}

// setIn sets a key of a task's field that is an object, made where it is
// absent or null. Keys of Config and Meta are a map's: their case counts.
func setIn(task *hujson.Value, field, key string, value any) error {
	object := member(task, field)
	if object == nil || object.Value.Kind() == 'n' {
		return set(task, field, map[string]any{key: value})
	}
	if object.Value.Kind() != '{' {
		return fmt.Errorf("%s is not an object: %w", field, ErrNotEditable)
	}
	if field == "Resources" {
		return set(object, key, value)
	}
	return setExact(object, key, value)
}

func set(object *hujson.Value, key string, value any) error {
	return setMember(object, member(object, key), key, value)
}

func setExact(object *hujson.Value, key string, value any) error {
	return setMember(object, exactMember(object, key), key, value)
}

func setMember(object, old *hujson.Value, key string, value any) error {
	body := object.Value.(*hujson.Object)
	style := styleOf(body)
	parsed, err := style.value(value)
	if err != nil {
		return err
	}
	if old != nil {
		old.Value = parsed
		return nil
	}
	m := hujson.ObjectMember{
		Name:  hujson.Value{BeforeExtra: style.before, Value: hujson.String(key)},
		Value: hujson.Value{BeforeExtra: style.colon, Value: parsed},
	}
	body.Members = append(body.Members, m)
	return nil
}

func remove(object *hujson.Value, key string) bool {
	body, ok := object.Value.(*hujson.Object)
	if !ok {
		return false
	}
	i := slices.IndexFunc(body.Members, func(m hujson.ObjectMember) bool {
		name, ok := m.Name.Value.(hujson.Literal)
		return ok && name.String() == key
	})
	if i < 0 {
		return false
	}
	body.Members = slices.Delete(body.Members, i, i+1)
	if n := len(body.Members); n > 0 {
		body.Members[n-1].Value.AfterExtra = nil // else hujson writes a trailing comma
	}
	return true
}

// appendTo adds an element to a task's list, made where it is absent or null.
func appendTo(task *hujson.Value, field string, value any) error {
	list := member(task, field)
	if list == nil || list.Value.Kind() == 'n' {
		return set(task, field, []any{value})
	}
	array, ok := list.Value.(*hujson.Array)
	if !ok {
		return fmt.Errorf("%s is not a list: %w", field, ErrNotEditable)
	}
	if len(array.Elements) == 0 {
		return set(task, field, []any{value})
	}
	last := &array.Elements[len(array.Elements)-1]
	style := jsonStyle{before: last.BeforeExtra, unit: styleOf(task.Value.(*hujson.Object)).unit}
	parsed, err := style.value(value)
	if err != nil {
		return err
	}
	added := hujson.Value{BeforeExtra: last.BeforeExtra, Value: parsed}
	array.Elements = append(array.Elements, added)
	return nil
}

// jsonStyle is how an object is laid out, for what is added to it.
type jsonStyle struct {
	before hujson.Extra // white space before a name
	colon  hujson.Extra // white space behind the colon
	unit   string       // one level of indent; "" where all stands on one line
}

func styleOf(o *hujson.Object) jsonStyle {
	if len(o.Members) == 0 {
		return jsonStyle{}
	}
	last := o.Members[len(o.Members)-1]
	s := jsonStyle{before: last.Name.BeforeExtra, colon: last.Value.BeforeExtra}
	if i := bytes.LastIndexByte(s.before, '\n'); i >= 0 {
		inner := string(s.before[i+1:])
		outer := ""
		if j := bytes.LastIndexByte(o.AfterExtra, '\n'); j >= 0 {
			outer = string(o.AfterExtra[j+1:])
		}
		if unit, ok := strings.CutPrefix(inner, outer); ok && unit != "" {
			s.unit = unit
		} else {
			s.unit = "  "
		}
	}
	return s
}

// value writes a Go value in the style of its surroundings.
func (s jsonStyle) value(v any) (hujson.ValueTrimmed, error) {
	var raw bytes.Buffer
	enc := json.NewEncoder(&raw)
	enc.SetEscapeHTML(false)
	if i := bytes.LastIndexByte(s.before, '\n'); i >= 0 {
		enc.SetIndent(string(s.before[i+1:]), s.unit)
	}
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	parsed, err := hujson.Parse(bytes.TrimSpace(raw.Bytes()))
	if err != nil {
		return nil, err
	}
	return parsed.Value, nil
}
