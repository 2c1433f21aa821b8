// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	tunDevice   = "/dev/net/tun"
	vhostDevice = "/dev/vhost-net"
	tapPrefix   = "uk"
)

// tap is a guest's link in the current network namespace. It is not
// persistent: the kernel removes it, its addresses and its routes when the
// last holder of file closes it, however that holder ended.
type tap struct {
	file   *os.File
	link   netlink.Link
	subnet subnet
	ipv6   bool
	mtu    int
}

// openTap makes a tap for one more guest in a network that neither the
// namespace has a route to nor is one of avoid.
func openTap(ipv6 bool, avoid []netip.Prefix) (*tap, error) {
	used, err := routedNetworks()
	if err != nil {
		return nil, err
	}
	for _, s := range free(append(used, avoid...)) {
		name := tapPrefix + strconv.Itoa(int(s))
		file, err := createTap(name)
		if errors.Is(err, unix.EBUSY) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return setUpTap(&tap{file: file, subnet: s, ipv6: ipv6, mtu: outMTU()}, name)
	}
	return nil, errNoSubnet("namespace or its host")
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

// gatewayMAC is the tap's address in each namespace. A guest that was saved
// remembers its gateway's, and is restored behind another tap.
var gatewayMAC = net.HardwareAddr{0x52, 0x54, 0x00, 0x12, 0x34, 0x01}

// setUpTap gives a new tap its addresses and brings it up. It owns the tap's file.
func setUpTap(t *tap, name string) (*tap, error) {
	if err := t.configure(name); err != nil {
		return nil, errors.Join(fmt.Errorf("set up tap %s: %w", name, explainPermission(err)), t.file.Close())
	}
	return t, nil
}

func (t *tap) configure(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	t.link = link
	if err := t.setSysctls(name); err != nil {
		return err
	}
	if err := netlink.LinkSetHardwareAddr(link, gatewayMAC); err != nil {
		return fmt.Errorf("set MAC address %s: %w", gatewayMAC, err)
	}
	if err := netlink.LinkSetMTU(link, t.mtu); err != nil {
		return fmt.Errorf("set MTU %d: %w", t.mtu, err)
	}
	for _, network := range t.networks() {
		address := netip.PrefixFrom(on(network, gatewayHost), network.Bits())
		parsed, err := netlink.ParseAddr(address.String())
		if err != nil {
			return err
		}
		if network.Addr().Is6() {
			parsed.Flags = unix.IFA_F_NODAD // nobody else is on this link
		}
		if err := netlink.AddrAdd(link, parsed); err != nil {
			return fmt.Errorf("add address %s: %w", address, err)
		}
	}
	return netlink.LinkSetUp(link)
}

// networks are those of the guest behind the tap.
func (t *tap) networks() []netip.Prefix {
	if t.ipv6 {
		return []netip.Prefix{t.subnet.v4(), t.subnet.v6()}
	}
	return []netip.Prefix{t.subnet.v4()}
}

// outMTU is the MTU of the link that the namespace's default route leaves by,
// and never more than a guest takes without being told.
func outMTU() int {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		if link := defaultLink(family); link != nil {
			return min(link.Attrs().MTU, DefaultMTU)
		}
	}
	return DefaultMTU
}

// defaultLink is the link that the namespace's default route leaves by; nil: none.
func defaultLink(family int) netlink.Link {
	byDefault := &netlink.Route{Dst: nil}
	routes, err := netlink.RouteListFiltered(family, byDefault, netlink.RT_FILTER_DST)
	if err != nil || len(routes) == 0 {
		return nil
	}
	link, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return nil
	}
	return link
}

// sysctl is a setting of the namespace, with its path under /proc/sys/net.
type sysctl struct{ key, value string }

// setSysctls lets the namespace forward, and lets loopback traffic cross the
// tap: a sidecar reaches the guest at 127.0.0.1, and the guest a sidecar's
// loopback at its gateway. Forwarding stays on until the namespace ends,
// since another guest may need it.
func (t *tap) setSysctls(link string) error {
	settings := []sysctl{
		{"ipv4/ip_forward", "1"},
		{"ipv4/conf/" + link + "/route_localnet", "1"},
	}
	if t.ipv6 {
		if out := defaultLink(netlink.FAMILY_V6); out != nil {
			// Else forwarding would take away a default route that a router advertised.
			settings = append(settings, sysctl{"ipv6/conf/" + out.Attrs().Name + "/accept_ra", "2"})
		}
		settings = append(settings,
			sysctl{"ipv6/conf/" + link + "/disable_ipv6", "0"},
			sysctl{"ipv6/conf/all/forwarding", "1"})
	} else {
		settings = append(settings, sysctl{"ipv6/conf/" + link + "/disable_ipv6", "1"})
	}
	return writeSysctls(settings)
}

func writeSysctls(settings []sysctl) error {
	root, err := os.OpenRoot("/proc/sys/net")
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for _, s := range settings {
		err := root.WriteFile(s.key, []byte(s.value), 0)
		if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(s.key, "ipv6/") {
			continue // a kernel without IPv6
		}
		if err != nil {
			return fmt.Errorf("set sysctl net/%s to %s: %w", s.key, s.value, err)
		}
	}
	return nil
}

// vhostSetOwner is VHOST_SET_OWNER of linux/vhost.h.
const vhostSetOwner = 0xaf01

// openVhost opens the kernel's own virtio-net back end at path, which spares
// QEMU each packet. It returns nil where the host has none that works: QEMU 7.2
// aborts on one that does not. A device has one owner, so another one is tried
// than QEMU gets.
func openVhost(path string) *os.File {
	tried, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer func() { _ = unix.Close(tried) }()
	if err := unix.IoctlSetInt(tried, vhostSetOwner, 0); err != nil {
		return nil
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), path)
}

// tapNetdev is the -netdev value for a tap at descriptor fd, followed by a vhost at fd+1.
func tapNetdev(fd int, vhost bool) string {
	netdev := fmt.Sprintf("tap,id=%s,fd=%d", ID, fd)
	if vhost {
		netdev += fmt.Sprintf(",vhost=on,vhostfd=%d", fd+1)
	}
	return netdev
}
