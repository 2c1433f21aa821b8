// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"runtime"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// netnsDir is where `ip netns` finds namespaces, so that a person can look into
// one of a run by its name.
const netnsDir = "/run/netns"

// Segment is an Ethernet of a run's own: a bridge on this machine, and a network
// namespace for each node with a link to the bridge.
type Segment struct {
	Bridge  string // name; of its namespaces and links also the beginning
	Gateway netip.Prefix
	Places  []string // names of the namespaces
}

// makeSegment makes the bridge with its address.
func makeSegment(name string, gateway netip.Prefix) (*Segment, error) {
	s := &Segment{Bridge: name, Gateway: gateway}
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
	name := s.Bridge + "-" + place
	s.Places = append(s.Places, name)
	path := filepath.Join(netnsDir, name)
	if err := newNetns(name); err != nil {
		return "", fmt.Errorf("making network namespace %s: %w", name, err)
	}
	if err := s.connect(name, path, netip.PrefixFrom(addr, s.Gateway.Bits())); err != nil {
		return "", fmt.Errorf("connecting network namespace %s: %w", name, err)
	}
	return path, nil
}

// newNetns makes a namespace, and stays in the one that it was in.
func newNetns(name string) error {
	runtime.LockOSThread()
	here, err := netns.Get()
	if err != nil {
		return err
	}
	defer func() { _ = here.Close() }()
	made, err := netns.NewNamed(name)
	if err == nil {
		err = made.Close()
	}
	if back := netns.Set(here); back != nil {
		return errors.Join(err, back) // the thread stays locked and ends with its goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// connect lays a link from the bridge, where it bears the namespace's name, to
// eth0 in the namespace.
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
	link, err := netlink.LinkByName(s.Bridge + "-" + place)
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
	for _, name := range s.Places {
		if err := netns.DeleteNamed(name); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		errs = append(errs, removeLink(name))
	}
	return errors.Join(append(errs, removeLink(s.Bridge))...)
}
