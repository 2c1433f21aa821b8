// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package network

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/shoenig/test/must"
)

// bridgeChild names the namespace in which this program, when started with it, tries Bridge.
const bridgeChild = "NETWORK_TEST_BRIDGE_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(bridgeChild); path != "" {
		_, err := Bridge(context.Background(), path, Config{})
		fmt.Println(err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestBridge_Impossible tries Bridge on hosts that lack what it needs. The
// tools are util-linux's, which every Debian has.
func TestBridge_Impossible(t *testing.T) {
	cases := []struct {
		name string
		host []string
		want []string
	}{
		{"no capabilities", []string{"setpriv", "--bounding-set=-all", "--inh-caps=-all"}, []string{"CAP_NET_ADMIN", "host mode"}},
		{"no CAP_NET_ADMIN", []string{"setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"}, []string{"CAP_NET_ADMIN", "host mode"}},
		{"no tun device", []string{"unshare", "--mount", "sh", "-c", `mount -t tmpfs none /dev/net && exec "$0"`}, []string{"/dev/net/tun", "modprobe tun"}},
		{"sysctls that cannot be set", []string{"unshare", "--mount", "sh", "-c", `mount -o bind,ro /proc/sys /proc/sys && exec "$0"`}, []string{"net/ipv4/ip_forward", "read-only"}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			alloc, _ := newAlloc(t, 1500)
			child := exec.CommandContext(t.Context(), tc.host[0], append(tc.host[1:], os.Args[0])...)
			child.Env = append(os.Environ(), bridgeChild+"="+pathOf(alloc))
			out, err := child.CombinedOutput()
			must.NoError(t, err)
			for _, want := range tc.want {
				must.StrContains(t, string(out), want)
			}
			must.SliceEmpty(t, leftovers(t, alloc))
		})
	}
}
