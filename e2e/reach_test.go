// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package e2e

import (
	"context"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/miekg/dns"
	"github.com/shoenig/test/must"
	"github.com/vishvananda/netlink"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

// Two unikernels share a group's ports as two containers would; where they
// cannot, the second is refused.
func TestNetwork_TwoInAGroup(t *testing.T) {
	keepBridge(t)
	ctx := limit(t, 2*time.Minute)
	vars := func(mode string, to string) map[string]string {
		return map[string]string{
			"image": steps(runtime.GOARCH), "mode": mode, "address_modes": list("alloc"),
			"partners": list(steps(otherArch())), "partner_to": to,
		}
	}
	t.Run("bridge", func(t *testing.T) {
		alloc := runNetwork(t, ctx, vars("bridge", "8081"))[0]
		checkReached(t, ctx, alloc, 8080)
		must.NoError(t, getPort(ctx, alloc, "partner", "/average", new(averageAnswer)))
	})
	t.Run("the same port twice", func(t *testing.T) {
		before := lookAtMachine(t)
		t.Cleanup(func() { nothingNew(t, before) }) // after the purge
		alloc := runToEnd(t, ctx, networkJob(t, vars("bridge", "8080")))
		must.Eq(t, "failed", alloc.ClientStatus)
		t.Log(failure(alloc))
		for _, word := range []string{`"partner"`, `"http"`, `"to = 8080"`} {
			must.StrContains(t, failure(alloc), word)
		}
	})
}

// A guest finds names and reaches others, in every mode, also one that is told
// nothing but by DHCP.
func TestNetwork_Out(t *testing.T) {
	withNode(t, harness.NodeExtras{CNIConfigs: cniConfigs(t)})
	keepBridge(t)
	at := newOutside(t)
	cases := []struct {
		name, mode, dhcp string
	}{
		{"host", "host", "false"},
		{"bridge", "bridge", "false"},
		{"bridge, by DHCP", "bridge", "true"},
		{"cni", "cni/" + cniName, "false"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ctx := limit(t, 90*time.Second)
			pages := servePages(t, at)
			alloc := runNetwork(t, ctx, map[string]string{
				"image": steps(runtime.GOARCH), "mode": c.mode, "dns": list(at), "dhcp": c.dhcp,
				"args": list("--fetch=http://pages.test:" + pages.port + "/$${NOMAD_ALLOC_ID}"),
			})[0]
			select {
			case path := <-pages.asked:
				must.Eq(t, "/"+alloc.ID, path)
			case <-ctx.Done():
				t.Fatal("the guest asked for no page")
			}
			checkReached(t, ctx, alloc, 8080)
		})
	}
}

// An allocation's IPv6 address leads to a guest that takes one.
func TestNetwork_IPv6(t *testing.T) {
	withNode(t, harness.NodeExtras{BridgeNet6: "fd5a:6e2d:91c4::/64"})
	keepBridge(t)
	ctx := limit(t, 90*time.Second)
	alloc := runNetwork(t, ctx, map[string]string{
		"image": steps(runtime.GOARCH), "mode": "bridge", "guest": "mirage",
		"args": list("--port=8080", "--udp-echo=9007"), "address_modes": list("alloc"),
	})[0]
	must.NotNil(t, alloc.NetworkStatus)
	ip := alloc.NetworkStatus.AddressIPv6
	must.NotEq(t, "", ip)
	must.NoError(t, get(ctx, &api.ServiceRegistration{Address: "[" + ip + "]", Port: 8080}, "/average", new(averageAnswer)))
	must.NoError(t, echoes(ctx, address(ip, 9007)))
	must.NoError(t, getPort(ctx, alloc, "http", "/average", new(averageAnswer)))
}

// newOutside is an address outside of the node, as far as guests can tell.
func newOutside(t *testing.T) string {
	t.Helper()
	const name, at = "ndu-outside", "203.0.113.7"
	link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
	must.NoError(t, netlink.LinkAdd(link))
	t.Cleanup(func() { must.NoError(t, netlink.LinkDel(link)) })
	address, err := netlink.ParseAddr(at + "/32")
	must.NoError(t, err)
	must.NoError(t, netlink.AddrAdd(link, address))
	must.NoError(t, netlink.LinkSetUp(link))
	return at
}

// pages is a server of a name and of what is under it.
type pages struct {
	port  string
	asked chan string // paths
}

// servePages serves DNS and HTTP at an address.
func servePages(t *testing.T, at string) *pages {
	t.Helper()
	const name = "pages.test."
	packets, err := net.ListenPacket("udp4", net.JoinHostPort(at, "53"))
	must.NoError(t, err)
	names := &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, request *dns.Msg) {
		reply := new(dns.Msg).SetReply(request)
		if q := request.Question[0]; q.Qtype == dns.TypeA && strings.EqualFold(q.Name, name) {
			reply.Answer = append(reply.Answer, &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.ParseIP(at)})
		}
		_ = w.WriteMsg(reply)
	})}
	go func() { _ = names.ActivateAndServe() }()

	listener, err := net.Listen("tcp4", net.JoinHostPort(at, "0"))
	must.NoError(t, err)
	_, port, err := net.SplitHostPort(listener.Addr().String())
	must.NoError(t, err)
	p := &pages{port: port, asked: make(chan string, 16)}
	server := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) { p.asked <- request.URL.Path })}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		must.NoError(t, names.ShutdownContext(ctx))
		must.NoError(t, server.Close())
	})
	return p
}
