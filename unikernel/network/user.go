// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package network

import (
	"fmt"
	"net/netip"
	"strings"
)

// User gives a guest QEMU's user-mode network, in which QEMU itself listens on
// the host's ports and makes the guest's connections. The guest reaches what
// the host reaches; nothing is reached in the guest but the given ports.
func User(c Config) (*NIC, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if err := checkHostPorts(c.Ports); err != nil {
		return nil, err
	}
	used, err := routedNetworks()
	if err != nil {
		return nil, fmt.Errorf("user-mode network: %w", err)
	}
	places := free(used)
	if len(places) == 0 {
		return nil, fmt.Errorf("user-mode network: %w", errNoSubnet("host"))
	}
	ipv6 := c.IPv6 && hasIPv6()
	dns := c.DNS
	if len(dns) == 0 {
		dns = []netip.Addr{on(places[0].v4(), dnsHost)}
	}
	netdev := userNetdev(c, places[0], ipv6)
	return &NIC{
		Net:    c.tell(places[0], ipv6, dns),
		MTU:    DefaultMTU, // as slirp's own: IF_MTU in libslirp's if.h
		netdev: func(int) string { return netdev },
	}, nil
}

// checkHostPorts refuses ports on which QEMU could not listen.
func checkHostPorts(ports []Port) error {
	taken := make(map[netip.AddrPort]string, len(ports))
	for _, p := range ports {
		if !p.HostIP.Is4() {
			return fmt.Errorf("port %q: host address %q is not an IPv4 address; user-mode networking forwards IPv4 only, so choose a host network with an IPv4 address, or bridge mode", p.Label, p.HostIP)
		}
		if p.Host == 0 {
			return fmt.Errorf("port %q has no host port; give the group's network block a port %q, static or dynamic", p.Label, p.Label)
		}
		at := netip.AddrPortFrom(p.HostIP, p.Host)
		if other, ok := taken[at]; ok {
			return fmt.Errorf("ports %q and %q both listen on %s; give one of them another port", other, p.Label, at)
		}
		taken[at] = p.Label
	}
	return nil
}

// userNetdev is the -netdev value, whose options are those of NetdevUserOptions
// in QEMU's qapi/net.json. Over IPv6 the guest reaches out, but is not reached:
// QEMU forwards the host's IPv4 ports only.
func userNetdev(c Config, s subnet, ipv6 bool) string {
	opts := []string{
		"user",
		"id=" + ID,
		"net=" + s.v4().String(),
		"host=" + on(s.v4(), gatewayHost).String(),
		"dns=" + on(s.v4(), dnsHost).String(),
		"dhcpstart=" + on(s.v4(), guestHost).String(),
	}
	if ipv6 {
		opts = append(opts,
			"ipv6-prefix="+s.v6().Addr().String(),
			fmt.Sprintf("ipv6-prefixlen=%d", subnet6Bits),
			"ipv6-host="+on(s.v6(), gatewayHost).String(),
			"ipv6-dns="+on(s.v6(), dnsHost).String())
	} else {
		opts = append(opts, "ipv6=off")
	}
	if c.Hostname != "" {
		opts = append(opts, "hostname="+escape(c.Hostname))
	}
	to := on(s.v4(), guestHost)
	for _, p := range c.Ports {
		for _, proto := range protocols {
			opts = append(opts, fmt.Sprintf("hostfwd=%s:%s:%d-%s:%d", proto, p.HostIP, p.Host, to, p.Guest))
		}
	}
	return strings.Join(opts, ",")
}

// protocols are what every port is forwarded for.
var protocols = []string{"tcp", "udp"}

// escape makes a value safe within a QEMU option: there, a comma is doubled.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }
