// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package guest

import (
	"regexp"
	"strconv"
	"strings"
)

// Longer lines are cut before they are read or kept.
const (
	longestLine     = 4096
	longestEvidence = 512
)

// sign is a console line that tells something of the guest's end.
type sign struct {
	pattern *regexp.Regexp
	// end is what the line tells. Nil: the line only explains an end that
	// another one tells.
	end func(match []string) End
	// replaces tells whether the line overrules an end told before. Nil: the
	// first one stays.
	replaces func(told End) bool
}

// console reads one boot's console for a family's signs.
type console struct {
	signs  []sign
	detail string // the line that explains the end
	end    End
	told   bool
}

func (c *console) Line(line string) {
	line = cleanLine(line)
	for _, sign := range c.signs {
		match := sign.pattern.FindStringSubmatch(line)
		if match == nil {
			continue
		}
		c.take(sign, match, cut(line, longestEvidence))
		return
	}
}

func (c *console) take(sign sign, match []string, line string) {
	if sign.end == nil {
		c.detail = line
		return
	}
	if c.told && (sign.replaces == nil || !sign.replaces(c.end)) {
		return
	}
	c.end, c.told = sign.end(match), true
	c.end.Evidence = line
	if c.detail != "" && (c.end.Crashed || c.end.Status != 0) {
		c.end.Evidence = c.detail + "; " + line
	}
}

func (c *console) End() (End, bool) { return c.end, c.told }

var escapeSequence = regexp.MustCompile("\x1b\\[[0-9;?]*[@-~]")

// cleanLine takes away what a terminal acts upon and people do not see.
func cleanLine(line string) string {
	line = escapeSequence.ReplaceAllString(cut(line, longestLine), "")
	return strings.TrimRight(strings.ReplaceAll(line, "\r", ""), " \t\n")
}

// cut shortens text to at most so many bytes.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "")
}

// returned is the end of an application that returned what the match says.
func returned(match []string) End {
	status, err := strconv.Atoi(match[1])
	if err != nil {
		return End{Crashed: true} // a number that no application returns
	}
	return End{Status: status}
}

// crashed is the end of a guest that did not end by itself.
func crashed([]string) End { return End{Crashed: true} }

func always(End) bool { return true }

func overReturn(told End) bool { return !told.Crashed }

// Kernels start their lines with a time, where they are built so: an
// application's unfinished line may stand before it.
const kernelLine = `(?:^|\[\s*\d+\.\d{6}\]\s*)`

// unikraftSigns are printed by lib/ukboot/boot.c and by UK_CRASH, UK_ASSERT and
// the trap handlers. Levels below ERR are compiled out of many builds. An
// application may print the like of CRIT itself and go on; if it then returns,
// there was no crash.
var unikraftSigns = []sign{
	{pattern: regexp.MustCompile(kernelLine + `Info:\s.*\bmain returned (-?\d+)$`), end: returned, replaces: always},
	{pattern: regexp.MustCompile(kernelLine + `dbg:\s.*\bUnikraft terminates with exit status (-?\d+) \(target: \d+\)$`), end: returned, replaces: overReturn},
	{pattern: regexp.MustCompile(kernelLine + `CRIT:\s`), end: crashed, replaces: overReturn},
	{pattern: regexp.MustCompile(kernelLine + `ERR:\s.*\bInit function at \S+ returned error -?\d+$`), end: crashed, replaces: overReturn},
}

// ocamlSigns are those of MirageOS on any kernel: cmdliner's complaint about
// the arguments (status 64), which ends with a line that depends on its
// version, and what the language's runtime says before it aborts.
var ocamlSigns = []sign{
	{pattern: regexp.MustCompile(`^Fatal error: `)},
	{pattern: regexp.MustCompile(`^[\w.-]+: (?:unknown option|option '|too many arguments|required |invalid )`)},
	{pattern: regexp.MustCompile(`^Try '[^']*--help' for more information\.$`), end: status(64)},
	{pattern: regexp.MustCompile(`^Hint: To pass a space, it needs to be escaped twice`), end: status(64)},
}

func status(n int) func([]string) End {
	return func([]string) End { return End{Status: n} }
}

var uncaughtException = regexp.MustCompile(`^Fatal error: exception `)

var mirageSigns = append(append([]sign{
	{pattern: uncaughtException, end: status(2)},
}, ocamlSigns...), unikraftSigns...)

// solo5Signs: bindings/exit.c tells the status. What ended it stands before.
var solo5Signs = append([]sign{
	{pattern: regexp.MustCompile(`^Solo5: solo5_exit\((-?\d+)\) called$`), end: returned, replaces: always},
	{pattern: regexp.MustCompile(`^Solo5: (?:solo5_abort\(\) called$|ABORT: )`), end: crashed, replaces: always},
	{pattern: regexp.MustCompile(`^Solo5: (?:trap|PANIC|ABORT|assertion|Device ')`)},
}, ocamlSigns...)

// linuxSigns: a panic stays the end, whatever follows it.
var linuxSigns = []sign{
	{pattern: regexp.MustCompile(kernelLine + `Kernel panic - not syncing:`), end: crashed, replaces: overReturn},
	{pattern: regexp.MustCompile(kernelLine + `reboot: (?:Power down|System halted|Restarting system)`), end: status(0)},
}
