// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package classifier

import (
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// DefaultPolicy is the policy that holds where none is given, with comments.
//
//go:embed policy_default.hcl
var DefaultPolicy []byte

// Policy is what an operator sets: how much each signal counts, where the
// borders are, and which unikernel stands for which container image.
type Policy struct {
	Name       string      `hcl:"name"`
	Thresholds *Thresholds `hcl:"thresholds,block"`
	Weights    *Figures    `hcl:"weights,block"`
	Complexity *Complexity `hcl:"complexity,block"`
	Memory     *MemoryRule `hcl:"memory,block"`
	Scales     []*Scale    `hcl:"scale,block"`
	Tables     []*Table    `hcl:"scores,block"`
	Workloads  []*Workload `hcl:"workload,block"`
	Catalog    []*Entry    `hcl:"catalog,block"`
	Overrides  []*Override `hcl:"override,block"`

	hash string
}

// Thresholds are the borders of the score. Between them a task keeps what was
// decided for it before; without an earlier decision it stays undecided.
type Thresholds struct {
	Unikernel int `hcl:"unikernel"`
	Container int `hcl:"container"`
	Evidence  int `hcl:"evidence"`
}

// Figures are whole numbers by name: weights by signal, or scores by kind.
type Figures struct {
	Attrs  hcl.Attributes `hcl:",remain" json:"-"`
	Values map[string]int
}

// Table gives the scores of a signal that is no figure: a score for each value
// that it can have.
type Table struct {
	Name   string         `hcl:"name,label"`
	Attrs  hcl.Attributes `hcl:",remain" json:"-"`
	Values map[string]int
}

// Complexity gives the scores of hybrid_complexity's words.
type Complexity struct {
	Low    int `hcl:"low"`
	Medium int `hcl:"medium"`
	High   int `hcl:"high"`
}

// MemoryRule holds limits in MiB.
type MemoryRule struct {
	// JITFloor: below it an application with a just-in-time compiler stays a
	// container.
	JITFloor int `hcl:"jit_floor"`
}

// Scale turns a figure into a score: straight lines between the points.
type Scale struct {
	Name   string      `hcl:"name,label"`
	Points [][]float64 `hcl:"points"`
}

// Workload is a kind of application and its score.
type Workload struct {
	Name  string   `hcl:"name,label"`
	Score int      `hcl:"score"`
	Finds []string `hcl:"finds,optional"`
}

// Entry of the catalog: the unikernel that serves as a container image does.
type Entry struct {
	Container string   `hcl:"container,label"`
	Unikernel string   `hcl:"unikernel"`
	Guest     string   `hcl:"guest,optional"`
	Initrd    string   `hcl:"initrd,optional"`
	Arch      []string `hcl:"arch,optional"`
	MemoryMiB int      `hcl:"memory,optional"`
}

// Override changes thresholds and weights for some jobs. What it leaves out
// stays as the policy says.
type Override struct {
	Namespace  string          `hcl:"namespace,optional"`
	NodePool   string          `hcl:"node_pool,optional"`
	Thresholds *SomeThresholds `hcl:"thresholds,block"`
	Weights    *Figures        `hcl:"weights,block"`
}

// SomeThresholds are those that an override changes.
type SomeThresholds struct {
	Unikernel *int `hcl:"unikernel,optional"`
	Container *int `hcl:"container,optional"`
	Evidence  *int `hcl:"evidence,optional"`
}

// over returns the thresholds with some changed.
func (t *SomeThresholds) over(base *Thresholds) *Thresholds {
	out := *base
	if t == nil {
		return &out
	}
	for _, set := range []struct{ to, value *int }{
		{&out.Unikernel, t.Unikernel}, {&out.Container, t.Container}, {&out.Evidence, t.Evidence},
	} {
		if set.value != nil {
			*set.to = *set.value
		}
	}
	return &out
}

// ParsePolicy reads a policy. Errors name file, line and column, each on a line.
func ParsePolicy(src []byte, path string) (*Policy, error) {
	file, diags := hclsyntax.ParseConfig(src, path, hcl.InitialPos)
	if diags.HasErrors() {
		return nil, complaints(diags)
	}
	p := &Policy{}
	if diags := (&gohcl.Decoder{}).DecodeBody(file.Body, nil, p); diags.HasErrors() {
		return nil, complaints(diags)
	}
	if diags := p.readFigures(); diags.HasErrors() {
		return nil, complaints(diags)
	}
	if diags := p.validate(file.Body.(*hclsyntax.Body)); diags.HasErrors() {
		return nil, complaints(diags)
	}
	raw, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	p.hash = fmt.Sprintf("%x", sha256.Sum256(raw))[:8]
	return p, nil
}

// complaints tells all that is wrong, not only the first.
func complaints(diags hcl.Diagnostics) error {
	var errs []error
	for _, d := range diags {
		errs = append(errs, d)
	}
	return errors.Join(errs...)
}

// Default returns the built-in policy.
func Default() *Policy {
	p, err := ParsePolicy(DefaultPolicy, "default policy")
	if err != nil {
		panic(err) // the embedded file is ours, and a test parses it
	}
	return p
}

// ID names the policy and its content: what was decided by it is recorded
// with this.
func (p *Policy) ID() string { return p.Name + "/" + p.hash }

// For returns the policy for a job: with every override whose namespace and
// node pool fit, in order. "" stands for the default ones.
func (p *Policy) For(namespace, nodePool string) *Policy {
	namespace, nodePool = cmp.Or(namespace, "default"), cmp.Or(nodePool, "default")
	out := *p
	for _, o := range p.Overrides {
		if (o.Namespace != "" && o.Namespace != namespace) || (o.NodePool != "" && o.NodePool != nodePool) {
			continue
		}
		out.Thresholds = o.Thresholds.over(out.Thresholds)
		if o.Weights != nil {
			weights := maps.Clone(out.Weights.Values)
			maps.Copy(weights, o.Weights.Values)
			out.Weights = &Figures{Values: weights}
		}
	}
	return &out
}

// readFigures evaluates the blocks whose attributes are named by signals and
// kinds.
func (p *Policy) readFigures() hcl.Diagnostics {
	var diags hcl.Diagnostics
	read := func(attrs hcl.Attributes) map[string]int {
		values := map[string]int{}
		for name, a := range attrs {
			var n int
			diags = append(diags, gohcl.DecodeExpression(a.Expr, nil, &n)...)
			values[name] = n
		}
		return values
	}
	if p.Weights != nil {
		p.Weights.Values = read(p.Weights.Attrs)
	}
	for _, t := range p.Tables {
		t.Values = read(t.Attrs)
	}
	for _, o := range p.Overrides {
		if o.Weights != nil {
			o.Weights.Values = read(o.Weights.Attrs)
		}
	}
	return diags
}

// weight is how much a signal counts; 0: not at all.
func (p *Policy) weight(name string) int { return p.Weights.Values[name] }

// score is what a table says of a kind.
func (p *Policy) score(table, kind string) (float64, bool) {
	i := slices.IndexFunc(p.Tables, func(t *Table) bool { return t.Name == table })
	if i < 0 {
		return 0, false
	}
	n, ok := p.Tables[i].Values[kind]
	return float64(n), ok
}

// complexity turns the value of hybrid_complexity into a score.
func (p *Policy) complexity(v string) (float64, bool) {
	switch v {
	case "low":
		return float64(p.Complexity.Low), true
	case "medium":
		return float64(p.Complexity.Medium), true
	case "high":
		return float64(p.Complexity.High), true
	}
	n, err := strconv.ParseFloat(v, 64)
	return n, err == nil && n >= 0 && n <= 100 && !math.IsNaN(n)
}

func (p *Policy) workload(name string) (*Workload, bool) {
	i := slices.IndexFunc(p.Workloads, func(w *Workload) bool { return w.Name == name })
	if i < 0 {
		return nil, false
	}
	return p.Workloads[i], true
}

func (p *Policy) workloadNames() []string {
	names := make([]string, len(p.Workloads))
	for i, w := range p.Workloads {
		names[i] = w.Name
	}
	slices.Sort(names)
	return names
}

// scale turns a figure into a score by the policy's points.
func (p *Policy) scale(name string, figure float64) (float64, bool) {
	i := slices.IndexFunc(p.Scales, func(s *Scale) bool { return s.Name == name })
	if i < 0 {
		return 0, false
	}
	points := p.Scales[i].Points
	if figure <= points[0][0] {
		return points[0][1], true
	}
	for j := 1; j < len(points); j++ {
		a, b := points[j-1], points[j]
		if figure <= b[0] {
			return a[1] + (b[1]-a[1])*(figure-a[0])/(b[0]-a[0]), true
		}
	}
	return points[len(points)-1][1], true
}

// lookup finds the catalog's entry for a container image: the first whose
// pattern fits.
func (p *Policy) lookup(image string) *Entry {
	for _, e := range p.Catalog {
		if matchImage(e.Container, image) {
			return e
		}
	}
	return nil
}

// matchImage matches an image reference against a pattern in which * stands
// for any text. Docker Hub's short names are the same as their long ones, and
// an image without a tag is :latest.
func matchImage(pattern, image string) bool {
	return wildcard(normalImage(pattern), normalImage(image))
}

func normalImage(ref string) string {
	for _, prefix := range []string{"docker://", "https://", "index.docker.io/", "docker.io/", "library/"} {
		ref = strings.TrimPrefix(ref, prefix)
	}
	last := ref[strings.LastIndex(ref, "/")+1:]
	if !strings.ContainsAny(last, ":@*") {
		ref += ":latest"
	}
	return ref
}

func wildcard(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == s
	}
	if !strings.HasPrefix(s, parts[0]) {
		return false
	}
	s = s[len(parts[0]):]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s = s[i+len(part):]
	}
	return strings.HasSuffix(s, parts[len(parts)-1])
}
