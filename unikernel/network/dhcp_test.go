// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package network

import (
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/shoenig/test/must"
)

// A guest that was told nothing asks by DHCP, and is then reached as any other;
// also when another process has taken over from the one that made the tap.
func TestDHCP(t *testing.T) {
	alloc, outside := newAlloc(t, 1400)
	nic, err := Bridge(t.Context(), pathOf(alloc), Config{
		Ports: []Port{port("http", 8080)}, Hostname: "steps", DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53")},
	})
	must.NoError(t, err)
	t.Cleanup(func() { _ = nic.Close() })
	guest := newLink(t, nic)

	for range 2 { // processes, of which the second knows only what was recorded
		recorded, err := json.Marshal(nic.Undo)
		must.NoError(t, err)
		var state State
		must.NoError(t, json.Unmarshal(recorded, &state))
		server, err := state.ServeDHCP(t.Context())
		must.NoError(t, err)

		offer := discover(t, guest, dhcpv4.MessageTypeDiscover)
		must.Eq(t, dhcpv4.MessageTypeOffer, offer.MessageType())
		ack := discover(t, guest, dhcpv4.MessageTypeRequest, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(offer.YourIPAddr)))
		must.Eq(t, dhcpv4.MessageTypeAck, ack.MessageType())
		must.Eq(t, "198.19.16.15", ack.YourIPAddr.String())
		must.Eq(t, "ffffff00", ack.SubnetMask().String())
		must.Eq(t, "198.19.16.2", ack.Router()[0].String())
		must.Eq(t, "192.0.2.53", ack.DNS()[0].String())
		must.Eq(t, "steps", ack.HostName())
		must.Eq(t, []byte{1400 >> 8, 1400 & 0xff}, ack.Options.Get(dhcpv4.OptionInterfaceMTU))
		must.Eq(t, []byte{255, 255, 255, 255}, ack.Options.Get(dhcpv4.OptionIPAddressLeaseTime))

		other := discover(t, guest, dhcpv4.MessageTypeRequest, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(192, 168, 0, 9))))
		must.Eq(t, dhcpv4.MessageTypeNak, other.MessageType())
		server.Close()
	}

	run(t, guest, func() error { return configure("eth0", nic.Net.Address.String(), nic.Net.Gateway.String()) })
	serve(t, guest, ":8080")
	_, err = ask(outside, "tcp", allocIP+":8080")
	must.NoError(t, err)
}

// The server ends with its tap, and outlives no Close.
func TestDHCP_Ends(t *testing.T) {
	alloc, _ := newAlloc(t, 1500)
	nic := bridge(t, alloc)
	server, err := nic.Undo.ServeDHCP(t.Context())
	must.NoError(t, err)
	must.NoError(t, nic.Close())
	server.Close()
	_, err = nic.Undo.ServeDHCP(t.Context())
	must.ErrorContains(t, err, "uk0")
	(*DHCP)(nil).Close()
}

// discover sends a request as a guest without an address, until it is answered.
func discover(t *testing.T, guest ns.NetNS, kind dhcpv4.MessageType, more ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	mac, err := net.ParseMAC(MAC)
	must.NoError(t, err)
	request, err := dhcpv4.New(append(more, dhcpv4.WithHwAddr(mac), dhcpv4.WithMessageType(kind))...)
	must.NoError(t, err)
	var conn net.PacketConn
	run(t, guest, func() error {
		conn, err = server4.NewIPv4UDPConn("eth0", &net.UDPAddr{IP: net.IPv4zero, Port: dhcpv4.ClientPort})
		return err
	})
	defer func() { _ = conn.Close() }()
	buf := make([]byte, DefaultMTU)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		_, err := conn.WriteTo(request.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ServerPort})
		must.NoError(t, err)
		must.NoError(t, conn.SetReadDeadline(time.Now().Add(patience/5)))
		n, _, err := conn.ReadFrom(buf)
		if err == nil {
			answer, err := dhcpv4.FromBytes(buf[:n])
			must.NoError(t, err)
			must.Eq(t, request.TransactionID, answer.TransactionID)
			return answer
		}
	}
	must.NoError(t, errors.New("nobody answered"))
	return nil
}
