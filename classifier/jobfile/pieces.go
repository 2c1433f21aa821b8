// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package jobfile

import (
	"bytes"
	"runtime"
	"sync"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/nomad/api"
)

// leastPiece is the least number of groups for which another processor pays.
const leastPiece = 50

// span is a range of bytes in a source.
type span struct{ start, end int }

// piecesFor returns in how many pieces a job of some groups is parsed.
func piecesFor(groups int) int { return min(runtime.GOMAXPROCS(0), groups/leastPiece) }

// parsePieces parses a job in n pieces at once: each has some of the groups and
// all that stands outside of groups, on which alone they depend. It returns nil
// where that cannot be done, and where a piece does not parse: the error is for
// the whole job to give.
func parsePieces(src []byte, groups []span, n int, opts Options) *api.Job {
	if n < 2 || n > len(groups) || callsVolatile(src) {
		return nil
	}
	pieces := make([]*api.Job, n)
	var all sync.WaitGroup
	for i := range n {
		first, next := len(groups)*i/n, len(groups)*(i+1)/n
		all.Go(func() {
			pieces[i], _ = parseWhole(without(src, groups[:first], groups[next:]), opts)
		})
	}
	all.Wait()
	job := pieces[0]
	for i, piece := range pieces {
		if piece == nil {
			return nil
		}
		if i > 0 {
			job.TaskGroups = append(job.TaskGroups, piece.TaskGroups...)
		}
	}
	return job
}

// groupSpans returns where the groups of a job are, in order; none where other
// blocks make groups, too.
func groupSpans(tree *hclsyntax.Body) []span {
	var groups []span
	for _, job := range tree.Blocks {
		if job.Type != "job" {
			continue
		}
		for _, b := range job.Body.Blocks {
			switch b.Type {
			case "task", "dynamic":
				return nil
			case "group":
				groups = append(groups, span{b.TypeRange.Start.Byte, b.CloseBraceRange.End.Byte})
			}
		}
	}
	return groups
}

// callsVolatile tells whether a source could call a function whose result is
// new each time: in a local, each piece would have its own.
func callsVolatile(src []byte) bool {
	return bytes.Contains(src, []byte("uuidv4")) || bytes.Contains(src, []byte("bcrypt"))
}

// without returns a source without some of its spans, given in order.
func without(src []byte, lists ...[]span) []byte {
	out := make([]byte, 0, len(src))
	at := 0
	for _, spans := range lists {
		for _, s := range spans {
			out = append(out, src[at:s.start]...)
			at = s.end
		}
	}
	return append(out, src[at:]...)
}
