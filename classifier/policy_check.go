// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package classifier

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// validate checks what the schema cannot: each complaint names line and
// column, the value, and what would do.
func (p *Policy) validate(body *hclsyntax.Body) hcl.Diagnostics {
	v := &policyCheck{body: body}
	v.name(p)
	v.required(p)
	if v.diags.HasErrors() {
		return v.diags
	}
	v.thresholds(p.Thresholds, v.block("thresholds", ""))
	v.complexity(p.Complexity)
	if p.Memory.JITFloor < 0 {
		v.fail(v.block("memory", ""), "jit_floor", "memory.jit_floor is negative; give MiB, or 0 for no floor")
	}
	v.scales(p)
	v.tables(p)
	v.weights(p, p.Weights, v.block("weights", ""))
	v.workloads(p)
	v.catalog(p)
	v.overrides(p)
	return v.diags
}

type policyCheck struct {
	body  *hclsyntax.Body
	diags hcl.Diagnostics
}

// block finds a block by type and label, for its place.
func (v *policyCheck) block(kind, label string) *hclsyntax.Block {
	for _, b := range v.body.Blocks {
		if b.Type == kind && (label == "" || (len(b.Labels) > 0 && b.Labels[0] == label)) {
			return b
		}
	}
	return nil
}

// fail adds a complaint about an attribute of a block, or the block itself.
func (v *policyCheck) fail(b *hclsyntax.Block, attr, format string, args ...any) {
	r := v.body.MissingItemRange()
	if b != nil {
		r = b.DefRange()
		if a := b.Body.Attributes[attr]; a != nil {
			r = a.Expr.Range()
		}
	}
	v.diags = append(v.diags, &hcl.Diagnostic{
		Severity: hcl.DiagError, Summary: "Wrong policy", Detail: fmt.Sprintf(format, args...), Subject: &r,
	})
}

func (v *policyCheck) name(p *Policy) {
	if p.Name != "" && !strings.ContainsAny(p.Name, "/ \t\n$%\"") {
		return
	}
	r := v.body.MissingItemRange()
	if a := v.body.Attributes["name"]; a != nil {
		r = a.Expr.Range()
	}
	v.diags = append(v.diags, &hcl.Diagnostic{
		Severity: hcl.DiagError, Summary: "Wrong policy", Subject: &r,
		Detail: fmt.Sprintf("name %q will not do; give one word, such as edge", p.Name),
	})
}

func (v *policyCheck) required(p *Policy) {
	for _, b := range []struct {
		name    string
		missing bool
	}{
		{"thresholds", p.Thresholds == nil}, {"weights", p.Weights == nil},
		{"complexity", p.Complexity == nil}, {"memory", p.Memory == nil},
	} {
		if b.missing {
			v.fail(nil, "", "the block %s is missing; copy it from what `nomad-hybrid policy` prints", b.name)
		}
	}
}

func (v *policyCheck) thresholds(t *Thresholds, b *hclsyntax.Block) {
	v.percent(b, "unikernel", t.Unikernel)
	v.percent(b, "container", t.Container)
	if t.Unikernel >= t.Container {
		v.fail(b, "unikernel", "unikernel = %d is not below container = %d; a score at or below the one is a "+
			"unikernel, at or above the other a container, and between them nothing flips", t.Unikernel, t.Container)
	}
	if t.Evidence < 0 {
		v.fail(b, "evidence", "evidence = %d is negative; give a sum of weights, or 0 to decide on anything", t.Evidence)
	}
}

func (v *policyCheck) percent(b *hclsyntax.Block, attr string, n int) {
	if n < 0 || n > 100 {
		v.fail(b, attr, "%s = %d is not between 0 and 100", attr, n)
	}
}

// weights are by signal. One that counts must have a score to count by.
func (v *policyCheck) weights(p *Policy, w *Figures, b *hclsyntax.Block) {
	for _, name := range slices.Sorted(maps.Keys(w.Values)) {
		i := slices.IndexFunc(signalKinds, func(k signalKind) bool { return k.name == name })
		switch n := w.Values[name]; {
		case i < 0:
			v.fail(b, name, "there is no signal %q%s; the signals are %s", name, didYouMean(name, signalNames()), strings.Join(signalNames(), ", "))
		case n < 0:
			v.fail(b, name, "%s = %d is negative; give 0 to switch a signal off", name, n)
		case n > 0:
			v.scored(p, signalKinds[i], b)
		}
	}
}

// scored complains of a signal that has a weight and no score.
func (v *policyCheck) scored(p *Policy, k signalKind, b *hclsyntax.Block) {
	missing := ""
	switch k.by {
	case "scale":
		if _, ok := p.scale(k.name, 0); !ok && !slices.ContainsFunc(p.Scales, func(s *Scale) bool { return s.Name == k.name }) {
			missing = fmt.Sprintf("the block scale %q", k.name)
		}
	case "scores":
		if !slices.ContainsFunc(p.Tables, func(t *Table) bool { return t.Name == k.name }) {
			missing = fmt.Sprintf("the block scores %q", k.name)
		}
	case "found":
		if _, ok := p.score("found", k.name); !ok {
			missing = fmt.Sprintf("%s in the block scores \"found\"", k.name)
		}
	}
	if missing != "" {
		v.fail(b, k.name, "%s has a weight, but %s is missing; copy it from what `nomad-hybrid policy` prints, or give the weight 0", k.name, missing)
	}
}

// tables are the scores of what is no figure.
func (v *policyCheck) tables(p *Policy) {
	known := []string{"found"}
	var found []string
	for _, k := range signalKinds {
		switch k.by {
		case "scores":
			known = append(known, k.name)
		case "found":
			found = append(found, k.name)
		}
	}
	slices.Sort(known)
	seen := map[string]bool{}
	for _, t := range p.Tables {
		b := v.block("scores", t.Name)
		if !slices.Contains(known, t.Name) {
			v.fail(b, "", "there are no scores %q%s; there are %s", t.Name, didYouMean(t.Name, known), strings.Join(known, ", "))
		}
		if seen[t.Name] {
			v.fail(b, "", "scores %q are given twice; keep one", t.Name)
		}
		seen[t.Name] = true
		for _, name := range slices.Sorted(maps.Keys(t.Values)) {
			v.percent(b, name, t.Values[name])
			if t.Name == "found" && !slices.Contains(found, name) {
				v.fail(b, name, "no signal %q is found or not%s; those are %s", name, didYouMean(name, found), strings.Join(found, ", "))
			}
		}
	}
}

func (v *policyCheck) complexity(c *Complexity) {
	b := v.block("complexity", "")
	v.percent(b, "low", c.Low)
	v.percent(b, "medium", c.Medium)
	v.percent(b, "high", c.High)
	if c.Low > c.Medium || c.Medium > c.High {
		v.fail(b, "medium", "low = %d, medium = %d, high = %d do not rise", c.Low, c.Medium, c.High)
	}
}

// knownScales names the scales, sorted, and those in which more must mean
// heavier: only then is a decision monotone in that figure. Many instances gain
// most from small ones, and the cluster's circumstances may speak either way.
func knownScales() (names []string, rising map[string]bool) {
	rising = map[string]bool{}
	for _, k := range signalKinds {
		if k.by == "scale" {
			names = append(names, k.name)
			rising[k.name] = k.nature != Circumstance && k.name != "count"
		}
	}
	slices.Sort(names)
	return names, rising
}

func (v *policyCheck) scales(p *Policy) {
	seen := map[string]bool{}
	for _, s := range p.Scales {
		b := v.block("scale", s.Name)
		names, rising := knownScales()
		switch {
		case !slices.Contains(names, s.Name):
			v.fail(b, "", "there is no scale %q%s; the scales are %s", s.Name, didYouMean(s.Name, names), strings.Join(names, ", "))
		case seen[s.Name]:
			v.fail(b, "", "scale %q is given twice; keep one", s.Name)
		default:
			v.points(b, s, rising[s.Name])
		}
		seen[s.Name] = true
	}
}

func (v *policyCheck) points(b *hclsyntax.Block, s *Scale, rising bool) {
	if len(s.Points) == 0 {
		v.fail(b, "points", "points of scale %q are empty; give at least one, such as [100, 50]", s.Name)
	}
	for i, pt := range s.Points {
		if len(pt) != 2 {
			v.fail(b, "points", "point %d of scale %q is not a pair of figure and score", i+1, s.Name)
			return
		}
		if pt[1] < 0 || pt[1] > 100 {
			v.fail(b, "points", "score %g of scale %q is not between 0 and 100", pt[1], s.Name)
		}
		if i == 0 {
			continue
		}
		before := s.Points[i-1]
		if pt[0] <= before[0] {
			v.fail(b, "points", "figures of scale %q must rise: %g comes after %g", s.Name, pt[0], before[0])
		}
		if rising && pt[1] < before[1] {
			v.fail(b, "points", "scores of scale %q must not fall (%g after %g): more never makes a task lighter", s.Name, pt[1], before[1])
		}
	}
}

func (v *policyCheck) workloads(p *Policy) {
	seen := map[string]bool{}
	for _, w := range p.Workloads {
		b := v.block("workload", w.Name)
		v.percent(b, "score", w.Score)
		if seen[w.Name] {
			v.fail(b, "", "workload %q is given twice; keep one", w.Name)
		}
		seen[w.Name] = true
	}
}

func (v *policyCheck) catalog(p *Policy) {
	for _, e := range p.Catalog {
		b := v.block("catalog", e.Container)
		if strings.TrimSpace(e.Unikernel) == "" {
			v.fail(b, "unikernel", "unikernel of catalog %q is empty; give an image reference or a path", e.Container)
		}
		if e.Guest != "" && checkHint(p, HintUnikernelGuest, e.Guest) != nil {
			v.fail(b, "guest", "guest %q will not do; give %s", e.Guest, hintValues[HintUnikernelGuest].want)
		}
		for _, a := range e.Arch {
			if checkHint(p, HintUnikernelArch, a) != nil {
				v.fail(b, "arch", "arch %q will not do; give %s", a, hintValues[HintUnikernelArch].want)
			}
		}
		if e.MemoryMiB < 0 {
			v.fail(b, "memory", "memory = %d is negative; give MiB", e.MemoryMiB)
		}
	}
}

func (v *policyCheck) overrides(p *Policy) {
	i := 0
	for _, b := range v.body.Blocks {
		if b.Type != "override" {
			continue
		}
		o := p.Overrides[i]
		i++
		if o.Namespace == "" && o.NodePool == "" {
			v.fail(b, "", "an override names a namespace, a node_pool or both")
		}
		for _, inner := range b.Body.Blocks {
			if inner.Type == "thresholds" {
				v.thresholds(o.Thresholds.over(p.Thresholds), inner)
			} else if inner.Type == "weights" {
				v.weights(p, o.Weights, inner)
			}
		}
	}
}
