// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a QEMU process, our child or found again. It is held by a pidfd,
// so a signal never reaches another process that got the same number.
type process struct {
	pid       int
	startTime uint64 // in clock ticks since boot, from /proc/PID/stat
	pidfd     *os.File
	child     *os.Process // nil where this program did not start it

	running context.Context // ends when the process has ended
	ended   context.CancelFunc
	status  *syscall.WaitStatus // set before running ends; nil: not known
}

// errGone means that the process has ended, or its number has another owner.
var errGone = errors.New("the process is gone")

// spawn starts QEMU.
func spawn(c Config, args []string, inherit []*os.File, log *os.File) (*process, error) {
	cmd := exec.Command(c.QEMU, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"LC_ALL=C"} // nothing of the agent's environment
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = inherit
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true, // outlives this program and its terminal
		Credential: c.User,
	}
	if err := startConfined(c, cmd); err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.QEMU, err)
	}
	p, err := hold(cmd.Process.Pid, cmd.Process)
	if err != nil {
		_ = cmd.Process.Kill()
		_, _ = cmd.Process.Wait()
		return nil, err
	}
	return p, nil
}

// find holds a process that an earlier life of this program started. It
// returns errGone where the process has ended meanwhile.
func find(s State) (*process, error) {
	if s.Outdated() {
		return nil, errGone
	}
	p, err := hold(s.PID, nil)
	if err != nil {
		return nil, err
	}
	if p.startTime != s.StartTime {
		p.release()
		return nil, errGone
	}
	return p, nil
}

func hold(pid int, child *os.Process) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil, errGone
	}
	if err != nil {
		return nil, fmt.Errorf("opening process %d: %w", pid, err)
	}
	p := &process{pid: pid, pidfd: os.NewFile(uintptr(fd), "pidfd"), child: child}
	p.running, p.ended = context.WithCancel(context.Background())
	if p.startTime, err = startTime(pid); err != nil {
		p.pidfd.Close()
		return nil, err
	}
	go p.await()
	return p, nil
}

// await waits for the end without keeping a thread. It ends with the process,
// or with release.
func (p *process) await() {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return
	}
	err = raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err == nil && n > 0
	})
	if err != nil {
		return // released
	}
	if p.child != nil {
		p.reap()
	}
	p.ended()
}

// exitStatus is nil while the process runs, and where it is not our child.
func (p *process) exitStatus() *syscall.WaitStatus {
	if p.running.Err() == nil {
		return nil
	}
	return p.status
}

func (p *process) reap() {
	state, err := p.child.Wait()
	if err != nil {
		return
	}
	status := state.Sys().(syscall.WaitStatus)
	p.status = &status
}

// maxFiles bounds QEMU's descriptors. User-mode networking keeps one for each
// connection, for 12 seconds after its end, with 10 KiB of memory: without a
// bound a flood of connections takes QEMU over the task's memory limit.
const maxFiles = 1024

// limit sets QEMU's own limits where this program may: another user's need
// CAP_SYS_RESOURCE, which root lacks in some containers.
func (p *process) limit() error {
	limits := []struct {
		what     string
		resource int
		most     uint64
	}{
		{"descriptors", unix.RLIMIT_NOFILE, maxFiles},
		{"core dump", unix.RLIMIT_CORE, 0}, // it would hold the guest's memory
	}
	for _, l := range limits {
		err := unix.Prlimit(p.pid, l.resource, &unix.Rlimit{Cur: l.most, Max: l.most}, nil)
		if err != nil && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("limiting QEMU's %s: %w", l.what, err)
		}
	}
	return nil
}

// allowOOMKill undoes what QEMU inherits from an agent that systemd protects
// (OOMScoreAdjust=-1000): a task over its limit could not be killed then.
func (p *process) allowOOMKill() error {
	err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", p.pid), []byte("0"), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ESRCH) && !errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("letting the kernel kill QEMU over its limit: %w", err)
	}
	return nil
}

// release lets go of a process without ending it.
func (p *process) release() { p.pidfd.Close() }

func (p *process) kill() error {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return fmt.Errorf("killing process %d: %w", p.pid, err)
	}
	// Not Fd(): that would make the descriptor block, and await with it.
	_ = raw.Control(func(fd uintptr) { // fails only after release: nothing to kill
		err = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0)
	})
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

func (p *process) wait(ctx context.Context) error {
	select {
	case <-p.running.Done():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *process) waitFor(d time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return p.wait(ctx) == nil
}

// startTime reads when a process was started: with its number, its identity.
// It returns errGone where there is no such process.
func startTime(pid int) (uint64, error) {
	path := fmt.Sprintf("/proc/%d/stat", pid)
	stat, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return 0, errGone
	}
	if err != nil {
		return 0, err
	}
	// The second field, the name, is in parentheses and may hold anything.
	const startTimeField = 22 - 3 // proc(5) counts from 1; what follows the name begins with 3
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) <= startTimeField {
		return 0, fmt.Errorf("reading %s: no start time in %q", path, stat)
	}
	return strconv.ParseUint(fields[startTimeField], 10, 64)
}
