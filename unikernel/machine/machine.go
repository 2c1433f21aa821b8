// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/machine/qmp"
)

const (
	logFile = "qemu.log" // what QEMU prints, in the machine's directory

	// quitTimeout bounds the wait for QEMU to act on a quit before it is
	// killed. It needs a few milliseconds.
	quitTimeout = 2 * time.Second
	// killTimeout bounds the wait for a killed process to be gone.
	killTimeout = 10 * time.Second
	// reconnectDelay is between attempts at a QMP socket that was lost.
	reconnectDelay = time.Second
)

// State is what is needed to find a machine again. It is kept in the task's
// state, so its fields are exported and plain.
type State struct {
	Dir       string // the machine's own directory
	PID       int
	StartTime uint64 // of the process, in clock ticks since boot
	Boot      string // of the host, in which it was started
}

// Watch is how a machine's guest is observed.
type Watch struct {
	Signs guest.Signs
	Ready *regexp.Regexp // console line that means the guest is up; nil: not looked for
	// Missed tells the console's last lines where the watch does not begin with
	// the guest. They are read for signs once it has ended. Nil: none are known.
	Missed func() []string
	// PowerButton tells that the guest ends by itself when asked to.
	PowerButton bool
}

func (w Watch) missed() []string {
	if w.Missed == nil {
		return nil
	}
	return w.Missed()
}

// Machine is a running QEMU. Its methods are safe for concurrent use.
type Machine struct {
	state       State
	process     *process
	console     *console
	powerButton bool
	missed      func() []string // nil: the watch began with the guest

	done   chan struct{} // closed when the end is known
	result Result        // set before done is closed
	poke   chan struct{} // tells supervise that something was seen

	migrated chan string // how a migration ended; holds one

	mu      sync.Mutex
	monitor *qmp.Client
	seen    evidence
	stopped bool // a STOP event came whose reason was not asked for yet
}

// Start starts QEMU, joins it to its cgroups and lets the guest run. When it
// fails nothing is left, and the error holds what QEMU said.
func Start(ctx context.Context, c Config, w Watch) (*Machine, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	dir := c.directory()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the machine's directory: %w", err)
	}
	m, err := launch(ctx, c, w, dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return m, nil
}

func launch(ctx context.Context, c Config, w Watch, dir string) (*Machine, error) {
	p, monitor, err := spawnIn(c, dir)
	if err != nil {
		return nil, err
	}
	m, err := boot(ctx, c, w, dir, p, monitor)
	if err == nil {
		return m, nil
	}
	monitor.Close()
	kerr := p.kill()
	p.waitFor(killTimeout)
	p.release()
	if log := readLog(dir); log != "" {
		err = fmt.Errorf("%w; QEMU says: %s", err, log)
	}
	return nil, errors.Join(err, kerr)
}

// spawnIn starts QEMU, paused, with its sockets and log in dir, and returns a
// connection to its monitor.
func spawnIn(c Config, dir string) (*process, net.Conn, error) {
	log, err := os.OpenFile(filepath.Join(dir, logFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("making QEMU's log: %w", err)
	}
	defer log.Close()
	sockets, monitor, err := makeSockets(dir)
	if err != nil {
		return nil, nil, err
	}
	defer sockets.close()

	var inherit files
	args := c.argv(sockets, &inherit)
	p, err := spawn(c, args, append(inherit.list, c.Held...), log)
	if err != nil {
		monitor.Close()
		return nil, nil, err
	}
	return p, monitor, nil
}

func boot(ctx context.Context, c Config, w Watch, dir string, p *process, monitor net.Conn) (*Machine, error) {
	if c.Join != nil {
		if err := c.Join(p.pid); err != nil {
			return nil, fmt.Errorf("joining QEMU to its cgroups: %w", err)
		}
	}
	if err := p.limit(); err != nil {
		return nil, err
	}
	if err := p.allowOOMKill(); err != nil {
		return nil, err
	}
	m, err := watch(ctx, State{Dir: dir, PID: p.pid, StartTime: p.startTime, Boot: bootID()}, p, w, monitor)
	if err != nil {
		return nil, err
	}
	var load func(context.Context) error
	if c.Restore != nil {
		load = func(ctx context.Context) error { return m.restore(ctx, c.Restore) }
	}
	if err := run(ctx, m.qmp(), c.CommandLine, load); err != nil {
		m.letGo()
		return nil, err
	}
	go m.supervise()
	return m, nil
}

// run tells a QEMU that waits before making its machine (-preconfig) the
// guest's command line, and lets the guest run. The line is told here because
// it holds the task's environment: QEMU's arguments can be read by every user
// of the host, in /proc.
//
// load, unless it is nil, puts a saved guest in place of the one that would boot.
func run(ctx context.Context, q *qmp.Client, commandLine string, load func(context.Context) error) error {
	if commandLine != "" {
		line := map[string]string{"path": "/machine", "property": "append", "value": commandLine}
		if err := q.Execute(ctx, "qom-set", line, nil); err != nil {
			return fmt.Errorf("telling QEMU the guest's command line: %w", err)
		}
	}
	if err := q.Execute(ctx, "x-exit-preconfig", nil, nil); err != nil {
		return fmt.Errorf("making the machine: %w", err)
	}
	if load != nil {
		if err := load(ctx); err != nil {
			return err
		}
	}
	if err := q.Execute(ctx, "cont", nil, nil); err != nil {
		return fmt.Errorf("letting the guest run: %w", err)
	}
	return nil
}

// Reattach finds a machine again that an earlier life of this program started.
// A machine whose QEMU has ended meanwhile is returned too: its result says so.
func Reattach(ctx context.Context, s State, w Watch) (*Machine, error) {
	p, err := find(s)
	if errors.Is(err, errGone) {
		return lost(s, w), nil
	}
	if err != nil {
		return nil, fmt.Errorf("finding QEMU again: %w", err)
	}
	if err := forgetNote(s.Dir); err != nil {
		p.release()
		return nil, fmt.Errorf("forgetting what was noted of an end: %w", err)
	}
	m, err := findMonitor(ctx, s, p, w)
	if err != nil && p.waitFor(quitTimeout) {
		p.release()
		return lost(s, w), nil // it was about to end
	}
	if err != nil {
		p.release()
		return nil, fmt.Errorf("finding QEMU again (process %d): %w", s.PID, err)
	}
	m.missed = w.missed
	m.seen.missed = true
	m.stopped = true // ask for the status: the guest may have ended meanwhile
	m.poke <- struct{}{}
	go m.supervise()
	return m, nil
}

// lost is a machine of which only its directory is left, with what was noted
// of its end.
func lost(s State, w Watch) *Machine {
	for _, line := range w.missed() {
		w.Signs.Line(line)
	}
	m := &Machine{state: s, done: make(chan struct{})}
	seen := readNote(s.Dir)
	seen.missed, seen.rebooted, seen.qemuLog = true, s.Outdated(), readLog(s.Dir)
	if end, ok := w.Signs.End(); ok && seen.console == nil {
		seen.console = &end
	}
	m.result = seen.judge()
	close(m.done)
	return m
}

// findMonitor is watch for a QEMU that an earlier life of this program started.
func findMonitor(ctx context.Context, s State, p *process, w Watch) (*Machine, error) {
	monitor, err := dial(ctx, s.Dir, qmpSocket)
	if err != nil {
		return nil, err
	}
	m, err := watch(ctx, s, p, w, monitor)
	if err != nil {
		monitor.Close()
	}
	return m, err
}

// watch connects to QEMU's console, and takes monitor over if it succeeds.
func watch(ctx context.Context, s State, p *process, w Watch, monitor net.Conn) (*Machine, error) {
	conn, err := dial(ctx, s.Dir, consoleSocket)
	if err != nil {
		return nil, err
	}
	m := &Machine{
		state:       s,
		process:     p,
		powerButton: w.PowerButton,
		done:        make(chan struct{}),
		poke:        make(chan struct{}, 1),
		migrated:    make(chan string, 1),
	}
	m.talk(monitor)
	m.console = readConsole(conn, w.Signs, w.Ready)
	return m, nil
}

// talk begins to use a connection to QEMU's monitor. QEMU may answer it later.
func (m *Machine) talk(conn net.Conn) {
	client := qmp.New(conn, m.observe)
	m.mu.Lock()
	m.monitor = client
	m.mu.Unlock()
}

// letGo hangs up on a QEMU that is about to be ended.
func (m *Machine) letGo() {
	_ = m.qmp().Close()
	m.console.close()
}

func (m *Machine) qmp() *qmp.Client {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.monitor
}

func (m *Machine) execute(ctx context.Context, command string, result any) error {
	client := m.qmp()
	if client == nil {
		return fmt.Errorf("QMP %s: %w", command, qmp.ErrClosed)
	}
	return client.Execute(ctx, command, nil, result)
}

// AskMonitor runs a command of QEMU's human monitor and returns what it prints.
func (m *Machine) AskMonitor(ctx context.Context, command string) (string, error) {
	var answer string
	err := m.qmp().Execute(ctx, "human-monitor-command", map[string]string{"command-line": command}, &answer)
	return answer, err
}

// State is what Reattach needs.
func (m *Machine) State() State { return m.state }

// Done is closed when the guest has ended and QEMU is gone.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Result tells how the machine ended. It is valid once Done is closed.
func (m *Machine) Result() Result { return m.result }

// Ready is closed when a console line matched Watch.Ready.
func (m *Machine) Ready() <-chan struct{} { return m.console.ready }

// Printed is closed when the console's first byte was read.
func (m *Machine) Printed() <-chan struct{} { return m.console.printed }

// PrintedAt is when that was. It is valid once Printed is closed.
func (m *Machine) PrintedAt() time.Time { return m.console.printedAt }

// LastLines returns at most n of the console's last lines.
func (m *Machine) LastLines(n int) []string {
	if m.console == nil {
		return nil
	}
	return m.console.lastLines(n)
}

// Log returns the end of what QEMU itself printed, such as its complaints.
func (m *Machine) Log() string { return readLog(m.state.Dir) }

// readLog returns the end of what QEMU printed.
func readLog(dir string) string {
	const most = 4096
	f, err := os.Open(filepath.Join(dir, logFile))
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	text := make([]byte, min(info.Size(), most))
	n, _ := f.ReadAt(text, info.Size()-int64(len(text)))
	return string(text[:n])
}

// StateOf is the state of a machine whose QEMU runs as process pid.
func StateOf(runDir, id string, pid int) (State, error) {
	started, err := startTime(pid)
	if err != nil {
		return State{}, fmt.Errorf("looking at QEMU (process %d): %w", pid, err)
	}
	return State{Dir: filepath.Join(runDir, id), PID: pid, StartTime: started, Boot: bootID()}, nil
}

// Destroy ends a machine without asking how its guest is, and removes what it
// left on disk. It may be called when nothing is left.
func Destroy(s State) error {
	err := killAgain(s)
	if s.Dir == "" {
		return err
	}
	return errors.Join(err, os.RemoveAll(s.Dir))
}

func killAgain(s State) error {
	p, err := findAgain(s)
	if errors.Is(err, errGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.release()
	if err := p.kill(); err != nil {
		return err
	}
	if !p.waitFor(killTimeout) {
		return fmt.Errorf("QEMU (process %d) was killed and is not gone after %s", p.pid, killTimeout)
	}
	return nil
}
