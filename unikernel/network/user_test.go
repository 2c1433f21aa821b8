// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package network

import (
	"net/netip"
	"testing"

	"github.com/shoenig/test/must"
)

var loopback = netip.MustParseAddr("127.0.0.1")

func TestUser_Netdev(t *testing.T) {
	const base = "user,id=net0,ipv6=off,net=10.0.2.0/24,host=10.0.2.2,dns=10.0.2.3,dhcpstart=10.0.2.15"
	cases := []struct {
		name   string
		config Config
		want   string
	}{
		{"no ports", Config{}, base},
		{
			"each port for TCP and UDP",
			Config{Ports: []Port{
				{"http", loopback, 25000, 8080},
				{"all", netip.MustParseAddr("0.0.0.0"), 25001, 53},
			}},
			base + ",hostfwd=tcp:127.0.0.1:25000-10.0.2.15:8080,hostfwd=udp:127.0.0.1:25000-10.0.2.15:8080" +
				",hostfwd=tcp:0.0.0.0:25001-10.0.2.15:53,hostfwd=udp:0.0.0.0:25001-10.0.2.15:53",
		},
		{"a comma in the hostname", Config{Hostname: "a,restrict=on"}, base + ",hostname=a,,restrict=on"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			nic, err := User(tc.config)
			must.NoError(t, err)
			must.Eq(t, tc.want, nic.Netdev(3))
			must.Eq(t, "10.0.2.15/24", nic.Net.Address.String())
			must.Eq(t, "10.0.2.2", nic.Net.Gateway.String())
			must.Eq(t, "10.0.2.3", nic.Net.DNS[0].String())
			must.Eq(t, tc.config.Hostname, nic.Net.Hostname)
			must.Eq(t, State{}, nic.Undo)
			must.NoError(t, nic.Undo.Undo(t.Context()))
			must.NoError(t, nic.Close())
		})
	}
}

func TestUser_DNS(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("192.0.2.53")}
	nic, err := User(Config{DNS: own})
	must.NoError(t, err)
	must.Eq(t, own, nic.Net.DNS)
}

func TestUser_Refuses(t *testing.T) {
	cases := []struct {
		name   string
		config Config
		want   []string
	}{
		{"label twice", Config{Ports: []Port{{"http", loopback, 1, 1}, {"http", loopback, 2, 2}}}, []string{`"http"`, "twice"}},
		{"no guest port", Config{Ports: []Port{{"http", loopback, 25000, 0}}}, []string{`"http"`, `"to"`}},
		{"no host port", Config{Ports: []Port{{"http", loopback, 0, 80}}}, []string{`"http"`, "host port"}},
		{"no host address", Config{Ports: []Port{{"http", netip.Addr{}, 25000, 80}}}, []string{`"http"`, "IPv4"}},
		{"IPv6 host address", Config{Ports: []Port{{"http", netip.MustParseAddr("::1"), 25000, 80}}}, []string{`"http"`, `"::1"`, "bridge"}},
		{
			"same host port", Config{Ports: []Port{{"http", loopback, 25000, 80}, {"api", loopback, 25000, 81}}},
			[]string{`"http"`, `"api"`, "127.0.0.1:25000"},
		},
		{"IPv6 DNS", Config{DNS: []netip.Addr{netip.MustParseAddr("2001:db8::1")}}, []string{"2001:db8::1", "IPv4"}},
		{"hostname", Config{Hostname: "a b"}, []string{`"a b"`}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			nic, err := User(tc.config)
			must.Error(t, err)
			must.Nil(t, nic)
			for _, want := range tc.want {
				must.StrContains(t, err.Error(), want)
			}
		})
	}
}

func TestUser_TwoLabelsOnOneGuestPort(t *testing.T) {
	// As with containers: one service offered on two of the host's networks.
	_, err := User(Config{Ports: []Port{{"private", loopback, 25000, 80}, {"public", loopback, 25001, 80}}})
	must.NoError(t, err)
}
