// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/machine"
)

// bareRound runs the guest in a QEMU that a shell's user would start.
func (b *bench) bareRound(ctx context.Context, c contender) (*sample, error) {
	accel := "tcg"
	if b.report.Machine.accelerator == "kvm" {
		accel = "kvm"
	}
	argv := append([]string{b.platform.qemu, "-nodefaults", "-no-user-config", "-display", "none",
		"-machine", b.platform.machine, "-accel", accel}, b.platform.bootArgs("PORT")...)
	return runBare(ctx, c.name, bareRun{argv: argv, answer: b.answer, observe: true, pace: b.pace})
}

// bareRun is one start of QEMU. PORT in an argument is the host's port.
type bareRun struct {
	argv    []string
	env     []string
	answer  string
	observe bool // also CPU at rest and under load
	pace    pace

	smallPages bool // without huge pages, as the driver starts QEMU
}

func runBare(ctx context.Context, name string, run bareRun) (_ *sample, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, run.pace.round, fmt.Errorf("the limit of %v is over", run.pace.round))
	defer cancel()
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	monitor, err := newMonitor()
	if err != nil {
		return nil, err
	}
	defer monitor.close()

	argv := make([]string, 0, len(run.argv)+6)
	for _, arg := range run.argv {
		argv = append(argv, strings.ReplaceAll(arg, "PORT", strconv.Itoa(port)))
	}
	argv = append(argv, "-serial", "stdio", "-chardev", "socket,id=qmp,fd=3,server=on,wait=off", "-mon", "chardev=qmp,mode=control")
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), run.env...)
	cmd.ExtraFiles = []*os.File{monitor.listening}
	console, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var complaints strings.Builder
	cmd.Stderr = &complaints

	if err := machine.HugePages(!run.smallPages); err != nil {
		return nil, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	defer func() {
		_ = cmd.Process.Kill() // where it has ended in order, nobody is left to kill
		_ = cmd.Wait()
		if err != nil && complaints.Len() > 0 {
			err = fmt.Errorf("%w\nQEMU says: %s", err, &complaints)
		}
	}()
	s := newSample(name)
	if err := awaitBare(ctx, s, began, monitor, console, fmt.Sprintf("127.0.0.1:%d", port), run); err != nil {
		return s, err
	}
	s.Values[cpuToAnswer] = ms(cpuTime([]int{cmd.Process.Pid}))
	if err := observeBare(ctx, cmd.Process.Pid, port, run, s); err != nil {
		return s, err
	}
	asked := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return s, err
	}
	if _, err := cmd.Process.Wait(); err != nil {
		return s, err
	}
	s.Values[stopping] = ms(time.Since(asked))
	return s, nil
}

// awaitBare measures a start up to the first right answer.
func awaitBare(ctx context.Context, s *sample, began time.Time, monitor *monitor, console io.Reader, address string, run bareRun) error {
	runs, prints := make(chan arrived, 1), make(chan arrived, 1)
	go func() {
		err := monitor.answers()
		runs <- arrived{time.Since(began), err}
	}()
	go func() {
		_, err := io.ReadFull(console, make([]byte, 1))
		prints <- arrived{time.Since(began), err}
		_, _ = io.Copy(io.Discard, console) // ends with QEMU
	}()
	err := run.pace.awaitAnswer(ctx, address, run.answer)
	answered := time.Since(began)
	if err != nil {
		return err
	}
	ran, printed := <-runs, <-prints
	s.Values[direct] = ms(answered)
	s.Values[start] = ms(ran.after)
	s.Values[running] = ms(ran.after)
	s.Values[firstByte] = ms(printed.after)
	return errors.Join(ran.err, printed.err)
}

type arrived struct {
	after time.Duration
	err   error
}

func observeBare(ctx context.Context, pid, port int, run bareRun, s *sample) error {
	if err := pause(ctx, run.pace.settle/2); err != nil {
		return err
	}
	mib, err := pssOf(pid)
	if err != nil {
		return err
	}
	s.addMemory([]harness.ProcessMemory{{PID: pid, Role: "qemu", KiB: int(mib * 1024)}})
	if !run.observe {
		return nil
	}
	idle, err := cpuOver(ctx, run.pace.idle, []int{pid})
	if err != nil {
		return err
	}
	s.Values[idleCPU] = idle[0]
	return loadTest(ctx, fmt.Sprintf("127.0.0.1:%d", port), s)
}

// monitor is QEMU's QMP socket, made before QEMU runs: a connection waits in
// its backlog, so nobody polls.
type monitor struct {
	dir       string
	listening *os.File
	conn      net.Conn
}

func newMonitor() (*monitor, error) {
	dir, err := os.MkdirTemp("", "ndu-bare-")
	if err != nil {
		return nil, err
	}
	m := &monitor{dir: dir}
	if err := m.open(); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func (m *monitor) open() error {
	path := filepath.Join(m.dir, "qmp")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	if m.listening, err = l.File(); err != nil {
		return err
	}
	m.conn, err = net.Dial("unix", path)
	return err
}

// answers waits until QEMU says that the guest runs.
func (m *monitor) answers() error {
	_, err := io.WriteString(m.conn, `{"execute":"qmp_capabilities"}{"execute":"query-status"}`)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(m.conn)
	for lines.Scan() {
		var reply struct {
			Return struct{ Running bool }
		}
		if json.Unmarshal(lines.Bytes(), &reply) == nil && reply.Return.Running {
			return nil
		}
	}
	return fmt.Errorf("QEMU's monitor closed: %w", errors.Join(lines.Err(), io.EOF))
}

func (m *monitor) close() {
	if m.conn != nil {
		m.conn.Close()
	}
	if m.listening != nil {
		m.listening.Close()
	}
	_ = os.RemoveAll(m.dir)
}
