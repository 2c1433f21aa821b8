// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package network

import (
	"fmt"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/shoenig/test/must"
	"github.com/vishvananda/netlink"
)

// nomadBridge is the network that Nomad's bridge mode configures, with the
// address store put elsewhere (nomad, client/allocrunner/cni/bridge.go), and with
// the client's bridge_network_hairpin_mode: without it not even a container
// reaches itself by the node's port, where bridges pass through iptables.
const nomadBridge = `{
	"cniVersion": "0.4.0",
	"name": "nomad",
	"plugins": [
		{"type": "loopback"},
		{
			"type": "bridge", "bridge": "nomad", "ipMasq": true, "isGateway": true, "forceAddress": true, "hairpinMode": true,
			"ipam": {"type": "host-local", "ranges": [[{"subnet": "172.26.64.0/20"}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": %q}
		},
		{"type": "firewall", "backend": "iptables", "iptablesAdminChainName": "NOMAD-ADMIN"},
		{"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}
	]
}`

// cniPath is where the CNI plugins are: Debian's folder, and the one of their own releases.
var cniPath = []string{"/usr/lib/cni", "/opt/cni/bin"}

// TestBridge_BehindCNI reaches a guest through all that Nomad puts before it:
// a host's port, mapped by CNI to the allocation, whose namespace maps it to the guest.
func TestBridge_BehindCNI(t *testing.T) {
	node, client := newNode(t)
	store := t.TempDir()
	web := addAlloc(t, node, store, "web", 25000, 8080)
	other := addAlloc(t, node, store, "other", 25001, 8081)
	guest := newGuest(t, bridge(t, web, port("http", 8080)))
	serve(t, guest, ":8080")
	serve(t, client, ":9000")
	webIP := addressOf(t, web)

	cases := []struct {
		name, to string
		from     ns.NetNS
	}{
		{"another machine, by the node's port", outsideIP + ":25000", client},
		{"the node, by its port", outsideIP + ":25000", node},
		{"the node, by its port on loopback", "127.0.0.1:25000", node},
		{"the node, by the allocation's address", webIP + ":8080", node},
		{"another allocation, by the node's port", outsideIP + ":25000", other},
		{"another allocation, by the allocation's address", webIP + ":8080", other},
		{"a sidecar", "127.0.0.1:8080", web},
		{"the guest, to itself by the node's port", outsideIP + ":25000", guest},
		{"the guest, to another machine", allocIP + ":9000", guest},
	}
	for _, tc := range cases {
		for _, proto := range protocols {
			t.Run(tc.name+" "+proto, func(t *testing.T) {
				_, err := ask(tc.from, proto, tc.to)
				must.NoError(t, err)
			})
		}
	}
}

// newNode makes a namespace that stands for a Nomad client's host, and one for
// another machine on its network. The node has outsideIP, the other allocIP.
func newNode(t *testing.T) (node, client ns.NetNS) {
	t.Helper()
	client, node = newAlloc(t, DefaultMTU)
	return node, client
}

// addAlloc makes an allocation's namespace on node, with one mapped port. The
// node's allocations share store, which holds the addresses in use.
func addAlloc(t *testing.T, node ns.NetNS, store, id string, hostPort, to int) ns.NetNS {
	t.Helper()
	alloc := newNetns(t)
	list, err := libcni.ConfListFromBytes(fmt.Appendf(nil, nomadBridge, store))
	must.NoError(t, err)
	runtime := &libcni.RuntimeConf{ContainerID: id, NetNS: pathOf(alloc), IfName: "eth0", CapabilityArgs: map[string]any{
		"portMappings": []map[string]any{
			{"hostPort": hostPort, "containerPort": to, "protocol": "tcp"},
			{"hostPort": hostPort, "containerPort": to, "protocol": "udp"},
		},
	}}
	plugins := libcni.NewCNIConfigWithCacheDir(cniPath, store, nil)
	run(t, node, func() error {
		_, err := plugins.AddNetworkList(t.Context(), list, runtime)
		return err
	})
	return alloc
}

// addressOf is the address that CNI gave to an allocation.
func addressOf(t *testing.T, alloc ns.NetNS) string {
	t.Helper()
	var address string
	run(t, alloc, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		addresses, err := netlink.AddrList(link, netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		if len(addresses) != 1 {
			return fmt.Errorf("eth0 has %d addresses", len(addresses))
		}
		address = addresses[0].IP.String()
		return nil
	})
	return address
}
