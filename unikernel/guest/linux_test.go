// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package guest

import (
	"strings"
	"testing"

	"github.com/shoenig/test/must"
)

func TestLinuxCommandLine(t *testing.T) {
	cases := []struct {
		name string
		arch Arch
		boot Boot
		line string
	}{
		{"nothing on arm64", ARM64, Boot{Name: "n"}, "console=ttyAMA0 panic=-1"},
		{"nothing on x86_64", X86_64, Boot{}, "console=ttyS0 panic=-1"},
		{"an address", X86_64, Boot{Net: userNet()}, "console=ttyS0 panic=-1 ip=10.0.2.15::10.0.2.2:255.255.255.0:steps::off:10.0.2.3"},
		{"a guest that asks by DHCP", X86_64, Boot{Net: userNet(), DHCP: true}, "console=ttyS0 panic=-1 ip=dhcp"},
		{"kernel arguments win", X86_64, Boot{KernelArgs: []string{"console=hvc0", "panic=5", `a="b c"`}}, `console=hvc0 panic=5 a="b c"`},
		{"environment and arguments", X86_64, Boot{Env: map[string]string{"A": "1", "B": "x y"}, Args: []string{"a", "b c"}}, `console=ttyS0 panic=-1 A=1 B="x y" -- a "b c"`},
		{"offers", X86_64, Boot{Env: map[string]string{"A": "1"}, Offer: []string{"A=2", "C=3", `D="`}}, "console=ttyS0 panic=-1 A=1 C=3"},
		{"a byte that Linux takes for a space", X86_64, Boot{Args: []string{"à"}}, `console=ttyS0 panic=-1 -- "à"`},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			line, err := mustFor(t, Linux, "", tc.arch).CommandLine(tc.boot)
			must.NoError(t, err)
			must.EqOp(t, tc.line, line)
		})
	}
}

func TestLinuxRefuses(t *testing.T) {
	cases := []struct {
		name    string
		boot    Boot
		message string
	}{
		{"a quote in a value", Boot{Env: map[string]string{"A": `"`}}, "env: A has a double quote"},
		{"a dot in a name", Boot{Env: map[string]string{"a.b": "1"}}, `"a.b"`},
		{"too many variables", Boot{Env: numbered(31)}, "31 variables"},
		{"a quote in an argument", Boot{Args: []string{`a"`}}, "double quote"},
		{"a separator", Boot{Args: []string{"a", "--"}}, "argument 2"},
		{"an empty argument", Boot{Args: []string{""}}, "empty"},
		{"too many arguments", Boot{Args: strings.Fields(strings.Repeat("a ", 32))}, "32 arguments"},
		{"too many bytes", Boot{Args: []string{strings.Repeat("a", 2048)}}, "the guest takes 2047"},
		{"an open quote", Boot{KernelArgs: []string{`a="`}}, "kernel_args"},
		{"a hostname with a colon", Boot{Net: &Net{Address: userNet().Address, Hostname: "a:b"}}, `"a:b"`},
		{"no address", Boot{Net: &Net{}}, "network"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			_, err := mustFor(t, Linux, "", X86_64).CommandLine(tc.boot)
			must.ErrorContains(t, err, tc.message)
		})
	}
}
