// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package jobfile

import (
	"bytes"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Lines and indents of a source, by byte offset.

func (t *text) sameLine(from, to int) bool { return !bytes.Contains(t.src[from:to], []byte("\n")) }

func (t *text) lineStart(at int) int { return bytes.LastIndexByte(t.src[:at], '\n') + 1 }

// lineEnd is the offset behind the line's newline.
func (t *text) lineEnd(at int) int {
	i := bytes.IndexByte(t.src[at:], '\n')
	if i < 0 {
		return len(t.src)
	}
	return at + i + 1
}

// indentAt is the white space at the start of the line of an offset.
func (t *text) indentAt(at int) string {
	line := t.src[t.lineStart(at):t.lineEnd(at)]
	return string(line[:len(line)-len(bytes.TrimLeft(line, " \t"))])
}

func (t *text) skipSpace(at int) int {
	for at < len(t.src) && (t.src[at] == ' ' || t.src[at] == '\t') {
		at++
	}
	return at
}

func (t *text) skipSpaceBack(at int) int {
	for at > 0 && (t.src[at-1] == ' ' || t.src[at-1] == '\t') {
		at--
	}
	return at
}

// emptyBefore tells whether the line before an offset is blank or is the line
// of the opening brace.
func (t *text) emptyBefore(at, open int) bool {
	if at == 0 || t.lineStart(at-1) <= open {
		return true
	}
	return len(bytes.TrimSpace(t.src[t.lineStart(at-1):at])) == 0
}

// childIndent is the indent of a block's content: of its first item where that
// stands on a line of its own, else one level more than the block's.
func (t *text) childIndent(b *hclsyntax.Block) string {
	outer := t.indentAt(b.TypeRange.Start.Byte)
	if t.unwrapped[b] {
		return outer
	}
	return outer + t.unit(b)
}

// unit is one level of indent, as the block's content shows it.
func (t *text) unit(b *hclsyntax.Block) string {
	outer := t.indentAt(b.TypeRange.Start.Byte)
	if first := firstItem(b); first >= 0 && !t.sameLine(b.OpenBraceRange.Start.Byte, first) {
		if unit, ok := strings.CutPrefix(t.indentAt(first), outer); ok && unit != "" {
			return unit
		}
	}
	if strings.Contains(outer, "\t") {
		return "\t"
	}
	return "  "
}

func firstItem(b *hclsyntax.Block) int {
	first := -1
	consider := func(at int) {
		if first < 0 || at < first {
			first = at
		}
	}
	for _, a := range b.Body.Attributes {
		consider(a.SrcRange.Start.Byte)
	}
	for _, c := range b.Body.Blocks {
		consider(c.TypeRange.Start.Byte)
	}
	return first
}
