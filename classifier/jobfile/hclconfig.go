// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package jobfile

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// editConfig unwraps and changes the config block of a site.
func (ed *hclEditor) editConfig(t *text, s *site, e Edit) error {
	if e.Unwrap == "" && len(e.Config) == 0 {
		return nil
	}
	config, err := single(s.task, "config")
	if err != nil {
		return err
	}
	if config == nil {
		return ed.newConfig(t, s, e)
	}
	target := config
	if e.Unwrap != "" {
		if target, err = unwrap(t, config, e.Unwrap); err != nil {
			return err
		}
	}
	for _, c := range e.Config {
		if err := ed.changeKey(t, s, target, c); err != nil {
			return err
		}
	}
	return nil
}

func (ed *hclEditor) newConfig(t *text, s *site, e Edit) error {
	if e.Unwrap != "" {
		return fmt.Errorf("there is no config block: %w", ErrNotEditable)
	}
	lines := []string{"config {"}
	for _, c := range e.Config {
		if c.Remove {
			continue
		}
		value, err := ed.expression(s, c)
		if err != nil {
			return err
		}
		lines = append(lines, "\t"+c.Key+" = "+value)
	}
	t.addBlock(s.task, strings.Join(append(lines, "}"), "\n"))
	return nil
}

// unwrap leaves only the content of one block inside config and returns the
// block whose body is to be edited further.
func unwrap(t *text, config *hclsyntax.Block, name string) (*hclsyntax.Block, error) {
	inner, err := single(config, name)
	if err != nil {
		return nil, err
	}
	if inner == nil {
		return nil, fmt.Errorf("config has no block %q: %w", name, ErrNotEditable)
	}
	if t.sameLine(config.OpenBraceRange.Start.Byte, config.CloseBraceRange.Start.Byte) {
		return nil, fmt.Errorf("config stands on one line; give each block in it its own lines: %w", ErrNotEditable)
	}
	for _, b := range config.Body.Blocks {
		if b != inner {
			t.removeLines(b.TypeRange.Start.Byte, b.CloseBraceRange.End.Byte)
		}
	}
	t.unwrapBlock(inner)
	return inner, nil
}

// changeKey sets or removes one key of config.
func (ed *hclEditor) changeKey(t *text, s *site, config *hclsyntax.Block, c ConfigChange) error {
	attr := config.Body.Attributes[c.Key]
	blocks, err := blocksNamed(config, c.Key)
	if err != nil {
		return err
	}
	if c.Remove {
		return removeKey(t, config, attr, blocks, c.Key)
	}
	if list, ok := c.Value.([]map[string]any); ok {
		if attr != nil || len(blocks) > 0 {
			if err := removeKey(t, config, attr, blocks, c.Key); err != nil {
				return err
			}
		}
		return addConfigBlocks(t, config, c.Key, list)
	}
	if len(blocks) > 0 {
		return fmt.Errorf("%s: config.%s is a block where a value is to be set: %w",
			blocks[0].DefRange(), c.Key, ErrNotEditable)
	}
	value, err := ed.expression(s, c)
	if err != nil {
		return err
	}
	t.setAttr(config, c.Key, value)
	return nil
}

func blocksNamed(config *hclsyntax.Block, key string) ([]*hclsyntax.Block, error) {
	var found []*hclsyntax.Block
	for _, b := range config.Body.Blocks {
		if b.Type == "dynamic" && len(b.Labels) == 1 && b.Labels[0] == key {
			return nil, fmt.Errorf("%s: config.%s is made by a dynamic block: %w", b.DefRange(), key, ErrNotEditable)
		}
		if b.Type == key {
			found = append(found, b)
		}
	}
	return found, nil
}

func removeKey(t *text, config *hclsyntax.Block, attr *hclsyntax.Attribute, blocks []*hclsyntax.Block, key string) error {
	if attr == nil && len(blocks) == 0 {
		return fmt.Errorf("config.%s is not written as a key of the config block: %w", key, ErrNotEditable)
	}
	if attr != nil {
		t.removeLines(attr.SrcRange.Start.Byte, attr.SrcRange.End.Byte)
	}
	for _, b := range blocks {
		t.removeLines(b.TypeRange.Start.Byte, b.CloseBraceRange.End.Byte)
	}
	return nil
}

func addConfigBlocks(t *text, config *hclsyntax.Block, key string, list []map[string]any) error {
	for _, m := range list {
		lines, width := []string{key + " {"}, 0
		for k := range m {
			width = max(width, len(k))
		}
		for _, k := range sortedKeys(m) {
			v, err := literal(m[k])
			if err != nil {
				return err
			}
			lines = append(lines, fmt.Sprintf("\t%-*s = %s", width, k, v))
		}
		t.addBlock(config, strings.Join(append(lines, "}"), "\n"))
	}
	return nil
}

// expression is the HCL of a new value: the author's own expression where the
// value is a hint taken as it is, else the value as a literal.
func (ed *hclEditor) expression(s *site, c ConfigChange) (string, error) {
	if c.Hint != "" {
		if src, ok := ed.hintSource(s, c.Hint); ok {
			return src, nil
		}
	}
	return literal(c.Value)
}

// hintSource finds the expression of a meta key, nearest first. Only a string
// template or a reference on one line is worth keeping.
func (ed *hclEditor) hintSource(s *site, key string) (string, bool) {
	for _, scope := range s.scopes {
		expr, found := metaExpr(scope, key)
		if !found {
			continue
		}
		switch expr.(type) {
		case *hclsyntax.TemplateExpr, *hclsyntax.TemplateWrapExpr, *hclsyntax.ScopeTraversalExpr:
		default:
			return "", false
		}
		r := expr.Range()
		src := string(ed.f.Source[r.Start.Byte:r.End.Byte])
		return src, !strings.Contains(src, "\n")
	}
	return "", false
}

// metaExpr finds a key in a block's meta, written as a block or as an object.
func metaExpr(scope *hclsyntax.Block, key string) (hclsyntax.Expression, bool) {
	for _, b := range scope.Body.Blocks {
		if b.Type != "meta" {
			continue
		}
		if a := b.Body.Attributes[key]; a != nil {
			return a.Expr, true
		}
	}
	attr := scope.Body.Attributes["meta"]
	if attr == nil {
		return nil, false
	}
	object, ok := attr.Expr.(*hclsyntax.ObjectConsExpr)
	if !ok {
		return nil, false
	}
	if item := objectItem(object, key); item != nil {
		return item.ValueExpr, true
	}
	return nil, false
}

func objectItem(object *hclsyntax.ObjectConsExpr, key string) *hclsyntax.ObjectConsItem {
	for i := range object.Items {
		k, diags := object.Items[i].KeyExpr.Value(nil)
		if !diags.HasErrors() && k.IsKnown() && !k.IsNull() && k.Type() == cty.String && k.AsString() == key {
			return &object.Items[i]
		}
	}
	return nil
}

// editMeta sets keys in the task's own meta, in whichever way it is written.
func (ed *hclEditor) editMeta(t *text, s *site, e Edit) error {
	if len(e.Meta) == 0 {
		return nil
	}
	if attr := s.task.Body.Attributes["meta"]; attr != nil {
		return editMetaAttr(t, attr, e.Meta)
	}
	meta, err := single(s.task, "meta")
	if err != nil {
		return err
	}
	if meta == nil {
		t.addBlock(s.task, "meta {\n"+metaLines(e.Meta)+"}")
		return nil
	}
	for _, p := range e.Meta {
		t.setAttr(meta, p.Key, quote(p.Value))
	}
	return nil
}

// editMetaAttr handles `meta = …`: an object gets the new items; anything else
// is merged with them by Nomad's merge function.
func editMetaAttr(t *text, attr *hclsyntax.Attribute, pairs []Pair) error {
	object, isObject := attr.Expr.(*hclsyntax.ObjectConsExpr)
	var added []string
	for _, p := range pairs {
		if isObject {
			if item := objectItem(object, p.Key); item != nil {
				r := item.ValueExpr.Range()
				t.replace(r.Start.Byte, r.End.Byte, quote(p.Value))
				continue
			}
		}
		added = append(added, p.Key+" = "+quote(p.Value))
	}
	if len(added) == 0 {
		return nil
	}
	r := attr.Expr.Range()
	if isObject {
		t.addToObject(object, added)
		return nil
	}
	t.replace(r.Start.Byte, r.Start.Byte, "merge(")
	t.replace(r.End.Byte, r.End.Byte, ", { "+strings.Join(added, ", ")+" })")
	return nil
}

func metaLines(pairs []Pair) string {
	width := 0
	for _, p := range pairs {
		width = max(width, len(p.Key))
	}
	var b strings.Builder
	for _, p := range pairs {
		fmt.Fprintf(&b, "\t%-*s = %s\n", width, p.Key, quote(p.Value))
	}
	return b.String()
}

// literal writes a value as HCL. References to the node and the task, ${…},
// are escaped where HCL would evaluate them and reach Nomad as they are.
func literal(v any) (string, error) {
	val, err := ctyValue(v)
	if err != nil {
		return "", err
	}
	return string(hclwrite.TokensForValue(val).Bytes()), nil
}

// quote writes a string as HCL.
func quote(s string) string {
	return string(hclwrite.TokensForValue(cty.StringVal(s)).Bytes())
}

func ctyValue(v any) (cty.Value, error) {
	switch v := v.(type) {
	case string:
		return cty.StringVal(v), nil
	case bool:
		return cty.BoolVal(v), nil
	case int:
		return cty.NumberIntVal(int64(v)), nil
	case float64:
		return cty.NumberFloatVal(v), nil
	case []string:
		items := make([]cty.Value, len(v))
		for i, s := range v {
			items[i] = cty.StringVal(s)
		}
		return cty.TupleVal(items), nil
	default:
		return cty.NilVal, fmt.Errorf("a %T cannot be written as HCL", v)
	}
}
