// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package jobfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"
)

// ErrVerify marks a rewrite whose meaning is not what the edits intended. The
// text is not returned: an error of ours must not become a job.
var ErrVerify = errors.New("the rewritten job would not mean what was decided")

// verify parses the new text as the old one was and compares the job with the
// old one after the edits: nothing else may differ. It returns the new job.
func (f *File) verify(out draft, edits []Edit) (*api.Job, error) {
	got, err := parseJob(out.src, f.Format, out.groups, f.opts)
	if err != nil {
		return nil, fmt.Errorf("%w: it does not parse: %w", ErrVerify, err)
	}
	want := copyFor(f.Job, edits)
	for _, e := range edits {
		if err := e.apply(want); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrVerify, err)
		}
	}
	where := difference(want, got, nil)
	if where == "" {
		return got, nil
	}
	volatile, err := f.volatile()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrVerify, err)
	}
	if where = difference(want, got, volatile); where != "" {
		return nil, fmt.Errorf("%w: they differ at %s", ErrVerify, where)
	}
	return got, nil
}

// volatile finds what differs each time the job is parsed, by uuidv4() and
// bcrypt(): it says nothing about a rewrite.
func (f *File) volatile() (map[string]bool, error) {
	again, err := parseJob(f.Source, f.Format, nil, f.opts)
	if err != nil {
		return nil, fmt.Errorf("parse the job once more: %w", err)
	}
	found := map[string]bool{}
	for {
		where := difference(f.Job, again, found)
		path, _, ok := strings.Cut(where, ": ")
		if !ok || found[path] {
			return found, nil
		}
		found[path] = true
	}
}

// difference returns the path of the first difference of two jobs as the API
// would send them, with what is there, or "" where there is none but at paths
// that do not count.
func difference(want, got *api.Job, except map[string]bool) string {
	a, errA := json.Marshal(want)
	b, errB := json.Marshal(got)
	if errA != nil || errB != nil {
		return fmt.Sprintf("their JSON (%v)", errors.Join(errA, errB))
	}
	if bytes.Equal(a, b) {
		return ""
	}
	var x, y any
	if err := errors.Join(decode(a, &x), decode(b, &y)); err != nil {
		return fmt.Sprintf("their JSON (%v)", err)
	}
	return diffPath("job", x, y, except)
}

func decode(raw []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	return d.Decode(v)
}

func diffPath(path string, want, got any, except map[string]bool) string {
	if except[path] {
		return ""
	}
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			break
		}
		for _, k := range sortedKeys(w, g) {
			if d := diffPath(path+"."+k, w[k], g[k], except); d != "" {
				return d
			}
		}
		return ""
	case []any:
		g, ok := got.([]any)
		if !ok || len(w) != len(g) {
			break
		}
		for i := range w {
			if d := diffPath(fmt.Sprintf("%s[%d]", path, i), w[i], g[i], except); d != "" {
				return d
			}
		}
		return ""
	}
	if reflect.DeepEqual(want, got) {
		return ""
	}
	return fmt.Sprintf("%s: want %s, got %s", path, short(want), short(got))
}

func sortedKeys(maps ...map[string]any) []string {
	var keys []string
	for _, m := range maps {
		for k := range m {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

func short(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	if len(raw) > 120 {
		return string(raw[:120]) + "…"
	}
	return string(raw)
}
