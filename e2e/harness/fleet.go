// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package harness

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/hashicorp/nomad/api"
)

// Fleet is a Nomad server and several nodes, each node in a network namespace
// of its own, as on a site of several boards.
type Fleet struct {
	*Cluster // of the server; its Node is nil
	Segment  *Segment
	Docker   []*Docker // of the nodes that have one
	Nodes    []*Place
}

// Place is a node of a fleet.
type Place struct {
	Name      string
	ID        string // Nomad's
	API       string
	Namespace string // path of its network namespace
	Agent     *Process
}

// PlaceOptions is what a node of a fleet is to have.
type PlaceOptions struct {
	Name        string
	Docker      bool
	Firewall    bool   // Docker forwards ports by the node's firewall, as an operator's does
	InfraImage  string // what holds the namespace of a group with containers
	NoEmulation bool
}

// The fleet's addresses are those that no network has (RFC 5737).
var fleetGateway = netip.MustParsePrefix("198.51.100.1/24")

// StartFleet starts a server and nodes beside the site's own, and waits until
// each node is ready. The images that unikernels and containers need are there.
func (s *Site) StartFleet(ctx context.Context, places ...PlaceOptions) (*Fleet, error) {
	s.Fleet = &Fleet{Cluster: &Cluster{
		Dir: s.Layout.Build(filepath.Base(filepath.Dir(s.State)), "fleet"), Program: s.Nomad.Program, Left: lookFor(nomadFootprint),
		changed: s.save,
	}}
	err := s.Fleet.start(ctx, s, places)
	if err != nil {
		return nil, errors.Join(err, s.StopFleet(ctx))
	}
	return s.Fleet, nil
}

// StopFleet stops the fleet's jobs and agents, and removes its networks.
func (s *Site) StopFleet(ctx context.Context) error {
	if s.Fleet == nil {
		return nil
	}
	if err := s.Fleet.stop(ctx); err != nil {
		return err
	}
	s.Fleet = nil
	return s.save()
}

func (f *Fleet) start(ctx context.Context, s *Site, places []PlaceOptions) error {
	var err error
	if f.Scratch, err = os.MkdirTemp("", "ndu-fleet-"); err != nil {
		return err
	}
	if f.Segment, err = makeSegment("fleet", fleetGateway, f.Dir+"-net"); err != nil {
		return err
	}
	if err := f.prepareServer(ctx, s); err != nil {
		return err
	}
	for _, options := range places {
		if err := f.startPlace(ctx, s, options); err != nil {
			return fmt.Errorf("starting node %s: %w", options.Name, err)
		}
	}
	for _, place := range f.Nodes {
		if err := f.awaitReady(ctx, place); err != nil {
			return err
		}
	}
	return nil
}

const (
	fleetHTTP = 4646
	fleetRPC  = 4647
	fleetSerf = 4648
)

func (f *Fleet) prepareServer(ctx context.Context, s *Site) error {
	if err := f.empty(s.Layout); err != nil {
		return err
	}
	address := f.Segment.Gateway.Addr().String()
	f.Address = fmt.Sprintf("http://%s:%d", address, fleetHTTP)
	values := map[string]any{
		"Address": address, "ServerData": filepath.Join(f.Dir, "server"),
		"ServerHTTP": fleetHTTP, "ServerRPC": fleetRPC, "ServerSerf": fleetSerf,
		"HeartbeatGrace": "4s",
	}
	if err := errors.Join(f.connect(), f.write("server", serverConfig, values)); err != nil {
		return err
	}
	return f.runServer(ctx)
}

// startPlace starts a node's agent, and its Docker daemon if it is to have one,
// and does not wait for the agent.
func (f *Fleet) startPlace(ctx context.Context, s *Site, options PlaceOptions) error {
	addr := f.Segment.Gateway.Addr()
	for range len(f.Nodes) + 10 {
		addr = addr.Next()
	}
	place := &Place{Name: options.Name, API: fmt.Sprintf("http://%s:%d", addr, fleetHTTP)}
	f.Nodes = append(f.Nodes, place)
	var err error
	if place.Namespace, err = f.Segment.add(place.Name, addr); err != nil {
		return err
	}
	if err := f.changed(); err != nil {
		return err
	}
	values := map[string]any{
		"Name": place.Name, "Address": addr, "Interface": "eth0", "ClientHTTP": fleetHTTP,
		"Server":     fmt.Sprintf("%s:%d", f.Segment.Gateway.Addr(), fleetRPC),
		"ClientData": filepath.Join(f.Dir, place.Name), "Plugins": f.plugins(),
		"ImagePaths": []string{s.ImageDir(), s.ScratchImages()}, "NoEmulation": options.NoEmulation, "InfraImage": options.InfraImage,
	}
	if options.Docker {
		docker, err := f.startDocker(ctx, s, place, options.Firewall)
		if err != nil {
			return err
		}
		values["DockerHost"] = docker.Host
	}
	if err := f.write(place.Name, clientConfig, values); err != nil {
		return err
	}
	return f.startAgent(place)
}

func (f *Fleet) startDocker(ctx context.Context, s *Site, place *Place, firewall bool) (*Docker, error) {
	docker, err := startDockerIn(ctx, place.Namespace, f.Dir+"-docker", firewall)
	if err != nil {
		return nil, err
	}
	f.Docker = append(f.Docker, docker)
	return docker, errors.Join(f.changed(), BuildImages(ctx, docker, s.Layout))
}

func (f *Fleet) startAgent(place *Place) error {
	var err error
	place.Agent, err = spawnIn(place.Namespace, f.file(place.Name, "log"), daemonEnv(f.Scratch, f.Dir),
		f.Program, "agent", "-config", f.file(place.Name, "hcl"))
	if err != nil {
		return err
	}
	return f.changed()
}

// awaitReady waits until the server can place tasks on a node.
func (f *Fleet) awaitReady(ctx context.Context, place *Place) error {
	if err := f.answers(ctx, place.Agent, place.API); err != nil {
		return fmt.Errorf("starting node %s: %w", place.Name, err)
	}
	return f.AwaitNode(ctx, place, func(n *api.NodeListStub) bool {
		return n.Status == api.NodeStatusReady && (healthy(n.Drivers["docker"]) || healthy(n.Drivers["unikernel"]))
	})
}

// AwaitNode waits until the server knows of a node what a condition asks.
func (f *Fleet) AwaitNode(ctx context.Context, place *Place, until func(*api.NodeListStub) bool) error {
	var last api.NodeListStub
	err := await(ctx, func(q *api.QueryOptions) (uint64, bool, error) {
		nodes, meta, err := f.Client.Nodes().List(q)
		if err != nil {
			return 0, false, err
		}
		i := slices.IndexFunc(nodes, func(n *api.NodeListStub) bool { return n.Name == place.Name })
		if i < 0 {
			return meta.LastIndex, false, nil
		}
		last, place.ID = *nodes[i], nodes[i].ID
		return meta.LastIndex, until(nodes[i]), nil
	})
	if err != nil {
		return fmt.Errorf("waiting for node %s, which is %s: %w\nIts log %s ends in:\n%s", place.Name, last.Status, err, place.Agent.Log, place.Agent.tail())
	}
	return nil
}

// Cut pulls the cable of a node; Join puts it back.
func (f *Fleet) Cut(place *Place) error { return f.Segment.plug(place.Name, false) }

// Join puts back a node's cable.
func (f *Fleet) Join(place *Place) error { return f.Segment.plug(place.Name, true) }

// reconnect makes what a file cannot keep.
func (f *Fleet) reconnect(changed func() error) error {
	f.changed = changed
	errs := []error{f.connect()}
	for _, docker := range f.Docker {
		errs = append(errs, docker.reconnect())
	}
	return errors.Join(errs...)
}

// stop takes back all that was started, as far as it was. Tasks are stopped by
// their agents, so these must run.
func (f *Fleet) stop(ctx context.Context) error {
	var errs []error
	if f.Server != nil && !f.Server.alive() {
		errs = append(errs, f.runServer(ctx))
	}
	for _, place := range f.Nodes {
		if place.Agent != nil && !place.Agent.alive() {
			errs = append(errs, f.startAgent(place))
		}
		if place.Agent != nil {
			errs = append(errs, f.Join(place))
		}
	}
	if f.Client != nil {
		errs = append(errs, f.PurgeAll(ctx))
	}
	for _, place := range f.Nodes {
		if place.Agent != nil {
			errs = append(errs, end(ctx, place.Agent, syscall.SIGINT))
		}
	}
	errs = append(errs, f.Stop(ctx))
	for _, docker := range f.Docker {
		errs = append(errs, docker.Stop(ctx))
	}
	if f.Segment != nil {
		errs = append(errs, f.Segment.remove())
	}
	return errors.Join(errs...)
}
