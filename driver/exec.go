// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"
)

// consoleCommand is the one command that `nomad alloc exec` takes here.
const consoleCommand = "console"

// shownLines are the last lines that one who attaches is shown first.
const shownLines = 10

var (
	_ drivers.ExecTaskStreamingDriver = (*Driver)(nil)

	errNoExec = errors.New("a unikernel is one program and runs no second one, so script checks and commands cannot work: " +
		"check it by http or tcp; `nomad alloc exec ALLOC " + consoleCommand + "` attaches to its console")
)

// ExecTask is how Nomad runs script checks and scripts of templates. It cannot
// work.
func (d *Driver) ExecTask(string, []string, time.Duration) (*drivers.ExecTaskResult, error) {
	return nil, errNoExec
}

// ExecTaskStreaming attaches `nomad alloc exec ALLOC console` to the guest's
// console, until the guest ends or the client leaves.
func (d *Driver) ExecTaskStreaming(ctx context.Context, taskID string, exec *drivers.ExecOptions) (*drivers.ExitResult, error) {
	t, err := d.tasks.get(taskID)
	if err != nil {
		return nil, err
	}
	if len(exec.Command) != 1 || exec.Command[0] != consoleCommand {
		return noSuchCommand(exec), nil
	}
	if !t.running() {
		return nil, fmt.Errorf("the guest of task %s has ended", t.config.Name)
	}
	// A client that went away takes no more output: nobody waits for it.
	defer context.AfterFunc(ctx, func() { exec.Stdout.Close() })()
	go ignoreResizes(ctx, exec.ResizeCh)

	if err := t.greet(exec); err != nil {
		return nil, err
	}
	if err := t.machine.Attach(ctx, exec.Stdin, exec.Stdout); err != nil {
		return nil, err
	}
	<-t.done
	return t.result.Copy(), nil
}

// noSuchCommand answers as a shell does, on stderr and by status 127: the words
// of an error do not reach every client of Nomad's API.
func noSuchCommand(exec *drivers.ExecOptions) *drivers.ExitResult {
	fmt.Fprintf(exec.Stderr, "%q: %v\r\n", strings.Join(exec.Command, " "), errNoExec)
	return &drivers.ExitResult{ExitCode: 127}
}

// ignoreResizes takes what a serial line cannot pass on. It ends with ctx,
// which ends with the client's call.
func ignoreResizes(ctx context.Context, resizes <-chan drivers.TerminalSize) {
	for {
		select {
		case _, ok := <-resizes:
			if !ok {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// greet says what this is, apart from the guest's own output where the client
// has a place for that, and shows the last lines.
func (t *task) greet(exec *drivers.ExecOptions) error {
	said, end := exec.Stderr, "\n"
	if exec.Tty {
		said, end = exec.Stdout, "\r\n"
	}
	lines := []string{
		fmt.Sprintf("[Console of %s, a %s guest: what it prints shows here, what you type goes to it.", t.config.Name, t.state.Family),
		" A shell is there only where the guest has one. Enter and then ~. leaves.]",
	}
	if _, err := io.WriteString(said, strings.Join(lines, end)+end); err != nil {
		return fmt.Errorf("greeting the console's client: %w", err)
	}
	for _, line := range t.machine.LastLines(shownLines) {
		if _, err := io.WriteString(exec.Stdout, line+end); err != nil {
			return fmt.Errorf("showing the console's last lines: %w", err)
		}
	}
	return nil
}
