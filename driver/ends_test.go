// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/shoenig/test/must"
	"golang.org/x/sys/unix"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/probe"
)

// What stands in the column "exit code" where there is none.
const (
	startFails = "start fails"
	runsOn     = "runs on"
)

// seen is what Nomad shows of a task, in the words of docs/ends.md.
type seen struct{ code, signal, oom, message string }

// scene makes one end happen to a guest of one architecture.
type scene func(s *stage) seen

type stage struct {
	*harness
	t    *testing.T
	arch guest.Arch
}

// scenes has each row of the first table in docs/ends.md.
var scenes = map[string]scene{
	"the application returned 0":    boots(`args = ["--exit=0"]`).ends,
	"the application returned 7":    boots(`args = ["--exit=7"]`).ends,
	"the guest crashed or panicked": boots(`args = ["--crash"]`).ends,
	// A Linux guest's console tells no status in Unikraft's words.
	"the guest powered off and its console told no status":        boots(`args = ["--exit=0"]`).as("linux").ends,
	"the application called `exit`, and its kernel hangs on that": boots(`args = ["--exit-call=3"]`).runsOn,
	"it never printed its `ready` line":                           boots("ready {\n pattern = \"never said\"\n timeout = \"1s\"\n}").fails,
	"it never accepted a connection on its `ready` port": boots("args = [\"--port=9999\"]\n ports = [\"http\"]\n" +
		"ready {\n port = \"http\"\n timeout = \"1s\"\n}").fails,
	"it ended before it was ready":                    boots("args = [\"--exit=3\"]\n ready { pattern = \"never said\" }").fails,
	"QEMU aborted when it set up KVM":                 boots("accelerator = \"kvm\"\n machine { cpu = \"host\" }").onBrokenKVM().fails,
	"QEMU refused its arguments":                      boots(`machine { cpu = "no-such-processor" }`).fails,
	"QEMU was killed":                                 boots("").then(signalQEMU(unix.SIGKILL)).ends,
	"QEMU aborted":                                    boots("").then(signalQEMU(unix.SIGABRT)).ends,
	"someone on the host sent QEMU SIGTERM":           boots("").then(signalQEMU(unix.SIGTERM)).ends,
	"over the task's memory limit":                    boots(`args = ["--start-delay=1", "--fill-memory"]`).overhead("1MiB").ends,
	"over the task's memory limit while it started":   boots("").overhead("1MiB").memory(9).fails,
	"stopped by Nomad":                                boots("").then((*stage).stop).ends,
	"stopped by Nomad, and QEMU did not quit in time": boots("").then(signalQEMU(unix.SIGSTOP)).then((*stage).stop).ends,
	"killed by `nomad alloc signal -s SIGKILL`":       boots("").then((*stage).kill).ends,
	"it returned 5 while the driver was away":         boots(`args = ["--start-delay=1", "--exit=5"]`).away("main returned 5", 0).ends,
	"QEMU ended while the driver was away":            boots("").away("Calling main", unix.SIGKILL).ends,
	"the node was rebooted":                           boots("").away("Calling main", unix.SIGKILL).rebooted().ends,
}

// elsewhere is a row that takes a kernel which the driver would not boot:
// TestMachine_KVMInternalError in unikernel/machine makes it happen.
const elsewhere = "KVM internal error"

// play is how a scene is made.
type play struct {
	config      string
	family      string
	options     string // of the plugin
	memoryMiB   int64
	brokenKVM   bool
	steps       []func(*stage, *drivers.TaskConfig)
	leaveAfter  string // the console line after which the driver goes away; empty: it stays
	leaveSignal unix.Signal
	reboot      bool
}

func boots(config string) play { return play{config: config, family: "unikraft", memoryMiB: 64} }

func (p play) as(family string) play { p.family = family; return p }
func (p play) overhead(size string) play {
	p.options = fmt.Sprintf("memory_overhead = %q", size)
	return p
}
func (p play) memory(mib int64) play { p.memoryMiB = mib; return p }

// onBrokenKVM runs QEMU as root, who may open any host's KVM.
func (p play) onBrokenKVM() play { p.brokenKVM, p.options = true, `user = ""`; return p }

func (p play) then(step func(*stage, *drivers.TaskConfig)) play {
	p.steps = append(p.steps[:len(p.steps):len(p.steps)], step)
	return p
}

// away starts the guest in a plugin that is then killed. Once the console had a
// line, QEMU gets a signal, and then the driver comes back.
func (p play) away(line string, signal unix.Signal) play {
	p.leaveAfter, p.leaveSignal = line, signal
	return p
}

// rebooted has the guest's state come from an earlier boot of the node.
func (p play) rebooted() play { p.reboot = true; return p }

func (p play) task(s *stage) *drivers.TaskConfig {
	s.harness = newHarness(s.t, runDir(s.t), p.options)
	config := strings.Replace(stepsConfig(s.t, s.arch, p.config), `"unikraft"`, strconv.Quote(p.family), 1)
	if p.brokenKVM {
		config = strings.Replace(config, `accelerator = "tcg"`, "", 1)
		s.pretendKVM()
	}
	task, _ := s.newTask(config)
	task.Resources.NomadResources.Memory.MemoryMB = p.memoryMiB
	return task
}

// pretendKVM has the driver believe in this host's KVM.
func (s *stage) pretendKVM() {
	settings, _, err := s.driver.configured()
	must.NoError(s.t, err)
	node, err := s.driver.host.get(s.t.Context(), settings)
	must.NoError(s.t, err)
	own := node.Arches[s.arch]
	own.Accelerator = probe.KVM
	node.Arches[s.arch] = own
}

func (p play) run(s *stage) *drivers.TaskConfig {
	task := p.task(s)
	if p.leaveAfter == "" {
		s.start(task)
	} else {
		handle := startElsewhere(s.t, s.driver.runDir, task)
		awaitPrinted(s.t, task, p.leaveAfter)
		if p.leaveSignal != 0 {
			var state taskState
			must.NoError(s.t, handle.GetDriverState(&state))
			must.NoError(s.t, unix.Kill(state.Machine.PID, p.leaveSignal))
			awaitGone(s.t, state.Machine.PID)
		}
		if p.reboot {
			var state taskState
			must.NoError(s.t, handle.GetDriverState(&state))
			state.Machine.Boot = "an earlier one"
			must.NoError(s.t, handle.SetDriverState(state))
		}
		must.NoError(s.t, s.RecoverTask(handle))
		s.t.Cleanup(func() { _ = s.driver.DestroyTask(task.ID, true) })
	}
	for _, step := range p.steps {
		step(s, task)
	}
	return task
}

func (p play) ends(s *stage) seen {
	result := s.wait(p.run(s))
	end := seen{code: strconv.Itoa(result.ExitCode)}
	if result.Signal != 0 {
		end.signal = strconv.Itoa(result.Signal)
	}
	if result.OOMKilled {
		end.oom = "yes"
	}
	if result.Err != nil {
		end.message = result.Err.Error()
	}
	return end
}

func (p play) fails(s *stage) seen {
	_, _, err := s.StartTask(p.task(s))
	must.Error(s.t, err)
	return seen{code: startFails, message: err.Error()}
}

// runsOn is a guest that has ended and does not say so: it is there when asked
// after its last line.
func (p play) runsOn(s *stage) seen {
	task := p.run(s)
	awaitLog(s.t, task, "Calling main")
	status, err := s.InspectTask(task.ID)
	must.NoError(s.t, err)
	must.Eq(s.t, drivers.TaskStateRunning, status.State)
	return seen{code: runsOn}
}

func signalQEMU(signal unix.Signal) func(*stage, *drivers.TaskConfig) {
	return func(s *stage, config *drivers.TaskConfig) {
		t, err := s.driver.tasks.get(config.ID)
		must.NoError(s.t, err)
		must.NoError(s.t, unix.Kill(t.machine.State().PID, signal))
	}
}

func (s *stage) stop(config *drivers.TaskConfig) {
	must.NoError(s.t, s.StopTask(config.ID, 10*time.Second, "SIGTERM"))
}

func (s *stage) kill(config *drivers.TaskConfig) {
	must.NoError(s.t, s.SignalTask(config.ID, "SIGKILL"))
}

// TestEnds makes every end of docs/ends.md happen, and prints what Nomad shows.
func TestEnds(t *testing.T) {
	rows := endRows(t)
	must.MapLen(t, len(rows)-1, scenes)
	var table strings.Builder
	out := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "what happened\tarchitecture\texit code\tsignal\tOOM\tmessage")
	for _, row := range rows {
		if row.what == elsewhere {
			continue
		}
		play, ok := scenes[row.what]
		must.True(t, ok, must.Sprintf("docs/ends.md has %q, which no test makes happen", row.what))
		for _, arch := range guest.Arches {
			if strings.Contains(row.what, "KVM") && !hasBrokenKVM(t, arch) {
				fmt.Fprintf(out, "%s\t%s\t-\t\t\tnot on this host, whose KVM is not broken\n", row.what, arch)
				continue
			}
			t.Run(row.what+" "+string(arch), func(t *testing.T) {
				got := play(&stage{t: t, arch: arch})
				fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t%.160s\n", row.what, arch, got.code, got.signal, got.oom, got.message)
				row.compare(t, got)
			})
		}
	}
	must.NoError(t, out.Flush())
	t.Log("\n" + table.String())
}

// hasBrokenKVM tells whether the host has a KVM for guests of an architecture
// that does not run them.
func hasBrokenKVM(t *testing.T, arch guest.Arch) bool {
	t.Helper()
	if _, err := os.Stat("/dev/kvm"); err != nil || arch != guest.HostArch() {
		return false
	}
	node, err := probe.Host(t.Context(), probe.Options{Emulation: true})
	must.NoError(t, err)
	return !node.KVM
}

// endRow is a row of the first table in docs/ends.md.
type endRow struct {
	what string
	seen
}

func (r endRow) compare(t *testing.T, got seen) {
	t.Helper()
	must.Eq(t, r.code, got.code, must.Sprint(got.message))
	must.Eq(t, r.signal, got.signal)
	must.Eq(t, r.oom, got.oom)
	if got.code == "0" {
		return // Nomad shows no message of a success; the driver's event has it
	}
	rest := got.message
	for part := range strings.SplitSeq(r.message, "…") {
		_, after, found := strings.Cut(rest, strings.TrimSpace(part))
		must.True(t, found, must.Sprintf("no %q in %q", part, got.message))
		rest = after
	}
}

func endRows(t *testing.T) []endRow {
	t.Helper()
	text, err := os.ReadFile("../docs/ends.md")
	must.NoError(t, err)
	_, table, found := strings.Cut(string(text), "|---|---|---|---|---|---|\n")
	must.True(t, found)
	table, _, _ = strings.Cut(table, "\n\n")
	var rows []endRow
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		must.Len(t, 6, cells, must.Sprint(line))
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, endRow{cells[0], seen{cells[1], cells[2], cells[3], cells[4]}})
	}
	return rows
}
