// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package network

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"testing"

	"github.com/shoenig/test/must"
)

func TestExplainNetdevError_FromQEMU(t *testing.T) {
	// Both protocols are held, since QEMU stops at the first that fails.
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	must.NoError(t, err)
	defer func() { _ = tcp.Close() }()
	taken := netip.MustParseAddrPort(tcp.Addr().String())

	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	must.NoError(t, err)
	defer func() { _ = udp.Close() }()
	takenUDP := netip.MustParseAddrPort(udp.LocalAddr().String())

	cases := []struct {
		name string
		at   netip.AddrPort
		want []string
	}{
		{"TCP port taken", taken, []string{"TCP", taken.String(), "another process"}},
		{"UDP port taken", takenUDP, []string{"UDP", takenUDP.String(), "another process"}},
		{"not an address of the host", netip.AddrPortFrom(netip.MustParseAddr("192.0.2.77"), taken.Port()), []string{"192.0.2.77", "no link of the host"}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			nic, err := User(Config{Ports: []Port{{Label: "http", HostIP: tc.at.Addr(), Host: tc.at.Port(), Guest: 80}}})
			must.NoError(t, err)
			qemu := exec.CommandContext(t.Context(), "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-S",
				"-netdev", nic.Netdev(3), "-device", "virtio-net-pci,netdev="+ID)
			out, err := qemu.CombinedOutput()
			must.Error(t, err)
			words, ok := ExplainNetdevError(string(out))
			must.True(t, ok, must.Sprint(string(out)))
			for _, want := range tc.want {
				must.StrContains(t, words, want)
			}
		})
	}
}

func TestExplainNetdevError_Privileged(t *testing.T) {
	words, ok := ExplainNetdevError(message("127.0.0.1", 81))
	must.True(t, ok)
	must.StrContains(t, words, "below 1024")
}

func TestExplainNetdevError_Others(t *testing.T) {
	for _, stderr := range []string{"", "qemu: something else", message("999.0.0.1", 80), message("127.0.0.1", 99999)} {
		_, ok := ExplainNetdevError(stderr)
		must.False(t, ok, must.Sprint(stderr))
	}
}

func message(ip string, number int) string {
	return fmt.Sprintf("qemu-system-x86_64: -netdev user,id=net0: Could not set up host forwarding rule 'tcp:%s:%d-:80'\n", ip, number)
}
