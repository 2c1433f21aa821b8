// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package network

import (
	"net/netip"
	"testing"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/shoenig/test/must"
)

var loopback = netip.MustParseAddr("127.0.0.1")

func TestUser_Netdev(t *testing.T) {
	const base = "user,id=net0,net=198.19.16.0/24,host=198.19.16.2,dns=198.19.16.3,dhcpstart=198.19.16.15,ipv6=off"
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
			base + ",hostfwd=tcp:127.0.0.1:25000-198.19.16.15:8080,hostfwd=udp:127.0.0.1:25000-198.19.16.15:8080" +
				",hostfwd=tcp:0.0.0.0:25001-198.19.16.15:53,hostfwd=udp:0.0.0.0:25001-198.19.16.15:53",
		},
		{"a comma in the hostname", Config{Hostname: "a,restrict=on"}, base + ",hostname=a,,restrict=on"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			nic, err := User(tc.config)
			must.NoError(t, err)
			must.Eq(t, tc.want, nic.Netdev(3))
			must.Eq(t, "198.19.16.15/24", nic.Net.Address.String())
			must.Eq(t, "198.19.16.2", nic.Net.Gateway.String())
			must.Eq(t, "198.19.16.3", nic.Net.DNS[0].String())
			must.Eq(t, tc.config.Hostname, nic.Net.Hostname)
			must.Eq(t, State{}, nic.Undo)
			must.NoError(t, nic.Undo.Undo(t.Context()))
			must.NoError(t, nic.Close())
		})
	}
}

// A host that has an address in the guest's network, as one behind another
// user-mode network may, is left the use of it.
func TestUser_AvoidsTheHostsNetworks(t *testing.T) {
	host := newNetns(t)
	run(t, host, func() error { return addRoute("198.19.16.0/24") })
	nic, err := userIn(host, Config{})
	must.NoError(t, err)
	must.Eq(t, "198.19.17.15/24", nic.Net.Address.String())
	must.StrContains(t, nic.Netdev(3), "net=198.19.17.0/24,host=198.19.17.2,dns=198.19.17.3,dhcpstart=198.19.17.15")

	run(t, host, func() error { return addRoute("198.18.0.0/15") })
	_, err = userIn(host, Config{})
	must.ErrorContains(t, err, "198.19.16.0/20")
}

// A guest gets IPv6 where it takes it and the host has it.
func TestUser_IPv6(t *testing.T) {
	host := newNetns(t)
	nic, err := userIn(host, Config{IPv6: true})
	must.NoError(t, err)
	must.False(t, nic.Net.Address6.IsValid())

	run(t, host, func() error { return configure("lo", "2001:db8::7/128", "") })
	nic, err = userIn(host, Config{IPv6: true})
	must.NoError(t, err)
	must.StrContains(t, nic.Netdev(3), ",ipv6-prefix=fdc6:1f4e:2b90::,ipv6-prefixlen=64,ipv6-host=fdc6:1f4e:2b90::2,ipv6-dns=fdc6:1f4e:2b90::3")
	must.Eq(t, "fdc6:1f4e:2b90::f/64", nic.Net.Address6.String())
	must.Eq(t, "fdc6:1f4e:2b90::2", nic.Net.Gateway6.String())

	nic, err = userIn(host, Config{})
	must.NoError(t, err)
	must.False(t, nic.Net.Address6.IsValid())
	must.StrContains(t, nic.Netdev(3), "ipv6=off")
}

// userIn is User on a host whose network is netns.
func userIn(netns ns.NetNS, c Config) (nic *NIC, err error) {
	err = in(netns, func() error {
		nic, err = User(c)
		return err
	})
	return nic, err
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
