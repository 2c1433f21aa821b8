// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package guest

import (
	"net"
	"net/netip"
)

// firstIPv4 gives the first IPv4 addresses, at most so many.
func firstIPv4(addresses []netip.Addr, most int) []string {
	var first []string
	for _, address := range addresses {
		if len(first) < most && address.Is4() {
			first = append(first, address.String())
		}
	}
	return first
}

// ipv4Mask writes a prefix length as a mask, such as 255.255.255.0.
func ipv4Mask(prefix netip.Prefix) string {
	return net.IP(net.CIDRMask(prefix.Bits(), 32)).String()
}
