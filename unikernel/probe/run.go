// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// internalError is what QEMU prints when KVM gave a guest up. QEMU then stays,
// paused, for ever.
const internalError = "KVM internal error"

// inheritedPath is where QEMU finds the file that start hands down.
const inheritedPath = "/proc/self/fd/3"

// outputLimit bounds what is kept of QEMU's output, in bytes.
const outputLimit = 16 << 10

// ending is how a run of QEMU ended and what it printed.
type ending struct {
	output string
	status int            // exit status, where signal is 0
	signal syscall.Signal // that ended it; 0: none
	late   bool           // it was killed for taking too long
	err    error          // it could not be started
}

func (e ending) String() string {
	switch {
	case e.err != nil:
		return e.err.Error()
	case e.late:
		return fmt.Sprintf("no end within %s", patience)
	case e.signal != 0:
		return fmt.Sprintf("signal %d, output %q", e.signal, e.output)
	}
	return fmt.Sprintf("exit status %d, output %q", e.status, e.output)
}

// start runs QEMU to its end as the given user, with file, if any, at
// inheritedPath. It kills QEMU when KVM gives up, when patience is over and
// when ctx is.
func start(ctx context.Context, qemu string, args []string, as *syscall.Credential, file *os.File) ending {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	output := &watcher{fault: cancel}
	cmd := exec.CommandContext(ctx, qemu, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"LC_ALL=C"} // as for tasks; short knows these words
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	cmd.WaitDelay = time.Second
	if file != nil {
		cmd.ExtraFiles = []*os.File{file}
	}

	err := cmd.Run()
	ended := ending{output: output.text.String(), late: errors.Is(ctx.Err(), context.DeadlineExceeded)}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		status := exit.Sys().(syscall.WaitStatus)
		ended.status = status.ExitStatus()
		if status.Signaled() {
			ended.signal = status.Signal()
		}
	case err != nil:
		ended.err = err
	}
	return ended
}

// watcher keeps the beginning of QEMU's output and ends QEMU when KVM gives up.
type watcher struct {
	text  strings.Builder
	fault func()
}

// Write never fails: what is over the limit is dropped.
func (w *watcher) Write(p []byte) (int, error) {
	room := outputLimit - w.text.Len()
	w.text.Write(p[:min(room, len(p))])
	if strings.Contains(w.text.String(), internalError) {
		w.fault()
	}
	return len(p), nil
}

// memoryFile makes a file without a name, which any user can open by its
// descriptor and which vanishes with it.
func memoryFile(name string, data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, ending{err: err}.orShort(fmt.Errorf("making a file in memory for the payload: %w", err))
	}
	file := os.NewFile(uintptr(fd), name)
	if _, err := file.Write(data); err != nil {
		file.Close()
		return nil, ending{err: err}.orShort(fmt.Errorf("writing the payload to memory: %w", err))
	}
	return file, nil
}
