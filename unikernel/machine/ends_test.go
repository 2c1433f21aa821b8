// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

const consoles = "../guest/testdata/consoles"

// What real guests printed when they ended, against the table in docs/ends.md:
// each has its row there, and each row its console.
func TestEnds_OfRealGuests(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(consoles, "*.txt"))
	must.NoError(t, err)
	rows := familyRows(t)
	must.Len(t, len(files), rows)
	for _, row := range rows {
		name := strings.ReplaceAll(strings.Join(row[:3], "-"), " ", "-")
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(consoles, name+".txt"))
			must.NoError(t, err)
			family, _, _ := strings.Cut(row[0], " ")
			result := endOf(t, guest.Family(family), guest.Arch(row[1]), string(text))
			must.Eq(t, row[3], strconv.Itoa(result.ExitCode), must.Sprint(result.Message))
			must.Eq(t, row[4], signalCell(result.Signal))
			must.Eq(t, row[3] != "0", result.Failed)
			rest := result.Message
			for part := range strings.SplitSeq(row[5], "…") {
				_, after, found := strings.Cut(rest, strings.TrimSpace(part))
				must.True(t, found, must.Sprintf("no %q in %q", part, result.Message))
				rest = after
			}
		})
	}
}

func endOf(t *testing.T, family guest.Family, arch guest.Arch, console string) Result {
	t.Helper()
	kind, err := guest.For(family, "", arch)
	must.NoError(t, err)
	signs := kind.Signs()
	for line := range strings.Lines(console) {
		signs.Line(line)
	}
	seen := evidence{status: statusShutdown}
	if end, told := signs.End(); told {
		seen.console = &end
	}
	return seen.judge()
}

func signalCell(signal int) string {
	if signal == 0 {
		return ""
	}
	return strconv.Itoa(signal)
}

// familyRows are the rows of the table "What each family tells".
func familyRows(t *testing.T) [][]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/ends.md")
	must.NoError(t, err)
	_, section, found := strings.Cut(string(text), "## What each family tells\n")
	must.True(t, found)
	section, _, _ = strings.Cut(section, "\n## ")
	var rows [][]string
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|-") || strings.HasPrefix(line, "| guest ") {
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		must.Len(t, 6, cells, must.Sprint(line))
		rows = append(rows, cells)
	}
	return rows
}

// A KVM that cannot run the instructions that kernels start with leaves QEMU
// paused for ever. Only a host with such a KVM can show it; what is judged of it
// is in TestEvidence_Judge.
func TestMachine_KVMInternalError(t *testing.T) {
	if !brokenKVM() {
		t.Log("this host has no KVM that is broken")
		return
	}
	config, watch := steps(t, guest.X86_64, "")
	kernel, err := os.Open("../probe/payload/x86_64.bin") // floating point, early
	must.NoError(t, err)
	defer kernel.Close()
	config.Kernel, config.User = kernel, nil
	config.Accelerator, config.CPU = KVM, "qemu64"
	result := awaitEnd(t, start(t, config, watch))
	must.Eq(t, 1, result.ExitCode)
	must.True(t, result.Failed)
	must.StrContains(t, result.Message, `the accelerator cannot run this guest: QEMU says "KVM internal error. Suberror`)
}

// brokenKVM tells whether this is an x86_64 host whose KVM sets up no processor
// like the host's.
func brokenKVM() bool {
	if _, err := os.Stat("/dev/kvm"); err != nil || guest.HostArch() != guest.X86_64 {
		return false
	}
	qemu := exec.Command("qemu-system-x86_64", "-machine", "pc", "-accel", "kvm", "-cpu", "host", "-S",
		"-nodefaults", "-display", "none", "-monitor", "stdio")
	qemu.Stdin = strings.NewReader("quit\n")
	said, err := qemu.CombinedOutput()
	return err != nil && strings.Contains(string(said), "failed to set MSR")
}
