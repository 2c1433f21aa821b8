// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package guest

import (
	"strings"
	"testing"

	"github.com/shoenig/test/must"
)

func TestSigns(t *testing.T) {
	const (
		info = "[    0.059671] Info: [libukboot] <boot.c @  515> main returned 3\r"
		crit = "[    0.048721] CRIT: [libkvmplat] <traps_arm64.c @  210> EL1 sync trap caught\r"
		ansi = "[    0.1] \x1b[0m\x1b[1m\x1b[37m\x1b[41mCRIT:\x1b[0m \x1b[0m\x1b[33m[appreal] \x1b[0m\x1b[1m\x1b[31mAssertion failure: x\x1b[0m\r"
	)
	cases := []struct {
		name     string
		family   Family
		console  []string
		told     bool
		status   int
		crashed  bool
		evidence string
	}{
		{name: "Unikraft returned", family: Unikraft, console: []string{"bye", info}, told: true, status: 3, evidence: "main returned 3"},
		{name: "Unikraft returned less than 0", family: Unikraft, console: []string{"Info: main returned -1"}, told: true, status: -1, evidence: "-1"},
		{name: "Unikraft crashed", family: Unikraft, console: []string{crit, "[    0.05] CRIT: [libkvmplat] x0: 0"}, told: true, crashed: true, evidence: "EL1 sync trap caught"},
		{name: "Unikraft crashed after an unfinished line", family: Unikraft, console: []string{"loading" + crit}, told: true, crashed: true, evidence: "EL1 sync"},
		{name: "Unikraft in colours", family: Unikraft, console: []string{strings.Replace(ansi, "0.1", "0.100000", 1)}, told: true, crashed: true, evidence: "CRIT: [appreal] Assertion failure: x"},
		{name: "Unikraft cannot start", family: Unikraft, console: []string{"[    0.1] ERR:  [libukboot] <boot.c @  412> Init function at 0x115f40 returned error -22", "ERR: [libukboot] <boot.c> Init function at 0x115f40 returned error -22"}, told: true, crashed: true, evidence: "Init function"},
		{name: "an application that only sounds like it", family: Unikraft, console: []string{"CRIT: disk is full", info}, told: true, status: 3, evidence: "main returned 3"},
		{name: "a crash after the application", family: Unikraft, console: []string{info, crit}, told: true, crashed: true, evidence: "EL1"},
		{name: "a boot on an old processor", family: Unikraft, console: []string{"CRIT: Failed to boot on unsupported CPU: An extension is missing."}, told: true, crashed: true, evidence: "unsupported CPU"},
		{name: "words within a line", family: Unikraft, console: []string{"I say CRIT: and main returned 4"}},
		{name: "nothing", family: Unikraft, console: []string{"bye, rc=3"}},
		{name: "Mirage exception", family: Mirage, console: []string{"Fatal error: exception Failure(\"x\")", "Called from Dune__exe__Main"}, told: true, status: 2, evidence: `Failure("x")`},
		{name: "Mirage wrong argument", family: Mirage, console: []string{"mirage: unknown option '--x'.", "Usage: mirage [OPTION]…", "Try 'mirage --help' for more information."}, told: true, status: 64, evidence: "unknown option '--x'."},
		{name: "Mirage kernel crash", family: Mirage, console: []string{crit}, told: true, crashed: true, evidence: "EL1"},
		{name: "Solo5 exit", family: Solo5, console: []string{"Solo5: solo5_exit(0) called", "Solo5: Halted"}, told: true, evidence: "solo5_exit(0)"},
		{name: "Solo5 exception", family: Solo5, console: []string{"Fatal error: exception Not_found", "Solo5: solo5_exit(2) called"}, told: true, status: 2, evidence: "Not_found; Solo5: solo5_exit(2) called"},
		{name: "Solo5 wrong argument", family: Solo5, console: []string{"hello: unknown option '--x'.", "Try 'hello --help' for more information.", "Solo5: solo5_exit(64) called"}, told: true, status: 64, evidence: "'--x'"},
		{name: "Solo5 trap", family: Solo5, console: []string{"Solo5: ABORT: cpu_x86_64.c:124: Fatal trap"}, told: true, crashed: true, evidence: "Solo5: ABORT: cpu_x86_64.c:124: Fatal trap"},
		{name: "Solo5 abort", family: Solo5, console: []string{"Solo5: trap: type=#PF", "Solo5: solo5_abort() called"}, told: true, crashed: true, evidence: "#PF; Solo5: solo5_abort() called"},
		{name: "Solo5 detail alone", family: Solo5, console: []string{"Solo5: trap: type=#PF"}},
		{name: "Linux panic", family: Linux, console: []string{"[    1.102030] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100", "[    1.203040] reboot: Restarting system"}, told: true, crashed: true, evidence: "exitcode=0x00000100"},
		{name: "Linux power down", family: Linux, console: []string{"[    1.203040] reboot: Power down"}, told: true, evidence: "Power down"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			signs := mustFor(t, tc.family, "", X86_64).Signs()
			for _, line := range tc.console {
				signs.Line(line)
			}
			end, told := signs.End()
			must.EqOp(t, tc.told, told)
			must.EqOp(t, tc.crashed, end.Crashed)
			must.StrContains(t, end.Evidence, tc.evidence)
			if !tc.crashed {
				must.EqOp(t, tc.status, end.Status)
			}
		})
	}
}

func TestSignsKeepLittle(t *testing.T) {
	signs := mustFor(t, Unikraft, "", ARM64).Signs()
	signs.Line("CRIT: " + strings.Repeat("é", 1<<20))
	end, told := signs.End()
	must.True(t, told)
	must.LessEq(t, longestEvidence, len(end.Evidence))
}
