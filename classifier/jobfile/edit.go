// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package jobfile

import (
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/nomad/api"
)

// Edit is what shall become of one task. The zero value of a field leaves that
// part of the task alone.
type Edit struct {
	Ref Ref
	// Driver is the new driver.
	Driver string
	// Unwrap names the block inside config whose content becomes the whole
	// config, as of `driver = "hybrid"`. The other blocks inside config go.
	Unwrap string
	// Config are changes to keys of config, made after Unwrap.
	Config []ConfigChange
	// MemoryMiB is the new resources.memory.
	MemoryMiB *int
	// Meta are keys to set in the task's meta.
	Meta []Pair
	// Constraints and Affinities are added to the task.
	Constraints []*api.Constraint
	Affinities  []*api.Affinity
}

// ConfigChange sets or removes one key of a task's config.
type ConfigChange struct {
	Key    string
	Remove bool
	// Value is a string, bool, int, []string or []map[string]any; the last
	// becomes a block for each element.
	Value any
	// Hint names the meta key that Value was read from, if it was taken as it
	// is: HCL then keeps the author's expression instead of its value.
	Hint string
}

// Pair is a key of meta with its value.
type Pair struct{ Key, Value string }

// apply does to a parsed job what the edit does to its text.
func (e Edit) apply(job *api.Job) error {
	t := job.TaskGroups[e.Ref.Group].Tasks[e.Ref.Task]
	if e.Driver != "" {
		t.Driver = e.Driver
	}
	if e.Unwrap != "" {
		inner, err := Nested(t.Config, e.Unwrap)
		if err != nil {
			return err
		}
		t.Config = maps.Clone(inner)
	}
	for _, c := range e.Config {
		if c.Remove {
			delete(t.Config, c.Key)
			continue
		}
		if t.Config == nil {
			t.Config = map[string]any{}
		}
		t.Config[c.Key] = c.Value
	}
	if e.MemoryMiB != nil {
		if t.Resources == nil {
			t.Resources = &api.Resources{}
		}
		t.Resources.MemoryMB = e.MemoryMiB
	}
	for _, p := range e.Meta {
		if t.Meta == nil {
			t.Meta = map[string]string{}
		}
		t.Meta[p.Key] = p.Value
	}
	t.Constraints = append(t.Constraints, e.Constraints...)
	t.Affinities = append(t.Affinities, e.Affinities...)
	return nil
}

// Nested returns the content of a block inside a task's config, which HCL
// gives as a list of one map and JSON as a list or as the map itself. A block
// that is absent gives nil; one given twice is an error.
func Nested(config map[string]any, block string) (map[string]any, error) {
	list := []any{}
	switch v := config[block].(type) {
	case nil:
		return nil, nil
	case map[string]any:
		return v, nil
	case []map[string]any:
		for _, m := range v {
			list = append(list, m)
		}
	case []any:
		list = v
	default:
		return nil, fmt.Errorf("config.%s is a %T, not a block", block, v)
	}
	if len(list) != 1 {
		return nil, fmt.Errorf("config has %d %q blocks; keep one", len(list), block)
	}
	m, ok := list[0].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("config.%s holds a %T, not a block", block, list[0])
	}
	return m, nil
}

// copyFor copies as much of a job as edits change.
func copyFor(job *api.Job, edits []Edit) *api.Job {
	out := *job
	out.TaskGroups = slices.Clone(job.TaskGroups)
	for i, g := range out.TaskGroups {
		group := *g
		group.Tasks = slices.Clone(g.Tasks)
		out.TaskGroups[i] = &group
	}
	for _, e := range edits {
		tasks := out.TaskGroups[e.Ref.Group].Tasks
		tasks[e.Ref.Task] = copyTask(tasks[e.Ref.Task])
	}
	return &out
}

func copyTask(t *api.Task) *api.Task {
	out := *t
	out.Config, out.Meta = maps.Clone(t.Config), maps.Clone(t.Meta)
	out.Constraints, out.Affinities = slices.Clip(t.Constraints), slices.Clip(t.Affinities)
	if t.Resources != nil {
		resources := *t.Resources
		out.Resources = &resources
	}
	return &out
}
