// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/network"
)

// checkPorts: a label is given once, as it forwards one port.
func (c TaskConfig) checkPorts() error {
	for i, label := range c.Ports {
		if slices.Contains(c.Ports[:i], label) {
			return fmt.Errorf("port label %q is given twice: remove one", label)
		}
	}
	return nil
}

// noNetwork is the network_mode of a guest without a network card.
const noNetwork = "none"

func (c TaskConfig) checkNetworkMode() error {
	switch {
	case c.NetworkMode == "":
		return nil
	case c.NetworkMode != noNetwork:
		return fmt.Errorf("unknown mode %q: use %q for a guest without a network card, or leave it out: the group's network block has the mode", c.NetworkMode, noNetwork)
	case len(c.Ports) > 0 || c.DHCP:
		return fmt.Errorf("%q gives the guest no network card, so it has neither ports nor DHCP: remove them, or network_mode", noNetwork)
	}
	return nil
}

// portsOf finds the ports that a task's `ports` names among its group's.
func portsOf(task *drivers.TaskConfig, labels []string) ([]network.Port, error) {
	var ports []network.Port
	for _, label := range labels {
		port, err := portOf(task, label)
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}

func portOf(task *drivers.TaskConfig, label string) (network.Port, error) {
	if task.Resources.Ports == nil {
		return network.Port{}, fmt.Errorf("config.ports: %q: the task's group has no network block; add one with port %q", label, label)
	}
	mapping, ok := task.Resources.Ports.Get(label)
	if !ok {
		var known []string
		for _, p := range *task.Resources.Ports {
			known = append(known, p.Label)
		}
		return network.Port{}, fmt.Errorf("config.ports: the group's network block has no port %q; it has %q", label, known)
	}
	inside := mapping.Value
	if mapping.To > 0 {
		inside = mapping.To
	}
	host, err := netip.ParseAddr(mapping.HostIP)
	if err != nil {
		return network.Port{}, fmt.Errorf("port %q: host address: %w", label, err)
	}
	return network.Port{Label: label, HostIP: host, Host: uint16(mapping.Value), Guest: uint16(inside)}, nil
}

// openNetwork makes the guest's NIC as the group's network mode asks; nil: none.
func (l *launch) openNetwork(ctx context.Context) (*network.NIC, error) {
	if l.image.Devices != nil && l.demandedNICs() == 0 {
		return nil, nil // a Solo5 guest aborts where it finds a card that it does not know
	}
	if l.wish.NetworkMode == noNetwork {
		return nil, nil
	}
	config := network.Config{Ports: l.ports, IPv6: l.guest.TakesIPv6(l.args())}
	var err error
	if config.DNS, err = l.dnsServers(); err != nil {
		return nil, err
	}
	isolation := l.task.NetworkIsolation
	switch {
	case isolation == nil || isolation.Mode == drivers.NetIsolationModeHost || isolation.Mode == "":
		if l.wish.DHCP && len(config.DNS) > 0 {
			l.progress(fmt.Sprintf("network.dns: in host mode QEMU answers DHCP, and names its own forwarder to the host's resolver instead of %v", config.DNS))
		}
		return network.User(config)
	case isolation.Mode == drivers.NetIsolationModeGroup:
		return l.openBridge(ctx, isolation.Path, l.withResolvers(config))
	case len(l.ports) > 0:
		return nil, fmt.Errorf(`config.ports: %q: the group's network mode "none" has no ports`, l.wish.Ports)
	}
	return nil, nil
}

// openBridge makes a NIC in the allocation's namespace. The plan is recorded
// first, so that what a plugin has made that dies in the middle is found.
func (l *launch) openBridge(ctx context.Context, netns string, config network.Config) (*network.NIC, error) {
	l.state.Network = network.Planned(netns)
	if err := l.record.save(l.state); err != nil {
		return nil, err
	}
	l.reached(stepPlanned)
	nic, err := network.Bridge(ctx, netns, config)
	if err != nil {
		return nil, err
	}
	l.reached(stepNetworkMade)
	l.state.Network = nic.Undo
	if err := l.record.save(l.state); err != nil {
		return nil, errors.Join(err, nic.Close())
	}
	// Every guest is answered: which of them ask, nobody tells.
	if l.dhcp, err = nic.Undo.ServeDHCP(ctx); err != nil {
		return nil, errors.Join(err, nic.Close())
	}
	return nic, nil
}

// netProperties are the properties of the NIC's device: the family's, and the
// MTU where it is not the one that guests take for granted. Their drivers may
// ask for it (VIRTIO_NET_F_MTU).
func (l *launch) netProperties(family string) string {
	if l.nic.MTU >= network.DefaultMTU {
		return family
	}
	mtu := fmt.Sprintf("host_mtu=%d", l.nic.MTU)
	if family == "" {
		return mtu
	}
	return family + "," + mtu
}

// dnsServers are those of the group's network block.
func (l *launch) dnsServers() ([]netip.Addr, error) {
	if l.task.DNS == nil {
		return nil, nil
	}
	if dns := l.task.DNS; len(dns.Searches)+len(dns.Options) > 0 {
		l.progress(fmt.Sprintf("network.dns: guests are told servers only, not searches %q and options %q", dns.Searches, dns.Options))
	}
	var servers []netip.Addr
	for _, server := range l.task.DNS.Servers {
		addr, err := netip.ParseAddr(server)
		if err != nil {
			return nil, fmt.Errorf("network.dns.servers: %q is not an IP address: %w", server, err)
		}
		servers = append(servers, addr)
	}
	return servers, nil
}

// withResolvers adds the host's DNS servers where the group names none. A
// guest without any starts all the same: many never ask.
func (l *launch) withResolvers(config network.Config) network.Config {
	if len(config.DNS) > 0 {
		return config
	}
	servers, err := network.HostResolvers()
	if err != nil {
		l.progress("The guest will find no names: " + err.Error())
		return config
	}
	config.DNS = servers
	return config
}

// driverNetwork is what Nomad advertises of a service with address_mode =
// "driver". Nomad takes the address from here, and the port from the group's
// `to`, which is the guest's. In bridge mode, guests' ports are reached at the
// allocation's address. In user mode they are not reached; an address is given
// only where the host's ports are the same, else Nomad would advertise ports
// on which nobody listens.
func (l *launch) driverNetwork() *drivers.DriverNetwork {
	if l.nic == nil || len(l.ports) == 0 {
		return nil
	}
	first := l.ports[0]
	if l.nic.Netns != "" {
		return at(l.task.Env["NOMAD_ALLOC_IP_"+first.Label])
	}
	for _, port := range l.ports {
		mapping, _ := l.task.Resources.Ports.Get(port.Label)
		if mapping.To != mapping.Value || port.HostIP != first.HostIP {
			return nil
		}
	}
	return at(first.HostIP.String())
}

// at leaves address_mode = "auto" with the host's address, as for containers.
func at(address string) *drivers.DriverNetwork {
	if address == "" {
		return nil
	}
	return &drivers.DriverNetwork{IP: address}
}
