// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"bufio"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// session is a `nomad alloc exec` on a task.
type session struct {
	in     *io.PipeWriter
	out    *bufio.Reader
	said   *bufio.Reader // stderr
	result chan *drivers.ExitResult
	err    chan error
}

func (h *harness) exec(ctx context.Context, task *drivers.TaskConfig, tty bool, command ...string) *session {
	h.t.Helper()
	inReader, inWriter := io.Pipe()
	outReader, outWriter := io.Pipe()
	saidReader, saidWriter := io.Pipe()
	s := &session{
		in: inWriter, out: bufio.NewReader(outReader), said: bufio.NewReader(saidReader),
		result: make(chan *drivers.ExitResult, 1), err: make(chan error, 1),
	}
	go func() {
		result, err := h.driver.ExecTaskStreaming(ctx, task.ID, &drivers.ExecOptions{
			Command: command, Tty: tty, Stdin: inReader, Stdout: outWriter, Stderr: saidWriter,
			ResizeCh: make(chan drivers.TerminalSize),
		})
		outWriter.Close()
		saidWriter.Close()
		s.result <- result
		s.err <- err
	}()
	return s
}

// await reads lines until one holds text.
func await(t *testing.T, from *bufio.Reader, text string) {
	t.Helper()
	for {
		line, err := from.ReadString('\n')
		must.NoError(t, err, must.Sprintf("before %q", text))
		if strings.Contains(line, text) {
			return
		}
	}
}

func TestExec_Console(t *testing.T) {
	for _, arch := range guest.Arches {
		t.Run(string(arch), func(t *testing.T) {
			h := newHarness(t, runDir(t), "")
			h.quiet = true
			task, _ := h.newTask(stepsConfig(t, arch, `args = ["--console-echo"]
				ready {
					pattern = "listening on port"
				}`))
			h.start(task)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			s := h.exec(ctx, task, false, "console")
			await(t, s.said, "Console of steps")
			await(t, s.out, "listening on port") // printed before
			_, err := io.WriteString(s.in, "hello there\n")
			must.NoError(t, err)
			await(t, s.out, `typed "hello there"`)

			must.NoError(t, h.StopTask(task.ID, 10*time.Second, ""))
			_, err = io.ReadAll(s.out)
			must.NoError(t, err)
			must.NoError(t, <-s.err)
			must.Eq(t, 15, (<-s.result).Signal)
		})
	}
}

func TestExec_Refuses(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	h.quiet = true
	task, _ := h.newTask(stepsConfig(t, guest.ARM64, `args = ["--exit=3"]`))
	h.start(task)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s := h.exec(ctx, task, true, "/bin/sh")
	await(t, s.said, "nomad alloc exec ALLOC console")
	must.Eq(t, 127, (<-s.result).ExitCode)
	_, err := h.ExecTask(task.ID, []string{"/bin/true"}, time.Second)
	must.ErrorContains(t, err, "script checks")
	must.Eq(t, 3, h.wait(task).ExitCode)
	must.ErrorContains(t, <-h.exec(ctx, task, true, "console").err, "has ended")
}
