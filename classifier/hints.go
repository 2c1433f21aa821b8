// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package classifier

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/nomad/api"
	"github.com/kballard/go-shellquote"
)

// Keys of meta that nomad-hybrid reads: the author's hints.
const (
	HintRuntime         = "hybrid_runtime"
	HintComplexity      = "hybrid_complexity"
	HintWorkload        = "hybrid_workload"
	HintUnikernelImage  = "hybrid_unikernel_image"
	HintUnikernelArgs   = "hybrid_unikernel_args"
	HintKernelArgs      = "hybrid_unikernel_kernel_args"
	HintUnikernelMemory = "hybrid_unikernel_memory"
	HintUnikernelGuest  = "hybrid_unikernel_guest"
	HintUnikernelInitrd = "hybrid_unikernel_initrd"
	HintUnikernelArch   = "hybrid_unikernel_arch"
	HintContainerImage  = "hybrid_container_image"
)

// Keys of meta that nomad-hybrid writes: the decision as it was made.
const (
	MetaDecision = "hybrid_decision"
	MetaScore    = "hybrid_score"
	MetaPolicy   = "hybrid_policy"
)

const hintPrefix = "hybrid_"

// Hint is one hint and the place it was read from.
type Hint struct {
	Value string
	// Level is "task", "group" or "job".
	Level string
}

// Hints are the hints that apply to one task: of each key the nearest.
type Hints map[string]Hint

// hintValues says what each hint may be. A nil check takes any text.
var hintValues = map[string]struct {
	want  string
	check func(p *Policy, v string) bool
}{
	HintRuntime:         {"auto, container or unikernel", oneOf("auto", "container", "unikernel")},
	HintComplexity:      {"low, medium, high, or a number from 0 to 100", isComplexity},
	HintWorkload:        {"", isWorkload},
	HintUnikernelImage:  {"an image reference or a path", notBlank},
	HintUnikernelArgs:   {"arguments as in a shell, or a JSON list of strings", isArgs},
	HintKernelArgs:      {"arguments as in a shell, or a JSON list of strings", isArgs},
	HintUnikernelMemory: {"a whole number of MiB, such as 32", isMemory},
	HintUnikernelGuest:  {"auto, unikraft, mirage, solo5 or linux", oneOf("auto", "unikraft", "mirage", "solo5", "linux")},
	HintUnikernelInitrd: {"a path or an image reference", notBlank},
	HintUnikernelArch:   {"arm64 or x86_64", oneOf("arm64", "x86_64")},
	HintContainerImage:  {"an image reference", notBlank},
}

// recorded are keys of ours that are not hints.
var recorded = []string{MetaDecision, MetaScore, MetaPolicy}

func oneOf(values ...string) func(*Policy, string) bool {
	return func(_ *Policy, v string) bool { return slices.Contains(values, v) }
}

func notBlank(_ *Policy, v string) bool { return strings.TrimSpace(v) != "" }

func isComplexity(p *Policy, v string) bool {
	_, ok := p.complexity(v)
	return ok
}

func isWorkload(p *Policy, v string) bool {
	_, ok := p.workload(v)
	return ok
}

func isMemory(_ *Policy, v string) bool {
	_, err := parseMemory(v)
	return err == nil
}

func isArgs(_ *Policy, v string) bool {
	_, err := parseArgs(v)
	return err == nil
}

// readHints collects the hints of a task from its own meta, its group's and
// the job's. An unknown hint or value is an error that says what would do.
func readHints(p *Policy, job *api.Job, group *api.TaskGroup, task *api.Task) (Hints, error) {
	hints := Hints{}
	var errs []error
	for _, level := range []struct {
		name string
		meta map[string]string
	}{{"job", job.Meta}, {"group", group.Meta}, {"task", task.Meta}} {
		for _, key := range slices.Sorted(maps.Keys(level.meta)) {
			if !strings.HasPrefix(key, hintPrefix) || slices.Contains(recorded, key) {
				continue
			}
			if err := checkHint(p, key, level.meta[key]); err != nil {
				errs = append(errs, fmt.Errorf("%s: meta %s: %w", place(level.name, job, group, task), key, err))
				continue
			}
			hints[key] = Hint{Value: level.meta[key], Level: level.name}
		}
	}
	return hints, errors.Join(errs...)
}

func checkHint(p *Policy, key, value string) error {
	rule, known := hintValues[key]
	if !known {
		return fmt.Errorf("there is no such hint%s; the hints are %s",
			didYouMean(key, slices.Sorted(maps.Keys(hintValues))), strings.Join(slices.Sorted(maps.Keys(hintValues)), ", "))
	}
	if rule.check(p, value) {
		return nil
	}
	want := rule.want
	if key == HintWorkload {
		kinds := p.workloadNames()
		want = fmt.Sprintf("a kind of the policy%s: %s", didYouMean(value, kinds), strings.Join(kinds, ", "))
	}
	return fmt.Errorf("%q will not do; give %s", value, want)
}

// didYouMean names the candidate that a misspelt word was probably meant to be.
func didYouMean(word string, candidates []string) string {
	best, distance := "", 4
	for _, c := range candidates {
		if d := levenshtein.Distance(word, c, nil); d < distance {
			best, distance = c, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", best)
}

// place names where a hint stands.
func place(level string, job *api.Job, group *api.TaskGroup, task *api.Task) string {
	switch level {
	case "job":
		return fmt.Sprintf("job %q", deref(job.ID))
	case "group":
		return fmt.Sprintf("job %q, group %q", deref(job.ID), deref(group.Name))
	default:
		return fmt.Sprintf("job %q, group %q, task %q", deref(job.ID), deref(group.Name), task.Name)
	}
}

// text returns a hint's value, "" where it was not given.
func (h Hints) text(key string) string { return h[key].Value }

// memory returns the unikernel's memory in MiB, if it was given.
func (h Hints) memory() (int, bool) {
	mib, err := parseMemory(h.text(HintUnikernelMemory))
	return mib, err == nil
}

// args returns a list of arguments, if it was given.
func (h Hints) args(key string) ([]string, bool) {
	hint, ok := h[key]
	if !ok {
		return nil, false
	}
	args, err := parseArgs(hint.Value)
	return args, err == nil
}

// describe tells a hint as people read it.
func (h Hints) describe(key string) string {
	return fmt.Sprintf("%s = %q (%s)", key, h[key].Value, h[key].Level)
}

// parseMemory reads a number of MiB, with or without the unit.
func parseMemory(s string) (int, error) {
	n, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(s, "MiB")))
	if err != nil || n < 1 || n > math.MaxInt32 {
		return 0, fmt.Errorf("%q is no number of MiB", s)
	}
	return n, nil
}

// parseArgs reads arguments: a JSON list of strings, else words split and
// quoted as in a POSIX shell, without expansion.
func parseArgs(s string) ([]string, error) {
	if strings.HasPrefix(strings.TrimSpace(s), "[") {
		args := []string{}
		err := json.Unmarshal([]byte(s), &args)
		return args, err
	}
	args, err := shellquote.Split(s)
	if args == nil {
		args = []string{}
	}
	return args, err
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
