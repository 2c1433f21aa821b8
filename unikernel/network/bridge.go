// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Bridge puts a tap into the network namespace at path netns and maps the
// namespace's ports to the guest behind it. The guest is then reached at the
// namespace's address and, within it, at 127.0.0.1; it reaches out by the
// namespace's address, and the namespace's loopback at its gateway's.
//
// A second guest in the same namespace gets a network of its own, so its
// address differs. What fails leaves nothing behind.
func Bridge(ctx context.Context, netns string, c Config) (*NIC, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	host, err := routedNetworks() // which the guest is to reach as well
	if err != nil {
		return nil, fmt.Errorf("bridge network: %w", err)
	}
	var nic *NIC
	err = withNetns(ctx, netns, func() (err error) {
		nic, err = buildBridge(c, host)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("bridge network: %w", err)
	}
	nic.Netns = netns
	nic.Undo.Netns = netns
	return nic, nil
}

func undoBridge(ctx context.Context, s State) error {
	err := withNetns(ctx, s.Netns, func() error {
		if s.Table == "" {
			_, err := forwardedPorts() // which removes what has lost its tap
			return err
		}
		return deleteTables(s.Table)
	})
	if errors.Is(err, ErrNetnsGone) {
		return nil // and all that was in it
	}
	if err != nil {
		return fmt.Errorf("undo bridge network: %w", err)
	}
	return nil
}

// buildBridge works in the current network namespace.
func buildBridge(c Config, avoid []netip.Prefix) (*NIC, error) {
	taken, err := forwardedPorts()
	if err != nil {
		return nil, err
	}
	for _, p := range c.Ports {
		if label, ok := taken[p.Guest]; ok {
			return nil, fmt.Errorf("port %q and another task's port %q both have \"to = %d\" in one group, whose tasks share their ports; give one another \"to\"", p.Label, label, p.Guest)
		}
	}
	t, err := openTap(c.IPv6 && hasIPv6(), avoid)
	if err != nil {
		return nil, err
	}
	table, err := addRules(t, c.Ports)
	if err != nil {
		return nil, errors.Join(err, t.file.Close())
	}
	forgetFlows(c.Ports)
	return newBridgeNIC(c, t, table), nil
}

func newBridgeNIC(c Config, t *tap, table string) *NIC {
	files := []*os.File{t.file}
	vhost := openVhost(vhostDevice)
	if vhost != nil {
		files = append(files, vhost)
	}
	told := c.tell(t.subnet, t.ipv6, loopbackByGateway(c.DNS, on(t.subnet.v4(), gatewayHost)))
	return &NIC{
		Net:   told,
		MTU:   t.mtu,
		Files: files,
		Undo: State{Table: table, Lease: Lease{
			Link: t.link.Attrs().Name, Address: told.Address, Gateway: told.Gateway,
			DNS: told.DNS, MTU: uint16(t.mtu), Hostname: told.Hostname,
		}},
		netdev: func(fd int) string { return tapNetdev(fd, vhost != nil) },
	}
}

// loopbackByGateway is servers with each loopback address replaced by gateway,
// which leads there, and each server once.
func loopbackByGateway(servers []netip.Addr, gateway netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, s := range servers {
		if s.IsLoopback() {
			s = gateway
		}
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// forgetFlows makes the kernel look anew at UDP traffic to ports. A sender
// that never pauses keeps a flow alive which the kernel noted while no guest
// was there, and which would never reach the new one. Where the kernel cannot
// be asked, such a flow ends by itself, after a pause of the sender.
func forgetFlows(ports []Port) {
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		_, _ = netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, udpTo(ports))
	}
}

// udpTo matches UDP flows that ended at one of ports in the namespace itself.
type udpTo []Port

// MatchConntrackFlow tells whether flow is one of them.
func (u udpTo) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	to := flow.Forward
	if to.Protocol != unix.IPPROTO_UDP || !slices.ContainsFunc(u, func(p Port) bool { return p.Guest == to.DstPort }) {
		return false
	}
	routes, err := netlink.RouteGet(to.DstIP)
	return err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL
}
