// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
)

// leaseTime is for ever (RFC 2131, 3.3), so that a guest asks once, at its
// boot, and needs nobody to answer it again.
const leaseTime = math.MaxUint32 * time.Second

// Lease is what a guest on a tap is told when it asks by DHCP. Its fields are
// plain, to be kept in the task's state.
type Lease struct {
	Link     string // the tap
	Address  netip.Prefix
	Gateway  netip.Addr
	DNS      []netip.Addr
	MTU      uint16
	Hostname string
}

// DHCP answers the guest on one tap. User-mode networking needs none, as QEMU
// answers there itself.
type DHCP struct {
	lease   Lease
	conn    net.PacketConn
	serving sync.WaitGroup
}

// ServeDHCP answers the guest of a Bridge until Close. It may be called again,
// also by another process and later, once the last one has ended.
func (s State) ServeDHCP(ctx context.Context) (*DHCP, error) {
	if s.Netns == "" || s.Lease.Link == "" {
		return nil, errors.New("no tap to answer DHCP on")
	}
	d := &DHCP{lease: s.Lease}
	err := withNetns(ctx, s.Netns, func() (err error) {
		d.conn, err = server4.NewIPv4UDPConn(s.Lease.Link, &net.UDPAddr{IP: net.IPv4zero, Port: dhcpv4.ServerPort})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("answer DHCP on tap %s: %w", s.Lease.Link, explainPermission(err))
	}
	d.serving.Go(d.serve)
	return d, nil
}

// Close ends the answers. It may be called on nil.
func (d *DHCP) Close() {
	if d == nil {
		return
	}
	_ = d.conn.Close()
	d.serving.Wait()
}

// serve answers one request after the other, until the socket is closed or the
// tap has gone.
func (d *DHCP) serve() {
	buf := make([]byte, DefaultMTU)
	for {
		n, _, err := d.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		request, err := dhcpv4.FromBytes(buf[:n])
		if err != nil || request.OpCode != dhcpv4.OpcodeBootRequest {
			continue
		}
		if answer := d.lease.answer(request); answer != nil {
			// The guest has no address yet at which to answer it.
			to := &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ClientPort}
			_, _ = d.conn.WriteTo(answer.ToBytes(), to) // lost ones are asked for again
		}
	}
}

// answer is the server's to one request, or nil where it says nothing.
func (l Lease) answer(request *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	kind := dhcpv4.MessageTypeAck
	switch request.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		kind = dhcpv4.MessageTypeOffer
	case dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeInform:
	default:
		return nil
	}
	address := net.IP(l.Address.Addr().AsSlice())
	if wanted := request.RequestedIPAddress(); kind == dhcpv4.MessageTypeAck && wanted != nil && !wanted.Equal(address) {
		kind = dhcpv4.MessageTypeNak
	}
	gateway := net.IP(l.Gateway.AsSlice())
	modifiers := []dhcpv4.Modifier{
		dhcpv4.WithMessageType(kind),
		dhcpv4.WithServerIP(gateway),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(gateway)),
	}
	if kind != dhcpv4.MessageTypeNak {
		modifiers = append(modifiers, l.told(address, gateway)...)
	}
	reply, err := dhcpv4.NewReplyFromRequest(request, modifiers...)
	if err != nil {
		return nil
	}
	return reply
}

// told is what a guest is told besides its address.
func (l Lease) told(address, gateway net.IP) []dhcpv4.Modifier {
	modifiers := []dhcpv4.Modifier{
		dhcpv4.WithYourIP(address),
		dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(leaseTime)),
		dhcpv4.WithNetmask(net.CIDRMask(l.Address.Bits(), net.IPv4len*8)),
		dhcpv4.WithRouter(gateway),
		dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, binary.BigEndian.AppendUint16(nil, l.MTU)),
	}
	var servers []net.IP
	for _, s := range l.DNS {
		if s.Is4() {
			servers = append(servers, s.AsSlice())
		}
	}
	if len(servers) > 0 {
		modifiers = append(modifiers, dhcpv4.WithDNS(servers...))
	}
	if l.Hostname != "" {
		modifiers = append(modifiers, dhcpv4.WithOption(dhcpv4.OptHostName(l.Hostname)))
	}
	return modifiers
}
