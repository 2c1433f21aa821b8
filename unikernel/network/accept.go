// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
)

const (
	// attempt bounds one try to connect: a guest that boots ignores the first
	// packet, and the next one comes only after a second.
	attempt = 200 * time.Millisecond
	// pause is between looks. A guest tells nobody when it begins to listen.
	pause = 20 * time.Millisecond
)

// Monitor asks QEMU's human monitor and returns its answer.
type Monitor func(ctx context.Context, command string) (string, error)

// AwaitAccept waits until the guest itself accepts a TCP connection on a port,
// or ctx ends. It sends the guest nothing.
func (n *NIC) AwaitAccept(ctx context.Context, p Port, ask Monitor) error {
	to := netip.AddrPortFrom(n.Net.Address.Addr(), p.Guest)
	try := func() (bool, error) { return n.tryBridge(ctx, to) }
	if n.Netns == "" {
		try = func() (bool, error) { return tryUser(ctx, p, to, ask) }
	}
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		if accepted, err := try(); accepted || err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("the guest accepts no connection on %s: %w", to, context.Cause(ctx))
		}
	}
}

// tryBridge connects to the guest from its namespace.
func (n *NIC) tryBridge(ctx context.Context, to netip.AddrPort) (bool, error) {
	netns, err := openNetns(n.Netns)
	if err != nil {
		return false, err
	}
	defer func() { _ = netns.Close() }()
	var conn net.Conn
	refused := errors.New("refused")
	err = netns.Do(func(ns.NetNS) error {
		var err error
		if conn, err = dialShortly(ctx, to); err != nil {
			return refused
		}
		return nil
	})
	if errors.Is(err, refused) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, conn.Close()
}

func dialShortly(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	return new(net.Dialer).DialContext(ctx, "tcp4", to.String())
}

// tryUser connects to the host's port. There QEMU accepts, whatever the guest
// does, so QEMU is asked what has become of the connection on the guest's side.
func tryUser(ctx context.Context, p Port, to netip.AddrPort, ask Monitor) (bool, error) {
	host := p.HostIP
	if host.IsUnspecified() {
		host = loopback4
	}
	conn, err := dialShortly(ctx, netip.AddrPortFrom(host, p.Host))
	if err != nil {
		return false, nil // QEMU is busy
	}
	defer conn.Close()
	for begun := time.Now(); time.Since(begun) < attempt && ctx.Err() == nil; {
		_ = conn.SetReadDeadline(time.Now().Add(pause))
		got, rerr := conn.Read(make([]byte, 1))
		if got > 0 {
			return true, nil
		}
		table, err := ask(ctx, "info usernet")
		if err != nil {
			return false, err
		}
		if accepted, err := acceptedIn(table, to); accepted || err != nil {
			return accepted, err
		}
		if rerr != nil && !isTimeout(rerr) {
			return false, nil // the guest refused, and QEMU hung up
		}
	}
	return false, nil
}

var loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// agreed are the states in which both sides have agreed upon a connection.
// Source: libslirp, src/tcp.h.
var agreed = []string{"ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT_1", "CLOSING", "LAST_ACK", "FIN_WAIT_2", "TIME_WAIT"}

// acceptedIn reads QEMU's list of connections (info usernet), whose lines are
//
//	TCP[ESTABLISHED]  71  127.0.0.1 28731  198.19.16.15  8080  0  0
//
// for one to the guest. The forwarding itself is in the list too: where that
// is missing the list has another form.
func acceptedIn(table string, to netip.AddrPort) (bool, error) {
	known := false
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[4] != to.Addr().String() || fields[5] != strconv.Itoa(int(to.Port())) {
			continue
		}
		state, isTCP := strings.CutPrefix(strings.TrimSuffix(fields[0], "]"), "TCP[")
		if isTCP && slices.Contains(agreed, state) {
			return true, nil
		}
		known = known || isTCP
	}
	if !known {
		return false, fmt.Errorf("QEMU's list of connections does not have the forwarding to %s: %q", to, table)
	}
	return false, nil
}
