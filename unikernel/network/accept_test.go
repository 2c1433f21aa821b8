// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package network

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

func TestAcceptedIn(t *testing.T) {
	to := netip.MustParseAddrPort("198.19.16.15:8080")
	const head = "Hub -1 (net0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"
	const forward = "  TCP[HOST_FORWARD]   8       127.0.0.1 28731       198.19.16.15  8080     0     0\r\n"
	cases := map[string]struct {
		table    string
		accepted bool
		say      string
	}{
		"nobody connects":        {head + forward, false, ""},
		"asked":                  {head + "  TCP[SYN_SENT]   71       127.0.0.1 28731       198.19.16.15  8080     0     0\r\n" + forward, false, ""},
		"accepted":               {head + "  TCP[ESTABLISHED]   71       127.0.0.1 28731       198.19.16.15  8080     0     0\r\n" + forward, true, ""},
		"accepted before":        {head + forward + "  TCP[TIME_WAIT]   71       127.0.0.1 28731       198.19.16.15  8080     0     0\r\n", true, ""},
		"another port accepted":  {head + forward + "  TCP[ESTABLISHED]   71       127.0.0.1 28731       198.19.16.15  80     0     0\r\n", false, ""},
		"the guest's connection": {head + forward + "  TCP[ESTABLISHED]   71       198.19.16.15 8080       192.0.2.1  80     0     0\r\n", false, ""},
		"UDP":                    {head + forward + "  UDP[236 sec]   71       127.0.0.1 28731       198.19.16.15  8080     0     0\r\n", false, ""},
		"no forwarding":          {head, false, "does not have the forwarding"},
		"another form":           {"connections: none", false, "connections: none"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			accepted, err := acceptedIn(tc.table, to)
			must.Eq(t, tc.accepted, accepted)
			if tc.say == "" {
				must.NoError(t, err)
			} else {
				must.ErrorContains(t, err, tc.say)
			}
		})
	}
}

// The guest's own answer counts, and nobody else's.
func TestAwaitAccept_Bridge(t *testing.T) {
	alloc, _ := newAlloc(t, 1500)
	nic := bridge(t, alloc, port("http", 8080), port("admin", 8081))
	stop := boot(t, alloc, guest.ARM64, nic)
	defer stop()
	none := func(context.Context, string) (string, error) { return "", errors.New("not asked") }
	must.NoError(t, nic.AwaitAccept(t.Context(), port("http", 8080), none))

	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	must.ErrorContains(t, nic.AwaitAccept(ctx, port("admin", 8081), none), "accepts no connection on 198.19.16.15:8081")
}
