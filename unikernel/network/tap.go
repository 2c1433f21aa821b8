// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	tunDevice   = "/dev/net/tun"
	vhostDevice = "/dev/vhost-net"
	tapPrefix   = "uk"

	// maxTaps is how many guests one namespace takes.
	maxTaps = 16

	// guestMTU is the largest packet that a guest takes without being told.
	guestMTU = 1500
)

// tap is a guest's link in the current network namespace. It is not
// persistent: the kernel removes it, its addresses and its routes when the
// last holder of file closes it, however that holder ended.
type tap struct {
	file    *os.File
	link    netlink.Link
	network netip.Prefix
	mtu     int
}

// openTap makes a tap for one more guest. The first in a namespace has the
// usual network, each further one the next, past those that the namespace
// has routes to already.
func openTap() (*tap, error) {
	used, err := routedNetworks()
	if err != nil {
		return nil, err
	}
	for i := range maxTaps {
		network := tapNetwork(i)
		if overlaps(network, used) {
			continue
		}
		file, err := createTap(tapPrefix + strconv.Itoa(i))
		if errors.Is(err, unix.EBUSY) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return setUpTap(file, tapPrefix+strconv.Itoa(i), network)
	}
	return nil, fmt.Errorf("no free network for the guest: the namespace has %d guests or routes that overlap %s to %s",
		maxTaps, tapNetwork(0), tapNetwork(maxTaps-1))
}

// tapNetwork is the network of a namespace's i-th tap.
func tapNetwork(i int) netip.Prefix {
	a := subnet.Addr().As4()
	a[2] += byte(i)
	return netip.PrefixFrom(netip.AddrFrom4(a), subnet.Bits())
}

// routedNetworks are the networks that the namespace has routes to, but for default routes.
func routedNetworks() ([]netip.Prefix, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list the namespace's routes: %w", err)
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

func overlaps(p netip.Prefix, others []netip.Prefix) bool {
	for _, o := range others {
		if p.Overlaps(o) {
			return true
		}
	}
	return false
}

// createTap makes a new tap in the calling thread's namespace; EBUSY where
// the name is taken. Its protocol is that of Documentation/networking/tuntap.rst.
func createTap(name string) (*os.File, error) {
	// Opened without os.OpenFile, which would hand it to Go's poller: a
	// descriptor that QEMU inherits must stay as it is.
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		return nil, fmt.Errorf("open %s: %w (bridge mode needs the kernel's tun module: modprobe tun)", tunDevice, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", tunDevice, explainPermission(err))
	}
	file := os.NewFile(uintptr(fd), tunDevice)
	if err := attachTap(fd, name); err != nil {
		return nil, errors.Join(fmt.Errorf("create tap %s: %w", name, explainPermission(err)), file.Close())
	}
	return file, nil
}

func attachTap(fd int, name string) error {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_TUN_EXCL)
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
}

// setUpTap gives a new tap its address and brings it up. It owns file.
func setUpTap(file *os.File, name string, network netip.Prefix) (*tap, error) {
	t := &tap{file: file, network: network, mtu: outMTU()}
	if err := t.configure(name); err != nil {
		return nil, errors.Join(fmt.Errorf("set up tap %s: %w", name, explainPermission(err)), file.Close())
	}
	return t, nil
}

func (t *tap) configure(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	t.link = link
	if err := setSysctls(name); err != nil {
		return err
	}
	if err := netlink.LinkSetMTU(link, t.mtu); err != nil {
		return fmt.Errorf("set MTU %d: %w", t.mtu, err)
	}
	address := netip.PrefixFrom(within(t.network, gatewayHost), t.network.Bits())
	parsed, err := netlink.ParseAddr(address.String())
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(link, parsed); err != nil {
		return fmt.Errorf("add address %s: %w", address, err)
	}
	return netlink.LinkSetUp(link)
}

// outMTU is the MTU of the link that the namespace's default route leaves by,
// and never more than a guest takes without being told.
func outMTU() int {
	byDefault := &netlink.Route{Dst: nil}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, byDefault, netlink.RT_FILTER_DST)
	if err != nil || len(routes) == 0 {
		return guestMTU
	}
	link, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return guestMTU
	}
	return min(link.Attrs().MTU, guestMTU)
}

// setSysctls lets the namespace forward, and lets loopback traffic cross the
// tap: a sidecar reaches the guest at 127.0.0.1, and the guest a sidecar's
// loopback at its gateway. Forwarding stays on until the namespace ends,
// since another guest may need it.
func setSysctls(link string) error {
	settings := []struct{ key, value string }{
		{"ipv4/ip_forward", "1"},
		{"ipv4/conf/" + link + "/route_localnet", "1"},
		{"ipv6/conf/" + link + "/disable_ipv6", "1"},
	}
	root, err := os.OpenRoot("/proc/sys/net")
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for _, s := range settings {
		err := root.WriteFile(s.key, []byte(s.value), 0)
		if errors.Is(err, fs.ErrNotExist) && s.key[:4] == "ipv6" {
			continue // a kernel without IPv6
		}
		if err != nil {
			return fmt.Errorf("set sysctl net/%s to %s: %w", s.key, s.value, err)
		}
	}
	return nil
}

// openVhost opens the kernel's own virtio-net back end, which spares QEMU each
// packet. It returns nil where the host has none.
func openVhost() *os.File {
	fd, err := unix.Open(vhostDevice, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), vhostDevice)
}

// tapNetdev is the -netdev value for a tap at descriptor fd, followed by a vhost at fd+1.
func tapNetdev(fd int, vhost bool) string {
	netdev := fmt.Sprintf("tap,id=%s,fd=%d", ID, fd)
	if vhost {
		netdev += fmt.Sprintf(",vhost=on,vhostfd=%d", fd+1)
	}
	return netdev
}
