// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Package network prepares a guest's network card and undoes what it did.
//
// There are two ways. User gives a guest QEMU's user-mode network and needs no
// privilege. Bridge puts a tap into a network namespace and maps the
// namespace's ports to the guest. Inside its own network a guest has the same
// addresses and the same MAC in both, so what it was told at boot does not
// depend on where it runs.
//
// The package does not start QEMU. It returns a NIC, which says what to pass to it.
package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

const (
	// ID names the netdev; a QEMU -device refers to it with netdev=ID.
	ID = "net0"

	// DefaultMTU is the largest packet, in bytes, that a guest takes without
	// being told.
	DefaultMTU = 1500

	// MAC is the address of every guest's NIC. Each guest is alone on its
	// link, so none ever meets another with the same.
	MAC = "52:54:00:12:34:56"
)

// Port is one port of the guest that is reached from outside it. It is
// forwarded for both TCP and UDP, as Nomad's docker driver does.
type Port struct {
	// Label is the port's name in the job.
	Label string
	// HostIP is where the host listens, in user mode. It must be given; it
	// is 0.0.0.0 only where all interfaces are meant. Bridge does not use it.
	HostIP netip.Addr
	// Host is the host's port. Bridge does not use it: there, what listens
	// on the host is not this package's (in Nomad, it is CNI's portmap).
	Host uint16
	// Guest is the port on which the guest listens. In bridge mode it is
	// also the namespace's port, as it would be for a container.
	Guest uint16
}

// Config is what a NIC is to do.
type Config struct {
	// Ports are forwarded to the guest. No label may appear twice.
	Ports []Port
	// DNS are the servers that the guest is told. None: in user mode QEMU's
	// forwarder, which asks what the host asks; in bridge mode none. In
	// bridge mode a loopback address means the namespace's loopback, and the
	// guest is told its gateway instead, which leads there.
	DNS []netip.Addr
	// Hostname is the guest's name; empty: none.
	Hostname string
	// IPv6 tells that the guest can be told an IPv6 address. It gets one
	// where what it is connected to has IPv6.
	IPv6 bool
}

// NIC is a network card that is ready for QEMU. Its files are open until Close.
type NIC struct {
	// Net is what the guest is told of its network.
	Net guest.Net
	// MTU is the largest packet, in bytes, that the way out takes. Traffic
	// over TCP is kept below it without the guest's help. It is never more
	// than DefaultMTU.
	MTU int
	// Netns is the path of the network namespace that QEMU runs in; empty:
	// the host's.
	Netns string
	// Files are to be inherited by QEMU, in this order.
	Files []*os.File
	// Undo undoes what was done. It is data, to be kept in the task's state.
	Undo State

	netdev func(fd int) string
}

// Netdev is the value of QEMU's -netdev, complete and escaped. Files are
// inherited by QEMU as descriptors from fd on: 3 where they are the first of
// exec.Cmd.ExtraFiles.
func (n *NIC) Netdev(fd int) string { return n.netdev(fd) }

// Close closes this process's copies of Files. It is called once QEMU has
// inherited them, or when it failed to start: a tap lives as long as someone
// holds it open.
func (n *NIC) Close() error {
	var errs []error
	for _, f := range n.Files {
		errs = append(errs, f.Close())
	}
	n.Files = nil
	return errors.Join(errs...)
}

// State is what is needed to undo a NIC, also by another process and later.
// Its zero value undoes nothing.
type State struct {
	// Netns is the path of the namespace that was changed.
	Netns string
	// Table is the name of the nftables tables that were added there, one
	// for IPv4 and one for IPv6. Empty: not known, as it is before Bridge has
	// returned. The tap needs no undo: it ends with QEMU.
	Table string
	// Lease is what ServeDHCP tells.
	Lease Lease
}

// Planned is the state to record before Bridge is called, so that a process
// that dies in the middle of it leaves nothing that nobody knows of.
func Planned(netns string) State { return State{Netns: netns} }

// Undo removes what Bridge left in the namespace, after QEMU has ended. It may
// be called any number of times, and also when the namespace is gone.
func (s State) Undo(ctx context.Context) error {
	if s.Netns == "" {
		return nil
	}
	return undoBridge(ctx, s)
}

// check refuses a configuration that could not work, before anything is done.
func (c Config) check() error {
	labels := make(map[string]bool, len(c.Ports))
	for _, p := range c.Ports {
		if labels[p.Label] {
			return fmt.Errorf("port label %q is given twice; each label forwards one port, so remove one", p.Label)
		}
		labels[p.Label] = true
		if p.Guest == 0 {
			return fmt.Errorf("port %q has no port in the guest; set \"to\" in the group's network block, or leave it out to use the host's port", p.Label)
		}
	}
	return c.checkNames()
}

// checkNames refuses DNS servers and names that a guest cannot be told.
func (c Config) checkNames() error {
	for _, a := range c.DNS {
		if usable := a.Is4() || (a.Is6() && c.IPv6); !usable {
			return fmt.Errorf("DNS server %q is not an IPv4 address, and the guest can be told no other; give the group's dns block one", a)
		}
	}
	if strings.ContainsAny(c.Hostname, " \t\r\n:\x00") {
		return fmt.Errorf("hostname %q contains white space or a colon; use letters, digits, dots and hyphens", c.Hostname)
	}
	return nil
}

// tell is what a guest in the subnet s is told.
func (c Config) tell(s subnet, ipv6 bool, dns []netip.Addr) guest.Net {
	told := guest.Net{
		Address:  netip.PrefixFrom(on(s.v4(), guestHost), subnetBits),
		Gateway:  on(s.v4(), gatewayHost),
		DNS:      dns,
		Hostname: c.Hostname,
	}
	if ipv6 {
		told.Address6 = netip.PrefixFrom(on(s.v6(), guestHost), subnet6Bits)
		told.Gateway6 = on(s.v6(), gatewayHost)
	}
	return told
}
