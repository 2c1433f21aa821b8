// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package e2e

import (
	"runtime"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"

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
