// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package network

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoenig/test/must"
)

func TestResolvers(t *testing.T) {
	const (
		ordinary = "# a comment\nsearch example.test\nnameserver 192.0.2.53\nnameserver 2001:db8::53\nnameserver 192.0.2.54\n"
		stub     = "nameserver 127.0.0.53\noptions edns0\n"
		none     = "-"
	)
	cases := []struct {
		name          string
		first, second string
		want          string
	}{
		{"ordinary", ordinary, none, "[192.0.2.53 192.0.2.54]"},
		{"systemd's stub", stub, ordinary, "[192.0.2.53 192.0.2.54]"},
		{"loopback only", stub, none, "[]"},
		{"IPv6 only", "nameserver 2001:db8::53\n", none, "[]"},
		{"no file", none, none, "[]"},
		{"not an address", "nameserver resolver.example\n", none, "[]"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			var paths []string
			for i, content := range []string{tc.first, tc.second} {
				path := filepath.Join(dir, fmt.Sprint(i))
				paths = append(paths, path)
				if content != none {
					must.NoError(t, os.WriteFile(path, []byte(content), 0o600))
				}
			}
			servers, err := resolvers(paths...)
			must.Eq(t, tc.want, fmt.Sprint(servers))
			if tc.want == "[]" {
				must.ErrorIs(t, err, ErrNoResolver)
				return
			}
			must.NoError(t, err)
		})
	}
}
