// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package network

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The networks that guests see: the first of the pool that is free. They are
// the same on every node, so that what a guest was told at boot stays true
// where it is saved and restored, and lie where no node is expected to have an
// address: 198.18.0.0/15 is set aside for benchmarks of network devices (RFC
// 2544), and is neither private, nor a carrier's or a VPN's, nor a cloud's.
var pool = netip.MustParsePrefix("198.19.16.0/20")

// Their IPv6 twins, one for each, under a prefix that was chosen by chance as
// RFC 4193 asks.
var pool6 = netip.MustParsePrefix("fdc6:1f4e:2b90::/48")

const (
	subnetBits  = 24
	subnet6Bits = 64

	// maxSubnets is how many networks the pool has.
	maxSubnets = 16

	gatewayHost = 2  // the last byte of the gateway's address
	dnsHost     = 3  // of the DNS forwarder of user mode; there is none in bridge mode
	guestHost   = 15 // of the guest's address
)

// subnet is the network of one guest, as the number it has in the pool.
type subnet int

// v4 is its IPv4 network.
func (s subnet) v4() netip.Prefix {
	a := pool.Addr().As4()
	a[2] += byte(s)
	return netip.PrefixFrom(netip.AddrFrom4(a), subnetBits)
}

// v6 is its IPv6 network.
func (s subnet) v6() netip.Prefix {
	a := pool6.Addr().As16()
	a[7] = byte(s)
	return netip.PrefixFrom(netip.AddrFrom16(a), subnet6Bits)
}

// on is a host's address in the network p.
func on(p netip.Prefix, host byte) netip.Addr {
	if p.Addr().Is4() {
		a := p.Addr().As4()
		a[3] = host
		return netip.AddrFrom4(a)
	}
	a := p.Addr().As16()
	a[15] = host
	return netip.AddrFrom16(a)
}

// free are the networks of the pool that overlap none of used.
func free(used []netip.Prefix) []subnet {
	var out []subnet
	for i := range subnet(maxSubnets) {
		taken := func(p netip.Prefix) bool { return p.Overlaps(i.v4()) || p.Overlaps(i.v6()) }
		if !slices.ContainsFunc(used, taken) {
			out = append(out, i)
		}
	}
	return out
}

// routedNetworks are the networks that the current namespace has routes to,
// but for default routes: a guest in one of them would hide it.
func routedNetworks() ([]netip.Prefix, error) {
	routes, err := netlink.RouteList(nil, unix.AF_UNSPEC)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var used []netip.Prefix
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		p, err := netip.ParsePrefix(r.Dst.String())
		if err == nil && p.Bits() > 0 {
			used = append(used, p)
		}
	}
	return used, nil
}

// errNoSubnet tells that the pool is full, by guests or by routes of the place.
func errNoSubnet(place string) error {
	return fmt.Errorf("no network for the guest is free: the %s has guests or routes in all of %s", place, pool)
}

// hasIPv6 tells whether the current namespace has an IPv6 address that others
// could answer to.
func hasIPv6() bool {
	addresses, err := netlink.AddrList(nil, unix.AF_INET6)
	if err != nil {
		return false // a kernel without IPv6
	}
	return slices.ContainsFunc(addresses, func(a netlink.Addr) bool { return a.IP.IsGlobalUnicast() })
}
