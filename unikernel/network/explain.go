// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// hostfwdFailed is how QEMU's net/slirp.c says that it cannot listen on a
// port; it does not say why.
var hostfwdFailed = regexp.MustCompile(`Could not set up host forwarding rule '(tcp|udp):([0-9.]+):(\d+)-`)

// ExplainNetdevError puts into words what QEMU's standard error says of a
// network that it could not set up. It looks at the host for the reason, so it
// is called at once. It tells false where stderr holds no such message.
func ExplainNetdevError(stderr string) (string, bool) {
	found := hostfwdFailed.FindStringSubmatch(stderr)
	if found == nil {
		return "", false
	}
	proto := found[1]
	number, err := strconv.ParseUint(found[3], 10, 16)
	if err != nil {
		return "", false
	}
	ip, err := netip.ParseAddr(found[2])
	if err != nil {
		return "", false
	}
	at := netip.AddrPortFrom(ip, uint16(number))
	return fmt.Sprintf("QEMU cannot listen on the host's %s port %s: %s", strings.ToUpper(proto), at, whyNotListen(proto, at)), true
}

// firstUnprivilegedPort is where, by default, ports begin that any user may listen on.
const firstUnprivilegedPort = 1024

// whyNotListen tries to listen, since the kernel tells what QEMU does not.
func whyNotListen(proto string, at netip.AddrPort) string {
	err := tryListen(proto, at)
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return "another process has it; end that process, or give the port another number"
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Sprintf("no link of the host has the address %s; check the host network in the client's configuration", at.Addr())
	case err != nil:
		return err.Error()
	case at.Port() < firstUnprivilegedPort:
		return "QEMU's user may not listen on ports below 1024; use a higher port, bridge mode, or the sysctl net.ipv4.ip_unprivileged_port_start"
	default:
		return "another process had it a moment ago; a restart of the task will do"
	}
}

func tryListen(proto string, at netip.AddrPort) error {
	if proto == "udp" {
		conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
		if err != nil {
			return err
		}
		return conn.Close()
	}
	listener, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	return listener.Close()
}
