// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package harness

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Segment is an Ethernet of a run's own: a bridge on this machine, and a network
// namespace for each node with a link to the bridge.
type Segment struct {
	Bridge  string // name; the names of its links begin with it
	Gateway netip.Prefix
	Dir     string   // holds the namespaces; for a look: nsenter --net=DIR/NAME
	Places  []string // names of the namespaces
}

// makeSegment makes the bridge with its address. The folder is not that of
// `ip netns`: a Nomad client mounts that one over itself, and whatever is
// mounted in it by then cannot be removed any more.
func makeSegment(name string, gateway netip.Prefix, dir string) (*Segment, error) {
	s := &Segment{Bridge: name, Gateway: gateway, Dir: dir}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
	if err := netlink.LinkAdd(bridge); err != nil {
		return nil, fmt.Errorf("making bridge %s: %w", name, err)
	}
	if err := setUp(bridge, gateway); err != nil {
		return nil, errors.Join(fmt.Errorf("setting bridge %s up: %w", name, err), s.remove())
	}
	return s, nil
}

// add makes a namespace with an address on the segment, which it reaches all
// else through. It returns the namespace's path.
func (s *Segment) add(place string, addr netip.Addr) (string, error) {
	s.Places = append(s.Places, place)
	path := filepath.Join(s.Dir, place)
	if err := newNetns(path); err != nil {
		return "", fmt.Errorf("making network namespace %s: %w", path, err)
	}
	if err := s.connect(s.link(place), path, netip.PrefixFrom(addr, s.Gateway.Bits())); err != nil {
		return "", fmt.Errorf("connecting network namespace %s: %w", path, err)
	}
	return path, nil
}

// link is the bridge's end of a namespace's cable.
func (s *Segment) link(place string) string { return s.Bridge + "-" + place }

// newNetns makes a namespace that a file keeps, and stays in the one that it
// was in.
func newNetns(path string) error {
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		return err
	}
	runtime.LockOSThread()
	here, err := netns.Get()
	if err != nil {
		return err
	}
	defer func() { _ = here.Close() }()
	err = unix.Unshare(unix.CLONE_NEWNET)
	if err == nil {
		err = unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	}
	if back := netns.Set(here); back != nil {
		return errors.Join(err, back) // the thread stays locked and ends with its goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// connect lays a cable from the bridge to eth0 in the namespace.
func (s *Segment) connect(name, path string, addr netip.Prefix) error {
	bridge, err := netlink.LinkByName(s.Bridge)
	if err != nil {
		return err
	}
	place, err := ns.GetNS(path)
	if err != nil {
		return err
	}
	defer func() { _ = place.Close() }()
	here := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name, MasterIndex: bridge.Attrs().Index},
		PeerName:  "eth0", PeerNamespace: netlink.NsFd(int(place.Fd())),
	}
	if err := netlink.LinkAdd(here); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(here); err != nil {
		return err
	}
	return place.Do(func(ns.NetNS) error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := errors.Join(netlink.LinkSetUp(lo), setUp(eth0, addr)); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: s.Gateway.Addr().AsSlice()})
	})
}

func setUp(link netlink.Link, addr netip.Prefix) error {
	parsed, err := netlink.ParseAddr(addr.String())
	if err != nil {
		return err
	}
	return errors.Join(netlink.AddrAdd(link, parsed), netlink.LinkSetUp(link))
}

// plug pulls a namespace's cable, or puts it back.
func (s *Segment) plug(place string, in bool) error {
	link, err := netlink.LinkByName(s.link(place))
	if err != nil {
		return err
	}
	if in {
		return netlink.LinkSetUp(link)
	}
	return netlink.LinkSetDown(link)
}

// remove takes back all that was made; what is gone already is no error. A
// link goes with its namespace, which goes with its last process.
func (s *Segment) remove() error {
	var errs []error
	for _, place := range s.Places {
		errs = append(errs, removeLink(s.link(place)))
	}
	return errors.Join(append(errs, removeLink(s.Bridge), unmountUnder(s.Dir), os.RemoveAll(s.Dir))...)
}
