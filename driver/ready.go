// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/machine"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/machine/qmp"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/network"
)

// readyLines is how many of the console's last lines tell why a guest did not
// get ready.
const readyLines = 5

// awaitReady waits for what the job says that "up" means: a console line, a
// port on which the guest accepts connections, both, or nothing.
func (l *launch) awaitReady(ctx context.Context, m *machine.Machine) error {
	ctx, cancel := context.WithTimeout(ctx, l.wish.readyTimeout)
	defer cancel()
	if l.wish.ready != nil {
		if err := l.awaitLine(ctx, m); err != nil {
			return err
		}
	}
	if l.wish.Ready.Port != "" {
		return l.awaitPort(ctx, m)
	}
	return nil
}

func (l *launch) awaitLine(ctx context.Context, m *machine.Machine) error {
	select {
	case <-m.Ready():
		return nil
	case <-m.Done():
		return endedEarly(m)
	case <-ctx.Done():
		return fmt.Errorf("the guest printed no line that matches ready.pattern %q within %s; its last lines: %s",
			l.wish.Ready.Pattern, l.wish.readyTimeout, quoteLines(m.LastLines(readyLines)))
	}
}

func (l *launch) awaitPort(ctx context.Context, m *machine.Machine) error {
	at := slices.IndexFunc(l.ports, func(p network.Port) bool { return p.Label == l.wish.Ready.Port })
	if at < 0 || l.nic == nil {
		return fmt.Errorf("config.ready.port: %q is none of config.ports %q", l.wish.Ready.Port, l.wish.Ports)
	}
	accepting, cancel := context.WithCancel(ctx)
	defer cancel()
	accepted := make(chan error, 1)
	go func() { accepted <- l.nic.AwaitAccept(accepting, l.ports[at], m.AskMonitor) }() // ends with accepting
	var err error
	select {
	case err = <-accepted:
	case <-m.Done():
		cancel()
		err = <-accepted
	}
	switch {
	case err == nil:
		return nil
	case ended(ctx, m, err):
		return endedEarly(m)
	case ctx.Err() != nil:
		return fmt.Errorf("the guest accepted no connection on ready.port %q (its port %d) within %s; its last lines: %s",
			l.wish.Ready.Port, l.ports[at].Guest, l.wish.readyTimeout, quoteLines(m.LastLines(readyLines)))
	}
	return fmt.Errorf("waiting for ready.port %q: %w", l.wish.Ready.Port, err)
}

// ended tells whether a machine has ended. A QEMU that hung up in the middle of
// an answer is about to.
func ended(ctx context.Context, m *machine.Machine, err error) bool {
	if errors.Is(err, qmp.ErrClosed) {
		select {
		case <-m.Done():
		case <-ctx.Done():
		}
	}
	select {
	case <-m.Done():
		return true
	default:
		return false
	}
}

func endedEarly(m *machine.Machine) error {
	return fmt.Errorf("the guest ended before it was ready: %s; its last lines: %s",
		m.Result().Message, quoteLines(m.LastLines(readyLines)))
}

func quoteLines(lines []string) string {
	if len(lines) == 0 {
		return "none at all"
	}
	return fmt.Sprintf("%q", lines)
}
