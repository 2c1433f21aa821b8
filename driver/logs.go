// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"

	"golang.org/x/sys/unix"
)

// logs are the pipes from which Nomad reads a task's output. QEMU writes the
// guest's console into stdout by itself; what QEMU has to say of its own goes
// to stderr when it has ended. Both are opened for reading and writing, so
// that opening waits for nobody, and a reader that went away (logmon is
// started again when it dies) is never the end of the pipe for QEMU.
type logs struct{ stdout, stderr *os.File }

func openLogs(config *drivers.TaskConfig) (*logs, error) {
	stdout, err := openLogPipe(config.StdoutPath)
	if err != nil {
		return nil, err
	}
	stderr, err := openLogPipe(config.StderrPath)
	if err != nil {
		stdout.Close()
		return nil, err
	}
	return &logs{stdout: stdout, stderr: stderr}, nil
}

// openLogPipe opens what Nomad names as a task's output: a FIFO, or /dev/null
// where the job turned logs off. Anything else, such as a link that a task put
// in the FIFO's place, is refused: QEMU would write there.
func openLogPipe(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the task's log pipe: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("opening the task's log pipe: %w", err)
	}
	if info.Mode()&os.ModeNamedPipe == 0 && path != os.DevNull {
		file.Close()
		return nil, fmt.Errorf("the task's log pipe %s is no pipe: something replaced it", path)
	}
	return file, nil
}

// console opens stdout again for QEMU, for writing only.
func (l *logs) console() (*os.File, error) {
	raw, err := l.stdout.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("opening the task's log pipe for QEMU: %w", err)
	}
	var fd int
	cerr := raw.Control(func(own uintptr) {
		fd, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", own), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	})
	if cerr != nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("opening the task's log pipe for QEMU: %w", err)
	}
	return os.NewFile(uintptr(fd), l.stdout.Name()), nil
}

// say writes to stderr, as much as the pipe takes without waiting.
func (l *logs) say(text string) {
	if l == nil || text == "" {
		return
	}
	_ = l.stderr.SetWriteDeadline(time.Now()) // /dev/null has none and takes all
	_, _ = io.WriteString(l.stderr, text)
}

// close lets go of the pipes. It may be called on nil.
func (l *logs) close() {
	if l != nil {
		l.stdout.Close()
		l.stderr.Close()
	}
}
