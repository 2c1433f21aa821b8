// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package jobfile

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// text collects changes to an HCL source and makes them all at once. Only the
// ranges that change are written; hclwrite is not used for this because it
// turns tabs between tokens into spaces.
type text struct {
	src       []byte
	nl        string
	splices   []splice
	made      []splice // by bytes, in order
	added     map[*hclsyntax.Block]*addition
	unwrapped map[*hclsyntax.Block]bool
}

// splice replaces src[start:end].
type splice struct {
	start, end int
	with       string
}

// addition is what a block gets in addition: lines of attributes and blocks.
type addition struct {
	attrs  [][2]string // name, expression
	blocks []string    // indented with tabs, without the block's own indent
}

func newText(src []byte) *text {
	nl := "\n"
	if bytes.Contains(src, []byte("\r\n")) {
		nl = "\r\n"
	}
	return &text{
		src:       src,
		nl:        nl,
		added:     map[*hclsyntax.Block]*addition{},
		unwrapped: map[*hclsyntax.Block]bool{},
	}
}

// equal tells whether two sets of changes are the same.
func (t *text) equal(o *text) bool {
	return slices.Equal(t.splices, o.splices) && maps.Equal(t.unwrapped, o.unwrapped) &&
		maps.EqualFunc(t.added, o.added, func(a, b *addition) bool {
			return slices.Equal(a.attrs, b.attrs) && slices.Equal(a.blocks, b.blocks)
		})
}

// add takes over the changes of another text of the same source.
func (t *text) add(o *text) {
	t.splices = append(t.splices, o.splices...)
	maps.Copy(t.added, o.added)
	maps.Copy(t.unwrapped, o.unwrapped)
}

func (t *text) replace(start, end int, with string) {
	t.splices = append(t.splices, splice{start, end, with})
}

// setAttr gives an attribute a new expression, or adds it to the block.
func (t *text) setAttr(b *hclsyntax.Block, name, expr string) {
	if a := b.Body.Attributes[name]; a != nil {
		start := a.EqualsRange.End.Byte
		for start < a.SrcRange.End.Byte && (t.src[start] == ' ' || t.src[start] == '\t') {
			start++
		}
		t.replace(start, a.SrcRange.End.Byte, expr)
		return
	}
	add := t.addition(b)
	add.attrs = append(add.attrs, [2]string{name, expr})
}

// addBlock adds a block at the end of another.
func (t *text) addBlock(b *hclsyntax.Block, lines string) {
	add := t.addition(b)
	add.blocks = append(add.blocks, lines)
}

func (t *text) addition(b *hclsyntax.Block) *addition {
	if t.added[b] == nil {
		t.added[b] = &addition{}
	}
	return t.added[b]
}

// removeLines removes a range with the whole lines it stands on and a comment
// behind it; where other things stand on these lines, only the range.
func (t *text) removeLines(start, end int) {
	ls, le := t.lineStart(start), t.lineEnd(end)
	before := strings.TrimSpace(string(t.src[ls:start]))
	after := strings.TrimSpace(string(t.src[end:le]))
	if before == "" && isComment(after) {
		t.replace(ls, le, "")
		return
	}
	t.replace(start, end, "")
}

func isComment(s string) bool {
	return s == "" || strings.HasPrefix(s, "#") || strings.HasPrefix(s, "//") ||
		(strings.HasPrefix(s, "/*") && strings.Index(s, "*/") == len(s)-2)
}

// unwrapBlock removes a block's header and closing brace and moves its content
// out by one level.
func (t *text) unwrapBlock(b *hclsyntax.Block) {
	open, end := b.OpenBraceRange.End.Byte, b.CloseBraceRange.Start.Byte
	if t.sameLine(open, end) {
		inner := strings.TrimSpace(string(t.src[open:end]))
		if len(t.added) == 0 && inner == "" {
			t.removeLines(b.TypeRange.Start.Byte, b.CloseBraceRange.End.Byte)
			return
		}
		t.replace(b.TypeRange.Start.Byte, t.skipSpace(open), "")
		t.replace(t.skipSpaceBack(end), b.CloseBraceRange.End.Byte, "")
		t.unwrapped[b] = true
		return
	}
	t.replace(t.lineStart(b.TypeRange.Start.Byte), t.lineEnd(open), "")
	t.replace(t.lineStart(end), t.lineEnd(b.CloseBraceRange.End.Byte), "")
	t.unwrapped[b] = true
	t.dedent(t.lineEnd(open), t.lineStart(end), t.unit(b))
}

// dedent removes one level of indent from lines, unless one of them belongs to
// a string over several lines, whose content would change.
func (t *text) dedent(start, end int, unit string) {
	if bytes.Contains(t.src[start:end], []byte("<<")) || unit == "" {
		return
	}
	for at := start; at < end; at = t.lineEnd(at) {
		if strings.HasPrefix(string(t.src[at:end]), unit) {
			t.replace(at, at+len(unit), "")
		}
	}
}

// bytes makes the changes.
func (t *text) bytes() ([]byte, error) {
	all := slices.Clone(t.splices)
	for _, b := range t.addedInOrder() {
		all = append(all, t.additionSplices(b, t.added[b])...)
	}
	// Insertions come before what is replaced at the same place, and a long
	// deletion before those it covers, such as of the indent of its lines.
	slices.SortStableFunc(all, func(a, b splice) int {
		if a.start == b.start && (a.start == a.end) != (b.start == b.end) {
			return cmp.Compare(a.end, b.end)
		}
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(b.end, a.end))
	})
	var out bytes.Buffer
	at, deleted := 0, 0
	for _, s := range all {
		if s.with == "" && s.end <= deleted {
			continue
		}
		if s.start < at {
			return nil, fmt.Errorf("two changes meet at byte %d: %w", s.start, ErrNotEditable)
		}
		t.made = append(t.made, s)
		out.Write(t.src[at:s.start])
		out.WriteString(s.with)
		at = s.end
		if s.with == "" {
			deleted = s.end
		}
	}
	out.Write(t.src[at:])
	return out.Bytes(), nil
}

// moved says where spans of the source, given in order, are in what bytes has
// made.
func (t *text) moved(spans []span) []span {
	next, by := 0, 0
	shift := func(at int) int {
		for ; next < len(t.made) && t.made[next].end <= at; next++ {
			by += len(t.made[next].with) - (t.made[next].end - t.made[next].start)
		}
		return at + by
	}
	out := make([]span, len(spans))
	for i, s := range spans {
		out[i] = span{shift(s.start), shift(s.end)}
	}
	return out
}

func (t *text) addedInOrder() []*hclsyntax.Block {
	return slices.SortedFunc(maps.Keys(t.added), func(a, b *hclsyntax.Block) int {
		return cmp.Compare(a.OpenBraceRange.Start.Byte, b.OpenBraceRange.Start.Byte)
	})
}

// additionSplices says where additions go: attributes behind the last
// attribute, aligned with it; blocks at the end.
func (t *text) additionSplices(b *hclsyntax.Block, add *addition) []splice {
	indent, unit := t.childIndent(b), t.unit(b)
	open, end := b.OpenBraceRange.End.Byte, b.CloseBraceRange.Start.Byte
	attrs := t.attrLines(b, add.attrs, indent)
	blocks := t.blockLines(add.blocks, indent, unit)
	if t.sameLine(open, end) {
		return t.breakOpen(b, indent, attrs+blocks)
	}
	out := []splice{}
	if attrs != "" {
		at := t.lineEnd(open)
		if last := lastAttr(b); last != nil {
			at = t.lineEnd(last.SrcRange.End.Byte)
		}
		out = append(out, splice{at, at, attrs})
	}
	if blocks != "" {
		at := t.lineStart(end)
		if !t.emptyBefore(at, open) {
			blocks = t.nl + blocks
		}
		out = append(out, splice{at, at, blocks})
	}
	return out
}

// breakOpen turns a block on one line into one on several, with more content.
func (t *text) breakOpen(b *hclsyntax.Block, indent, content string) []splice {
	open, end := b.OpenBraceRange.End.Byte, b.CloseBraceRange.Start.Byte
	if t.unwrapped[b] {
		at := b.CloseBraceRange.End.Byte
		return []splice{{at, at, strings.TrimSuffix(t.nl+content, t.nl)}}
	}
	outer := t.indentAt(b.TypeRange.Start.Byte)
	from, to := t.skipSpace(open), t.skipSpaceBack(end)
	if from >= to { // nothing inside
		return []splice{{open, end, t.nl + content + outer}}
	}
	return []splice{
		{open, from, t.nl + indent},
		{to, end, t.nl + content + outer},
	}
}

func (t *text) attrLines(b *hclsyntax.Block, attrs [][2]string, indent string) string {
	width := 0
	if last := lastAttr(b); last != nil {
		width = last.EqualsRange.Start.Byte - last.NameRange.Start.Byte - 1
	} else {
		for _, a := range attrs {
			width = max(width, len(a[0]))
		}
	}
	var out strings.Builder
	for _, a := range attrs {
		fmt.Fprintf(&out, "%s%-*s = %s%s", indent, width, a[0], a[1], t.nl)
	}
	return out.String()
}

func (t *text) blockLines(blocks []string, indent, unit string) string {
	var out strings.Builder
	for i, block := range blocks {
		if i > 0 {
			out.WriteString(t.nl)
		}
		for line := range strings.SplitSeq(block, "\n") {
			rest := strings.TrimLeft(line, "\t")
			out.WriteString(indent + strings.Repeat(unit, len(line)-len(rest)) + rest + t.nl)
		}
	}
	return out.String()
}

// addToObject adds items to an object expression.
func (t *text) addToObject(o *hclsyntax.ObjectConsExpr, items []string) {
	end := o.SrcRange.End.Byte - 1
	if len(o.Items) == 0 {
		t.replace(end, end, " "+strings.Join(items, ", ")+" ")
		return
	}
	last := o.Items[len(o.Items)-1]
	ls := t.lineStart(end)
	if strings.TrimSpace(string(t.src[ls:end])) != "" {
		at := last.ValueExpr.Range().End.Byte
		t.replace(at, at, ", "+strings.Join(items, ", "))
		return
	}
	indent := t.indentAt(last.KeyExpr.Range().Start.Byte)
	t.replace(ls, ls, indent+strings.Join(items, t.nl+indent)+t.nl)
}

func lastAttr(b *hclsyntax.Block) *hclsyntax.Attribute {
	var last *hclsyntax.Attribute
	for _, a := range b.Body.Attributes {
		if last == nil || a.SrcRange.Start.Byte > last.SrcRange.Start.Byte {
			last = a
		}
	}
	return last
}
