// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package network

import (
	"os"
	"testing"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/shoenig/test/must"
)

const (
	allocIP6   = "2001:db8::2"
	outsideIP6 = "2001:db8::1"
)

// newDualAlloc is newAlloc with IPv6 addresses as well.
func newDualAlloc(t *testing.T, mtu int) (alloc, outside ns.NetNS) {
	t.Helper()
	alloc, outside = newAlloc(t, mtu)
	run(t, outside, func() error { return configure("host0", outsideIP6+"/64", "") })
	run(t, alloc, func() error { return configure("eth0", allocIP6+"/64", outsideIP6) })
	return alloc, outside
}

func TestBridge_IPv6(t *testing.T) {
	alloc, outside := newDualAlloc(t, 1500)
	nic, err := Bridge(t.Context(), pathOf(alloc), Config{Ports: []Port{port("http", 8080)}, IPv6: true})
	must.NoError(t, err)
	t.Cleanup(func() { _ = nic.Close() })
	must.Eq(t, "fdc6:1f4e:2b90::f/64", nic.Net.Address6.String())
	guest := newGuest(t, nic)
	serve(t, guest, ":8080")
	serve(t, alloc, ":7001")
	serve(t, outside, ":9000")

	cases := []struct {
		name, to string
		from     ns.NetNS
		seen     string
	}{
		{"outside to guest", "[" + allocIP6 + "]:8080", outside, outsideIP6},
		{"outside to guest, by IPv4", allocIP + ":8080", outside, outsideIP},
		{"outside to a sidecar", "[" + allocIP6 + "]:7001", outside, outsideIP6},
		{"sidecar to guest", "[" + allocIP6 + "]:8080", alloc, allocIP6},
		{"guest to outside", "[" + outsideIP6 + "]:9000", guest, allocIP6},
		{"guest to a sidecar", "[fdc6:1f4e:2b90::2]:7001", guest, "fdc6:1f4e:2b90::f"},
	}
	for _, tc := range cases {
		for _, proto := range protocols {
			t.Run(tc.name+" "+proto, func(t *testing.T) {
				seen, err := ask(tc.from, proto, tc.to)
				must.NoError(t, err)
				must.Eq(t, tc.seen, seen.Unmap().String())
			})
		}
	}

	must.NoError(t, nic.Close())
	must.NoError(t, nic.Undo.Undo(t.Context()))
	run(t, alloc, func() error {
		forwarding, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/forwarding")
		must.Eq(t, "1\n", string(forwarding))
		return err
	})
	must.SliceNotContains(t, leftovers(t, alloc), nic.Undo.Table)
}

// Where the guest cannot be told an address, or the allocation has none, all is
// as without IPv6.
func TestBridge_WithoutIPv6(t *testing.T) {
	dual, _ := newDualAlloc(t, 1500)
	must.False(t, bridge(t, dual).Net.Address6.IsValid())

	single, _ := newAlloc(t, 1500)
	nic, err := Bridge(t.Context(), pathOf(single), Config{IPv6: true})
	must.NoError(t, err)
	defer func() { _ = nic.Close() }()
	must.False(t, nic.Net.Address6.IsValid())
}
