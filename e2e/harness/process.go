// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"golang.org/x/sys/unix"
)

// Process is a daemon in a session of its own: an interrupt typed at the
// terminal reaches the program that started it, which then ends it in order.
type Process struct {
	PID     int
	Started string // as the kernel counts, to know it from a later process of the same number
	Log     string // file that holds what it printed
}

// spawnIn is spawn in the network namespace at a path; empty: in our own.
func spawnIn(namespace, log string, env []string, argv ...string) (*Process, error) {
	if namespace == "" {
		return spawn(log, env, argv...)
	}
	place, err := ns.GetNS(namespace)
	if err != nil {
		return nil, err
	}
	defer func() { _ = place.Close() }()
	var p *Process
	err = place.Do(func(ns.NetNS) error { // on one thread, whose namespace a new process has
		p, err = spawn(log, env, argv...)
		return err
	})
	return p, err
}

// spawn starts a daemon that appends its output to a log.
func spawn(log string, env []string, argv ...string) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }() // the daemon holds its own
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", argv[0], err)
	}
	go func() { _ = cmd.Wait() }() // reaps it; ends with it
	return &Process{PID: cmd.Process.Pid, Started: startTime(cmd.Process.Pid), Log: log}, nil
}

// alive tells whether the daemon still runs.
func (p *Process) alive() bool {
	if startTime(p.PID) != p.Started {
		return false
	}
	ended, err := p.ended(0)
	return err == nil && !ended
}

// end sends a signal, waits until ctx ends, and then kills.
func (p *Process) end(ctx context.Context, sig syscall.Signal) error {
	if startTime(p.PID) != p.Started {
		return nil // over, and the number belongs to another
	}
	if err := syscall.Kill(p.PID, sig); errors.Is(err, syscall.ESRCH) {
		return nil
	} else if err != nil {
		return fmt.Errorf("sending %v to process %d: %w", sig, p.PID, err)
	}
	for ctx.Err() == nil {
		if ended, err := p.ended(200 * time.Millisecond); ended || err != nil {
			return err
		}
	}
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("killing process %d: %w", p.PID, err)
	}
	_, err := p.ended(5 * time.Second)
	return errors.Join(fmt.Errorf("process %d did not end on %v and was killed; its log is %s", p.PID, sig, p.Log), err)
}

// ended waits for the daemon's end, at most for limit. It works for processes
// that another program started.
func (p *Process) ended(limit time.Duration) (bool, error) {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("watching process %d: %w", p.PID, err)
	}
	defer func() { _ = unix.Close(fd) }()
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(limit.Milliseconds()))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return false, fmt.Errorf("watching process %d: %w", p.PID, err)
	}
	return n > 0, nil
}

// startTime is when a process started, in the kernel's clock ticks; empty where
// there is none.
func startTime(pid int) string {
	fields := statFields(pid)
	const start = 19 // the 22nd field of proc(5), the 20th after the name
	if len(fields) <= start {
		return ""
	}
	return fields[start]
}

// statFields are the fields of a process's stat file after its name, which
// stands in parentheses and may hold anything.
func statFields(pid int) []string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
}

// tail is the end of the daemon's log, for messages.
func (p *Process) tail() string {
	data, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	const lines = 15
	all := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

// retry calls f until it succeeds or ctx ends; then f's last error is returned.
// It is for things that tell nobody when they are ready.
func retry(ctx context.Context, every time.Duration, f func() error) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (gave up: %w)", err, context.Cause(ctx))
		case <-ticker.C:
		}
	}
}
