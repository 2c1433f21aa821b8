// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package guest

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/shoenig/test/must"
)

func TestMirageCommandLine(t *testing.T) {
	ipv6 := &Net{Address: netip.MustParsePrefix("fd00::2/64"), Gateway: netip.MustParseAddr("fd00::1")}
	dual := userNet()
	dual.Address6, dual.Gateway6 = ipv6.Address, ipv6.Gateway
	cases := []struct {
		name string
		arch Arch
		boot Boot
		line string
	}{
		{"a name in front on arm64", ARM64, Boot{Name: "web"}, "web"},
		{"none on x86_64", X86_64, Boot{Name: "web", Args: []string{"-l", "debug"}}, "-l debug"},
		{"an address", ARM64, Boot{Name: "web", Net: userNet(), Args: []string{"--count=1"}}, "web --ipv4=10.0.2.15/24 --ipv4-gateway=10.0.2.2 --count=1"},
		{"an IPv6 address", X86_64, Boot{Net: ipv6}, "--ipv6=fd00::2/64 --ipv6-gateway=fd00::1"},
		{"both addresses", X86_64, Boot{Net: dual}, "--ipv4=10.0.2.15/24 --ipv4-gateway=10.0.2.2 --ipv6=fd00::2/64 --ipv6-gateway=fd00::1"},
		{"a user who wants IPv4 only", X86_64, Boot{Net: dual, Args: []string{"--ipv4-only=true"}}, "--ipv4=10.0.2.15/24 --ipv4-gateway=10.0.2.2 --ipv4-only=true"},
		{"a user who wants IPv4 only on a stack", X86_64, Boot{Net: dual, Args: []string{"--a-ipv4-only"}}, "--ipv4=10.0.2.15/24 --ipv4-gateway=10.0.2.2 --a-ipv4-only"},
		{"a guest that asks by DHCP", X86_64, Boot{Net: dual, DHCP: true, Args: []string{"a"}}, "a"},
		{"the user's address wins", X86_64, Boot{Net: userNet(), Args: []string{"--ipv4=1.2.3.4/8"}}, "--ipv4=1.2.3.4/8"},
		{"the user's address of a stack wins", X86_64, Boot{Net: userNet(), Args: []string{"--service-ipv4=1.2.3.4/8"}}, "--service-ipv4=1.2.3.4/8"},
		{"quotes within quotes", X86_64, Boot{Args: []string{`--hello=a b`}}, `'--hello="a b"'`},
		{"quotes and equals signs in a value", X86_64, Boot{Args: []string{`--hello=a "b=c`}}, `'--hello="a \"b=c"'`},
		{"an equals sign that ends no option", X86_64, Boot{Args: []string{`a b=c d`}}, `'"a b=c d"'`},
		{"single quotes", X86_64, Boot{Args: []string{`it's`}}, `'it'"'"'s'`},
		{"double quotes and backslashes", X86_64, Boot{Args: []string{`a"\`}}, `'"a\"\\"'`},
		{"a separator does not swallow", ARM64, Boot{Name: "web", Args: []string{"a", "--", "b"}}, `web a '"--"' b`},
		{"kernel arguments", ARM64, Boot{Name: "web", KernelArgs: []string{"a.b=1"}, Args: []string{"c"}}, "web a.b=1 -- c"},
		{"offers have no place", ARM64, Boot{Name: "web", Offer: []string{"A=1"}}, "web"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			line, err := mustFor(t, Mirage, "", tc.arch).CommandLine(tc.boot)
			must.NoError(t, err)
			must.EqOp(t, tc.line, line)
		})
	}
}

func TestSolo5CommandLine(t *testing.T) {
	cases := []struct {
		name string
		boot Boot
		line string
	}{
		{"nothing", Boot{Name: "web"}, ""},
		{"an address", Boot{Net: userNet(), Args: []string{"a b"}}, `--ipv4=10.0.2.15/24 --ipv4-gateway=10.0.2.2 "a b"`},
		{"an option's value", Boot{Args: []string{"--hello=a b"}}, `--hello="a b"`},
		{"Solo5's own options", Boot{KernelArgs: []string{"--solo5:debug"}, Args: []string{"a"}}, "--solo5:debug a"},
		{"the application's like-named options", Boot{Args: []string{"--solo5:quiet"}}, `"--solo5:quiet"`},
		{"single quotes", Boot{Args: []string{"it's"}}, "it's"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			line, err := mustFor(t, Solo5, "", X86_64).CommandLine(tc.boot)
			must.NoError(t, err)
			must.EqOp(t, tc.line, line)
		})
	}
}

func TestNoEnvironmentIsNoRoom(t *testing.T) {
	for _, family := range []Family{Mirage, Solo5} {
		_, err := mustFor(t, family, "", X86_64).CommandLine(Boot{Env: map[string]string{"A": "1"}})
		must.ErrorIs(t, err, ErrNoRoom)
	}
}

func TestMirageRefuses(t *testing.T) {
	cases := []struct {
		name    string
		family  Family
		boot    Boot
		message string
	}{
		{"environment", Mirage, Boot{Env: map[string]string{"B": "1", "A": "2"}}, "A cannot be passed"},
		{"an empty argument", Mirage, Boot{Args: []string{"a", ""}}, "argument 2 is empty"},
		{"NUL", Mirage, Boot{Args: []string{"\x00"}}, "NUL"},
		{"too many words", Mirage, Boot{Args: strings.Fields(strings.Repeat("a ", 60))}, "60 words: the guest takes 58"},
		{"a kernel argument that ends them", Mirage, Boot{KernelArgs: []string{"--"}}, "kernel_args"},
		{"an open quote", Mirage, Boot{KernelArgs: []string{`'a`}}, "kernel_args"},
		{"environment", Solo5, Boot{Env: map[string]string{"A": "2"}}, "A cannot be passed"},
		{"an unknown kernel argument", Solo5, Boot{KernelArgs: []string{"quiet"}}, `not "quiet"`},
		{"a kernel path with a space", Solo5, Boot{Kernel: "/a b"}, `"/a b"`},
		{"too many bytes", Solo5, Boot{Args: []string{strings.Repeat("x", 8192)}}, "the guest takes 8191"},
		{"no address", Solo5, Boot{Net: &Net{}}, "network"},
	}
	for _, tc := range cases {
		t.Run(string(tc.family)+" "+tc.name, func(t *testing.T) {
			_, err := mustFor(t, tc.family, "", X86_64).CommandLine(tc.boot)
			must.ErrorContains(t, err, tc.message)
		})
	}
}
