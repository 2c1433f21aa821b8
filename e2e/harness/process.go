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
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a daemon in a session of its own: an interrupt typed at the
// terminal reaches the program that started it, which then ends it in order.
type process struct {
	PID int
	Log string // file that holds what it printed
}

// spawn starts a daemon that appends its output to a log.
func spawn(log string, env []string, argv ...string) (*process, error) {
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
	return &process{PID: cmd.Process.Pid, Log: log}, nil
}

// alive tells whether the daemon still runs.
func (p *process) alive() bool {
	ended, err := p.ended(0)
	return err == nil && !ended
}

// end sends a signal, waits until ctx ends, and then kills.
func (p *process) end(ctx context.Context, sig syscall.Signal) error {
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
func (p *process) ended(limit time.Duration) (bool, error) {
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

// tail is the end of the daemon's log, for messages.
func (p *process) tail() string {
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
