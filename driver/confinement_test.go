// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// fact is one thing about a running QEMU that docs/confinement.md tells.
type fact struct{ name, is, want string }

// TestConfinement prints what a task's QEMU is and may, as systemd-analyze
// security does of a service, and checks each fact. docs/confinement.md says
// the same in words.
func TestConfinement(t *testing.T) {
	dir := runDir(t)
	h := newHarness(t, dir, "")
	_, netns := newNetns(t)
	task := h.newBridgeTask(netns, stepsConfig(t, guest.ARM64, `ports = ["http"]`))
	var state taskState
	must.NoError(t, h.start(task).GetDriverState(&state))

	q := onHost(state.Machine.PID)
	facts := slices.Concat(q.identity(), q.rights(), q.namespaces(), q.limits(), modes(dir, state.Machine.Dir))
	files := q.files(t)
	printFacts(t, append(facts, files...))
	for _, f := range append(facts, files...) {
		must.RegexMatch(t, regexp.MustCompile(`^(?:`+f.want+`)$`), f.is, must.Sprint(f.name))
	}
}

func printFacts(t *testing.T, facts []fact) {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	for _, f := range facts {
		fmt.Fprintf(w, "%s\t%s\t\n", f.name, f.is)
	}
	must.NoError(t, w.Flush())
	t.Log("\n" + table.String())
}

// onHost is a process as /proc shows it.
type onHost int

func (p onHost) path(name string) string { return fmt.Sprintf("/proc/%d/%s", p, name) }

// field is a line of a file of "name: value" lines, or of columns.
func (p onHost) field(file, name string) string {
	text, err := os.ReadFile(p.path(file))
	if err != nil {
		return err.Error()
	}
	match := regexp.MustCompile(`(?m)^` + name + `:?[ \t]+(.*)$`).FindSubmatch(text)
	if match == nil {
		return "not told"
	}
	return strings.Join(strings.Fields(string(match[1])), " ")
}

func (p onHost) identity() []fact {
	return []fact{
		{"users: real, effective, saved, of files", p.field("status", "Uid"), "65534 65534 65534 65534"},
		{"groups: real, effective, saved, of files", p.field("status", "Gid"), "65534 65534 65534 65534"},
		{"other groups", p.field("status", "Groups"), `not told|\d*`}, // at most that of /dev/kvm
	}
}

func (p onHost) rights() []fact {
	const none = "0000000000000000"
	var facts []fact
	for _, set := range []struct{ name, key string }{
		{"permitted", "CapPrm"}, {"effective", "CapEff"}, {"inheritable", "CapInh"}, {"ambient", "CapAmb"}, {"bounding", "CapBnd"},
	} {
		facts = append(facts, fact{"capabilities, " + set.name, p.field("status", set.key), none})
	}
	return append(facts,
		fact{"no_new_privs", p.field("status", "NoNewPrivs"), "1"},
		fact{"seccomp: 2 is a filter", p.field("status", "Seccomp"), "2"},
		fact{"seccomp filters", p.field("status", "Seccomp_filters"), "[1-9]|not told"}, // Linux 5.9
		fact{"umask", p.field("status", "Umask"), "0022"},
		fact{"environment", strings.ReplaceAll(p.read("environ"), "\x00", " "), "LC_ALL=C "},
	)
}

func (p onHost) read(name string) string {
	text, err := os.ReadFile(p.path(name))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// namespaces tells those that QEMU has for itself and those that it shares.
func (p onHost) namespaces() []fact {
	var facts []fact
	for _, ns := range []struct{ kind, want string }{
		{"mnt", "own"}, {"ipc", "own"}, {"net", "own"}, // net: the allocation's
		{"pid", "the plugin's"}, {"user", "the plugin's"}, {"uts", "the plugin's"}, {"cgroup", "the plugin's"},
	} {
		own, err := os.Readlink(p.path("ns/" + ns.kind))
		ours, oerr := os.Readlink("/proc/self/ns/" + ns.kind)
		is := "own"
		if err != nil || oerr != nil {
			is = fmt.Sprint(err, oerr)
		} else if own == ours {
			is = "the plugin's"
		}
		facts = append(facts, fact{"namespace " + ns.kind, is, ns.want})
	}
	return facts
}

func (p onHost) limits() []fact {
	return []fact{
		// Another user's limits need CAP_SYS_RESOURCE, which root lacks in some containers.
		{"limit of open files", p.field("limits", "Max open files"), privileged("1024 1024 files")},
		{"limit of core files", p.field("limits", "Max core file size"), privileged("0 0 bytes")},
		{"oom_score_adj", strings.TrimSpace(p.read("oom_score_adj")), "0"},
	}
}

// privileged wants a fact only where this process has CAP_SYS_RESOURCE.
func privileged(want string) string {
	const sysResource = 1 << 24
	var effective uint64
	if _, err := fmt.Sscanf(onHost(os.Getpid()).field("status", "CapEff"), "%x", &effective); err != nil || effective&sysResource == 0 {
		return ".*"
	}
	return want
}

// modes are those of the driver's own folders and files.
func modes(runDir, machineDir string) []fact {
	var facts []fact
	for _, f := range []struct{ name, path, want string }{
		{"run directory", runDir, "drwx--x--x"},
		{"the machine's directory", machineDir, "drwx------"},
		{"monitor socket", filepath.Join(machineDir, "qmp"), "Srw-------"},
		{"console socket", filepath.Join(machineDir, "console"), "Srw-------"},
		{"QEMU's log", filepath.Join(machineDir, "qemu.log"), "-rw-------"},
		{"the task's record", machineDir + recordSuffix, "-rw-------"},
	} {
		is := "not there"
		if info, err := os.Lstat(f.path); err == nil {
			is = info.Mode().String()
		}
		facts = append(facts, fact{"mode of " + f.name, is, f.want})
	}
	return facts
}

// meant are the open files that QEMU is to have, and why.
var meant = []struct{ file, why string }{
	{`/dev/null`, "standard input"},
	{`.*/qemu\.log`, "its standard output and error"},
	{`.*/steps-arm64`, "the kernel"},
	{`.*/steps\.cpio`, "the initrd"},
	{`.*/\.console\..*`, "the console's spool"},
	{`.*/\.steps\.std(out|err)\.fifo`, "the task's log pipes, held so that their reader sees no end while the driver is away"},
	{`/dev/net/tun`, "the tap"},
	{`/dev/vhost-net`, "the kernel's part of the network card"},
	{`socket:.*`, "monitor and console: listening, and the driver's connection"},
	{`anon_inode:\[(eventfd|signalfd|eventpoll|io_uring|timerfd)\]`, "QEMU's own event loops"},
}

// files explains each open file. One that nothing explains came by accident.
func (p onHost) files(t *testing.T) []fact {
	entries, err := os.ReadDir(p.path("fd"))
	must.NoError(t, err)
	counts := map[string]int{}
	for _, entry := range entries {
		target, err := os.Readlink(p.path("fd/" + entry.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		why := "unexplained: " + target
		for _, m := range meant {
			if regexp.MustCompile(`^(?:` + m.file + `)$`).MatchString(target) {
				why = m.why
				break
			}
		}
		counts[why]++
	}
	var facts []fact
	for why, n := range counts {
		want := `\d+`
		if strings.HasPrefix(why, "unexplained") {
			want = "none"
		}
		facts = append(facts, fact{"open: " + why, fmt.Sprint(n), want})
	}
	slices.SortFunc(facts, func(a, b fact) int { return strings.Compare(a.name, b.name) })
	return facts
}
