// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"testing"

	"github.com/hashicorp/nomad/nomad/structs"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/image"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/network"
)

// A manifest of devices is kept to.
func TestCheckNICs(t *testing.T) {
	card := image.Device{Kind: image.NetDevice}
	port := []network.Port{{Label: "http"}}
	cases := []struct {
		name    string
		devices []image.Device
		mode    string
		ports   []network.Port
		say     string
	}{
		{name: "no manifest", mode: noNetwork},
		{name: "one card", devices: []image.Device{card}, ports: port},
		{name: "two cards", devices: []image.Device{card, card}, say: "2 network cards"},
		{name: "no card, but ports", devices: []image.Device{}, ports: port, say: "without a network card"},
		{name: "a card, but none is wanted", devices: []image.Device{card}, mode: noNetwork, say: "config.network_mode"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := &launch{
				image: &image.Image{Source: "acme/solo5", Devices: c.devices}, ports: c.ports,
				wish: &wish{TaskConfig: TaskConfig{NetworkMode: c.mode}},
			}
			err := l.checkNICs()
			if c.say == "" {
				must.NoError(t, err)
				return
			}
			must.ErrorContains(t, err, c.say)
		})
	}
}

func TestDriverNetwork(t *testing.T) {
	user, bridge := &network.NIC{}, &network.NIC{Netns: "/run/netns/one"}
	mapped := structs.AllocatedPortMapping{Label: "http", Value: 25000, To: 8080, HostIP: "192.0.2.7"}
	same := structs.AllocatedPortMapping{Label: "http", Value: 25000, To: 25000, HostIP: "192.0.2.7"}
	open := structs.AllocatedPortMapping{Label: "http", Value: 25000, HostIP: "192.0.2.7"}
	elsewhere := structs.AllocatedPortMapping{Label: "admin", Value: 25001, To: 25001, HostIP: "198.51.100.7"}
	cases := []struct {
		name  string
		nic   *network.NIC
		ports structs.AllocatedPorts
		env   map[string]string
		want  string
	}{
		{name: "no card", ports: structs.AllocatedPorts{same}},
		{name: "no ports", nic: user},
		{name: "user mode, the host's port is the guest's", nic: user, ports: structs.AllocatedPorts{same}, want: "192.0.2.7"},
		{name: "user mode, the host's port is another", nic: user, ports: structs.AllocatedPorts{mapped}},
		{name: "user mode, no to, of which Nomad would make port 0", nic: user, ports: structs.AllocatedPorts{open}},
		{name: "user mode, two addresses", nic: user, ports: structs.AllocatedPorts{same, elsewhere}},
		{
			name: "bridge mode", nic: bridge, ports: structs.AllocatedPorts{mapped},
			env: map[string]string{"NOMAD_ALLOC_IP_http": "172.26.64.9"}, want: "172.26.64.9",
		},
		{name: "bridge mode, of an address that Nomad does not tell", nic: bridge, ports: structs.AllocatedPorts{mapped}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			task := &drivers.TaskConfig{Env: c.env, Resources: &drivers.Resources{Ports: &c.ports}}
			var labels []string
			for _, port := range c.ports {
				labels = append(labels, port.Label)
			}
			ports, err := portsOf(task, labels)
			must.NoError(t, err)
			got := (&launch{task: task, nic: c.nic, ports: ports}).driverNetwork()
			if c.want == "" {
				must.Nil(t, got)
				return
			}
			must.Eq(t, &drivers.DriverNetwork{IP: c.want}, got)
		})
	}
}
