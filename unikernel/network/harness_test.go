// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package network

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/google/nftables"
	"github.com/shoenig/test/must"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// patience is when an answer that did not come counts as lost.
const patience = 5 * time.Second

// Addresses between an allocation's namespace and what is outside it.
const (
	allocIP   = "192.0.2.2"
	outsideIP = "192.0.2.1"
)

// newNetns makes a network namespace that ends with the test, even if that is
// killed: nothing but an open file holds it.
func newNetns(t *testing.T) ns.NetNS {
	t.Helper()
	netns, err := ns.TempNetNS()
	must.NoError(t, err, must.Sprint("these tests need root"))
	t.Cleanup(func() { _ = netns.Close() })
	run(t, netns, func() error { return up("lo") })
	return netns
}

// pathOf is a path by which others find netns.
func pathOf(netns ns.NetNS) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), netns.Fd()) }

// in calls f in netns.
func in(netns ns.NetNS, f func() error) error { return netns.Do(func(ns.NetNS) error { return f() }) }

func run(t *testing.T, netns ns.NetNS, f func() error) {
	t.Helper()
	must.NoError(t, in(netns, f))
}

func up(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// configure gives a link its address and, where gateway is set, the namespace its default route.
func configure(name, address, gateway string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	parsed, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	if parsed.IP.To4() == nil {
		parsed.Flags = unix.IFA_F_NODAD
	}
	if err := errors.Join(netlink.AddrAdd(link, parsed), netlink.LinkSetUp(link)); err != nil {
		return err
	}
	if gateway == "" {
		return nil
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(gateway)})
}

// newAlloc makes an allocation's namespace as Nomad's bridge mode has it, and
// the namespace outside it. mtu is that of the allocation's link.
func newAlloc(t *testing.T, mtu int) (alloc, outside ns.NetNS) {
	t.Helper()
	alloc, outside = newNetns(t), newNetns(t)
	run(t, alloc, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = "eth0", mtu
		pair := &netlink.Veth{LinkAttrs: attrs, PeerName: "host0", PeerMTU: DefaultMTU, PeerNamespace: netlink.NsFd(int(outside.Fd()))}
		return netlink.LinkAdd(pair)
	})
	run(t, outside, func() error { return configure("host0", outsideIP+"/24", "") })
	// Some hosts are strict about the ways that packets come, and namespaces inherit it.
	run(t, alloc, func() error {
		strict := os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte("1"), 0)
		return errors.Join(strict, configure("eth0", allocIP+"/24", outsideIP))
	})
	return alloc, outside
}

// bridge is Bridge for ports given as label and number.
func bridge(t *testing.T, alloc ns.NetNS, ports ...Port) *NIC {
	t.Helper()
	nic, err := Bridge(t.Context(), pathOf(alloc), Config{Ports: ports})
	must.NoError(t, err)
	t.Cleanup(func() { _ = nic.Close() })
	return nic
}

// newGuest stands in for a guest: a namespace whose only link is the other end
// of nic's tap, with the addresses that the guest is told.
func newGuest(t *testing.T, nic *NIC) ns.NetNS {
	t.Helper()
	netns := newLink(t, nic)
	run(t, netns, func() error {
		err := configure("eth0", nic.Net.Address.String(), nic.Net.Gateway.String())
		if nic.Net.Address6.IsValid() {
			err = errors.Join(err, configure("eth0", nic.Net.Address6.String(), nic.Net.Gateway6.String()))
		}
		return err
	})
	return netns
}

// newLink is newGuest before it has any address.
func newLink(t *testing.T, nic *NIC) ns.NetNS {
	t.Helper()
	netns := newNetns(t)
	var link *os.File
	run(t, netns, func() (err error) {
		if link, err = createTap("eth0"); err != nil {
			return err
		}
		return up("eth0")
	})
	join(t, link, duplicate(t, nic.Files[0]))
	return netns
}

// duplicate is a copy of f's descriptor.
func duplicate(t *testing.T, f *os.File) *os.File {
	t.Helper()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	must.NoError(t, err)
	return os.NewFile(uintptr(fd), f.Name())
}

// join copies frames between two taps, both ways, until the test ends. It owns both.
func join(t *testing.T, a, b *os.File) {
	t.Helper()
	a, b = pollable(t, a), pollable(t, b)
	var copying sync.WaitGroup
	copyFrames := func(to, from *os.File) {
		frame := make([]byte, 1<<16)
		for {
			n, err := from.Read(frame)
			if err != nil {
				return
			}
			_, _ = to.Write(frame[:n]) // a link that is down loses frames
		}
	}
	copying.Go(func() { copyFrames(a, b) })
	copying.Go(func() { copyFrames(b, a) })
	t.Cleanup(func() {
		_ = a.Close()
		_ = b.Close()
		copying.Wait()
	})
}

// pollable is f in a form whose Close ends its reads.
func pollable(t *testing.T, f *os.File) *os.File {
	t.Helper()
	out := duplicate(t, f)
	fd, err := unix.FcntlInt(out.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	must.NoError(t, err)
	must.NoError(t, out.Close())
	must.NoError(t, f.Close())
	must.NoError(t, unix.SetNonblock(fd, true))
	return os.NewFile(uintptr(fd), f.Name())
}

// serve answers each line or datagram at address, over TCP and UDP, with the
// sender's address as the server sees it.
func serve(t *testing.T, netns ns.NetNS, address string) {
	t.Helper()
	var listener net.Listener
	var packets net.PacketConn
	run(t, netns, func() (err error) {
		if listener, err = net.Listen("tcp", address); err != nil {
			return err
		}
		packets, err = net.ListenPacket("udp", address)
		return err
	})
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = fmt.Fprintln(conn, conn.RemoteAddr())
			_ = conn.Close()
		}
	})
	serving.Go(func() {
		buf := make([]byte, 2048)
		for {
			_, from, err := packets.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo([]byte(from.String()+"\n"), from)
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		_ = packets.Close()
		serving.Wait()
	})
}

// dial opens a connection from within netns.
func dial(netns ns.NetNS, proto, address string) (conn net.Conn, err error) {
	err = in(netns, func() error {
		conn, err = net.DialTimeout(proto, address, patience)
		return err
	})
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(patience))
}

// ask asks a serve at address for the address that it sees.
func ask(netns ns.NetNS, proto, address string) (netip.Addr, error) {
	conn, err := dial(netns, proto, address)
	if err != nil {
		return netip.Addr{}, err
	}
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprintln(conn, "?"); err != nil {
		return netip.Addr{}, err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return netip.Addr{}, err
	}
	seen, err := netip.ParseAddrPort(line[:len(line)-1])
	return seen.Addr().Unmap(), err
}

// leftovers are the names of our tables and taps in netns.
func leftovers(t *testing.T, netns ns.NetNS) []string {
	t.Helper()
	var names []string
	run(t, netns, func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := conn.ListTables()
		if err != nil {
			return err
		}
		for _, table := range tables {
			names = append(names, table.Name)
		}
		links, err := netlink.LinkList()
		for _, link := range links {
			if link.Type() == "tuntap" {
				names = append(names, link.Attrs().Name)
			}
		}
		return err
	})
	return names
}

// addRoute adds a route to the namespace whose lo is up.
func addRoute(network string) error {
	link, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	_, dst, err := net.ParseCIDR(network)
	if err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Scope: netlink.SCOPE_LINK})
}
