// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/miekg/dns"
)

// ErrNoResolver is returned where the host's DNS servers are of no use in
// another network namespace.
var ErrNoResolver = errors.New("no DNS server of the host can be asked from a network namespace (all are on the host's loopback or IPv6 only); name some in the group's network block: dns { servers = [\"…\"] }")

// resolvConfs tell the host's DNS servers. Where the first names only a
// resolver on the host's loopback, the second has what systemd's asks.
var resolvConfs = []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"}

// HostResolvers are the DNS servers of the host which a guest in bridge mode
// can ask as well: those on IPv4 and not on the host's loopback. Where there
// are none it returns ErrNoResolver, and a guest will find no names; that need
// not keep it from starting.
func HostResolvers() ([]netip.Addr, error) { return resolvers(resolvConfs...) }

// resolvers are the usable servers of the first of paths that has any.
func resolvers(paths ...string) ([]netip.Addr, error) {
	for _, path := range paths {
		config, err := dns.ClientConfigFromFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		if servers := reachable(config.Servers); len(servers) > 0 {
			return servers, nil
		}
	}
	return nil, ErrNoResolver
}

// reachable are those of servers that are of use outside the host's own namespace.
func reachable(servers []string) []netip.Addr {
	var out []netip.Addr
	for _, s := range servers {
		if a, err := netip.ParseAddr(s); err == nil && a.Is4() && !a.IsLoopback() && !a.IsUnspecified() {
			out = append(out, a)
		}
	}
	return out
}
