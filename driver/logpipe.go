// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// logPipe holds the pipe from which Nomad reads a task's output. QEMU writes
// into it by itself. The driver keeps it open for reading and writing, so that
// opening it waits for nobody, and a reader that went away (logmon is started
// again when it dies) is never the end of the pipe for QEMU.
type logPipe struct{ file *os.File }

// openLogPipe opens what Nomad names as a task's output: a FIFO, or /dev/null
// where the job turned logs off. Anything else, such as a link that a task put
// in the FIFO's place, is refused: QEMU would write there.
func openLogPipe(path string) (*logPipe, error) {
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
	return &logPipe{file: file}, nil
}

// writer opens the same pipe for QEMU, for writing only.
func (p *logPipe) writer() (*os.File, error) {
	raw, err := p.file.SyscallConn()
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
	return os.NewFile(uintptr(fd), p.file.Name()), nil
}

// close lets go of the pipe. It may be called on nil.
func (p *logPipe) close() {
	if p != nil {
		p.file.Close()
	}
}
