// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package network

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/shoenig/test/must"
	"golang.org/x/sys/unix"
)

func port(label string, number uint16) Port { return Port{Label: label, Guest: number} }

func TestBridge_Reach(t *testing.T) {
	alloc, outside := newAlloc(t, 1500)
	nic := bridge(t, alloc, port("http", 8080))
	guest := newGuest(t, nic)
	serve(t, guest, ":8080")
	serve(t, alloc, "127.0.0.1:7000")
	serve(t, alloc, ":7001")
	serve(t, outside, ":9000")

	cases := []struct {
		name, to string
		from     ns.NetNS
		seen     string // the address that the server sees
	}{
		{"outside to guest", allocIP + ":8080", outside, outsideIP},
		{"outside to a sidecar", allocIP + ":7001", outside, outsideIP},
		{"sidecar to guest by loopback", "127.0.0.1:8080", alloc, "198.19.16.2"},
		{"sidecar to guest by the allocation's address", allocIP + ":8080", alloc, allocIP},
		{"guest to outside", outsideIP + ":9000", guest, allocIP},
		{"guest to a sidecar's loopback", "198.19.16.2:7000", guest, "127.0.0.1"},
		{"guest to a sidecar", "198.19.16.2:7001", guest, "127.0.0.1"},
		{"guest to a sidecar by the allocation's address", allocIP + ":7001", guest, allocIP},
		{"guest to itself by the allocation's address", allocIP + ":8080", guest, "198.19.16.2"},
	}
	for _, tc := range cases {
		for _, proto := range protocols {
			t.Run(tc.name+" "+proto, func(t *testing.T) {
				seen, err := ask(tc.from, proto, tc.to)
				must.NoError(t, err)
				must.Eq(t, tc.seen, seen.String())
			})
		}
	}
}

func TestBridge_OnlyItsPorts(t *testing.T) {
	alloc, outside := newAlloc(t, 1500)
	guest := newGuest(t, bridge(t, alloc, port("http", 8080)))
	serve(t, guest, ":8081")
	_, err := ask(outside, "tcp", allocIP+":8081")
	must.ErrorIs(t, err, unix.ECONNREFUSED)
}

func TestBridge_DropsForeignSources(t *testing.T) {
	alloc, outside := newAlloc(t, 1500)
	nic := bridge(t, alloc)
	guest := newGuest(t, nic)
	run(t, guest, func() error { return configure("eth0", "198.19.16.99/24", "") })

	var inbox net.PacketConn
	run(t, outside, func() (err error) {
		inbox, err = net.ListenPacket("udp4", ":9000")
		return err
	})
	defer func() { _ = inbox.Close() }()
	for _, source := range []string{"198.19.16.99", "198.19.16.15"} {
		run(t, guest, func() error {
			conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(source)}, &net.UDPAddr{IP: net.ParseIP(outsideIP), Port: 9000})
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			_, err = conn.Write([]byte(source))
			return err
		})
	}
	must.NoError(t, inbox.SetDeadline(time.Now().Add(patience)))
	buf := make([]byte, 64)
	n, from, err := inbox.ReadFrom(buf)
	must.NoError(t, err)
	must.Eq(t, "198.19.16.15", string(buf[:n])) // the first one never came
	must.Eq(t, allocIP, from.(*net.UDPAddr).IP.String())
}

func TestBridge_TwoGuests(t *testing.T) {
	alloc, outside := newAlloc(t, 1500)
	first := bridge(t, alloc, port("http", 8080))
	second := bridge(t, alloc, port("api", 8081))
	must.Eq(t, "198.19.16.15/24", first.Net.Address.String())
	must.Eq(t, "198.19.17.15/24", second.Net.Address.String())
	must.Eq(t, "198.19.17.2", second.Net.Gateway.String())

	a, b := newGuest(t, first), newGuest(t, second)
	serve(t, a, ":8080")
	serve(t, b, ":8081")
	for _, try := range []struct {
		from ns.NetNS
		to   string
	}{
		{outside, allocIP + ":8080"}, {outside, allocIP + ":8081"},
		{a, "198.19.16.2:8081"}, {a, allocIP + ":8081"}, {b, "198.19.17.2:8080"},
	} {
		_, err := ask(try.from, "tcp", try.to)
		must.NoError(t, err, must.Sprint(try.to))
	}

	_, err := Bridge(t.Context(), pathOf(alloc), Config{Ports: []Port{port("web", 8081)}})
	must.ErrorContains(t, err, `"web"`)
	must.ErrorContains(t, err, `"api"`)
	must.ErrorContains(t, err, "8081")
	must.Len(t, 4, leftovers(t, alloc)) // of the first two

	must.NoError(t, first.Close())
	must.NoError(t, first.Undo.Undo(t.Context()))
	_, err = ask(outside, "tcp", allocIP+":8081")
	must.NoError(t, err)
}

func TestBridge_AvoidsTheNamespacesNetworks(t *testing.T) {
	alloc, _ := newAlloc(t, 1500)
	run(t, alloc, func() error { return configure("eth0", "198.19.16.7/23", "") })
	must.Eq(t, "198.19.18.15/24", bridge(t, alloc).Net.Address.String())

	full := newNetns(t)
	// An address of lo adds a route to its own table only, so add a network.
	run(t, full, func() error { return addRoute("198.18.0.0/15") })
	_, err := Bridge(t.Context(), pathOf(full), Config{})
	must.ErrorContains(t, err, "198.19.16.0/20")
	must.SliceEmpty(t, leftovers(t, full))
}

// A guest must be able to reach what its host reaches.
func TestBridge_AvoidsTheHostsNetworks(t *testing.T) {
	alloc, _ := newAlloc(t, 1500)
	host := newNetns(t)
	run(t, host, func() error { return addRoute("198.19.16.0/24") })
	var nic *NIC
	run(t, host, func() (err error) {
		nic, err = Bridge(t.Context(), pathOf(alloc), Config{})
		return err
	})
	defer func() { _ = nic.Close() }()
	must.Eq(t, "198.19.17.15/24", nic.Net.Address.String())
}

func TestBridge_Undo(t *testing.T) {
	alloc, _ := newAlloc(t, 1500)
	nic := bridge(t, alloc, port("http", 8080))
	must.Len(t, 2, leftovers(t, alloc))
	must.NoError(t, nic.Close())
	for range 2 {
		must.NoError(t, nic.Undo.Undo(t.Context()))
		must.SliceEmpty(t, leftovers(t, alloc))
	}
}

// A plugin that dies between Bridge and the record of what it did knows only
// the namespace.
func TestBridge_UndoOfWhatWasPlanned(t *testing.T) {
	alloc, outside := newAlloc(t, 1500)
	lost := bridge(t, alloc, port("http", 8080))
	other := bridge(t, alloc, port("api", 8081))
	serve(t, newGuest(t, other), ":8081")
	must.NoError(t, lost.Close())

	must.NoError(t, Planned(pathOf(alloc)).Undo(t.Context()))
	must.Len(t, 2, leftovers(t, alloc)) // the other's
	_, err := ask(outside, "tcp", allocIP+":8081")
	must.NoError(t, err)
}

func TestBridge_AfterACrash(t *testing.T) {
	alloc, _ := newAlloc(t, 1500)
	lost := bridge(t, alloc, port("http", 8080))
	must.NoError(t, lost.Close()) // as when the plugin dies before QEMU has the tap

	next := bridge(t, alloc, port("http", 8080))
	must.Eq(t, "198.19.16.15/24", next.Net.Address.String())
	must.Len(t, 2, leftovers(t, alloc))

	must.NoError(t, lost.Undo.Undo(t.Context())) // late, and not the other's
	must.Len(t, 2, leftovers(t, alloc))
}

func TestBridge_Concurrent(t *testing.T) {
	alloc, _ := newAlloc(t, 1500)
	const guests = 4
	addresses := make(chan netip.Prefix, guests)
	for i := range guests {
		go func() {
			nic, err := Bridge(t.Context(), pathOf(alloc), Config{Ports: []Port{port("p", uint16(8000+i))}})
			if err != nil {
				t.Error(err)
				addresses <- netip.Prefix{}
				return
			}
			t.Cleanup(func() { _ = nic.Close() })
			addresses <- nic.Net.Address
		}()
	}
	seen := make(map[netip.Prefix]bool)
	for range guests {
		seen[<-addresses] = true
	}
	must.MapLen(t, guests, seen)
}

func TestBridge_ConcurrentClash(t *testing.T) {
	alloc, _ := newAlloc(t, 1500)
	const tries = 8
	results := make(chan error, tries)
	for range tries {
		go func() {
			nic, err := Bridge(t.Context(), pathOf(alloc), Config{Ports: []Port{port("http", 8080)}})
			if err == nil {
				t.Cleanup(func() { _ = nic.Close() })
			}
			results <- err
		}()
	}
	won := 0
	for range tries {
		if <-results == nil {
			won++
		}
	}
	must.Eq(t, 1, won)
	must.Len(t, 2, leftovers(t, alloc))
}

func TestBridge_NetnsGone(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	unmounted := filepath.Join(t.TempDir(), "unmounted")
	must.NoError(t, os.WriteFile(unmounted, nil, 0o600))
	for _, path := range []string{missing, unmounted} {
		_, err := Bridge(t.Context(), path, Config{})
		must.ErrorIs(t, err, ErrNetnsGone)
		must.ErrorContains(t, err, path)
		must.NoError(t, State{Netns: path, Table: "unikernel-7"}.Undo(t.Context()))
	}
}

func TestBridge_UDPSenderThatNeverPauses(t *testing.T) {
	alloc, outside := newAlloc(t, 1500)
	bridge(t, alloc, port("other", 9999)) // makes the kernel track flows
	sender, err := dial(outside, "udp", allocIP+":8080")
	must.NoError(t, err)
	defer func() { _ = sender.Close() }()
	_, err = sender.Write([]byte("nobody is there yet"))
	must.NoError(t, err)
	_, err = sender.Read(make([]byte, 64))
	must.ErrorIs(t, err, unix.ECONNREFUSED)

	guest := newGuest(t, bridge(t, alloc, port("sensor", 8080)))
	serve(t, guest, ":8080")
	_, err = sender.Write([]byte("now"))
	must.NoError(t, err)
	_, err = sender.Read(make([]byte, 64))
	must.NoError(t, err)
}

func TestBridge_MTU(t *testing.T) {
	const mtu = 1400
	alloc, outside := newAlloc(t, mtu)
	nic := bridge(t, alloc, port("http", 8080))
	must.Eq(t, mtu, nic.MTU)
	serve(t, newGuest(t, nic), ":8080")

	// Outside would send and take 1500; it must be told that the way is narrower.
	conn, err := dial(outside, "tcp", allocIP+":8080")
	must.NoError(t, err)
	defer func() { _ = conn.Close() }()
	must.LessEq(t, mtu-40, maxSegment(t, conn.(*net.TCPConn)))
}

func TestBridge_JumboIsNotForGuests(t *testing.T) {
	alloc, _ := newAlloc(t, 9000)
	must.Eq(t, 1500, bridge(t, alloc).MTU)
}

func maxSegment(t *testing.T, conn *net.TCPConn) int {
	t.Helper()
	raw, err := conn.SyscallConn()
	must.NoError(t, err)
	var size int
	var sockErr error
	must.NoError(t, raw.Control(func(fd uintptr) {
		size, sockErr = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG)
	}))
	must.NoError(t, sockErr)
	return size
}

func TestBridge_DNS(t *testing.T) {
	alloc, _ := newAlloc(t, 1500)
	servers := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("127.0.0.53")}
	nic, err := Bridge(t.Context(), pathOf(alloc), Config{DNS: servers})
	must.NoError(t, err)
	defer func() { _ = nic.Close() }()
	must.Eq(t, "[198.19.16.2 192.0.2.53]", fmt.Sprint(nic.Net.DNS))
}

// QEMU aborts on a back end that does not work, so it is not given one.
func TestOpenVhost_ThatFails(t *testing.T) {
	must.Nil(t, openVhost(os.DevNull))
	must.Nil(t, openVhost(filepath.Join(t.TempDir(), "missing")))
}

func TestTapNetdev(t *testing.T) {
	must.Eq(t, "tap,id=net0,fd=3", tapNetdev(3, false))
	must.Eq(t, "tap,id=net0,fd=5,vhost=on,vhostfd=6", tapNetdev(5, true))
}
