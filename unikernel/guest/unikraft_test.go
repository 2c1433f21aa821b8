// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package guest

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/shoenig/test/must"
)

// userNet is what QEMU's user-mode network gives a guest.
func userNet() *Net {
	return &Net{
		Address:  netip.MustParsePrefix("10.0.2.15/24"),
		Gateway:  netip.MustParseAddr("10.0.2.2"),
		DNS:      []netip.Addr{netip.MustParseAddr("10.0.2.3")},
		Hostname: "steps",
	}
}

func mustFor(t *testing.T, family Family, release string, arch Arch) Guest {
	t.Helper()
	g, err := For(family, release, arch)
	must.NoError(t, err)
	return g
}

func TestUnikraftCommandLine(t *testing.T) {
	cases := []struct {
		name    string
		release string
		arch    Arch
		boot    Boot
		line    string
	}{
		{name: "nothing on x86_64", arch: X86_64},
		{name: "nothing on arm64", arch: ARM64, line: "unikernel"},
		{name: "nothing on arm64 0.17", release: "0.17.0", arch: ARM64},
		{name: "a guest that asks by DHCP", arch: X86_64, boot: Boot{Net: userNet(), DHCP: true, Args: []string{"a"}}, line: "a"},
		{
			name: "an image that knows only DHCP", arch: X86_64,
			boot: Boot{Net: userNet(), Served: true, Features: []string{"CONFIG_LIBLWIP=y", "CONFIG_LWIP_DHCP=y"}},
		},
		{name: "an image that is not asked", arch: X86_64, boot: Boot{Net: userNet(), Features: []string{"CONFIG_LIBLWIP=y"}}},
		{
			name: "arguments need no separator", arch: X86_64,
			boot: Boot{Name: "steps", Args: []string{"a", "b c", `d'e"f\g`}},
			line: `a 'b c' 'd'"'"'e"f\g'`,
		},
		{
			name: "the first word is argv[0] on arm64 from 0.18", release: "0.18.0", arch: ARM64,
			boot: Boot{Name: "steps", Args: []string{"a"}},
			line: "steps a",
		},
		{
			name: "a build's own name is argv[0] on arm64 before", release: "0.16.3", arch: ARM64,
			boot: Boot{Name: "steps", Args: []string{"a"}},
			line: "a",
		},
		{
			name: "the release's own commit", release: "0.17.0~484ff209", arch: ARM64,
			boot: Boot{Name: "steps", Args: []string{"a"}},
			line: "a",
		},
		{
			name: "a work tree after 0.17.0", release: "0.17.0~eaf6fda1", arch: ARM64,
			boot: Boot{Name: "steps", Args: []string{"a"}},
			line: "steps a",
		},
		{
			name: "network, environment and arguments", release: "0.18.0", arch: ARM64,
			boot: Boot{
				Name: "steps", Args: []string{"--port", "80"}, Net: userNet(),
				Env: map[string]string{"B": "x y", "A": "1", "E": ""},
			},
			line: "steps netdev.ip=10.0.2.15/24:10.0.2.2:10.0.2.3::steps env.vars=[ A=1 'B=x y' E= ] -- --port 80",
		},
		{
			name: "a value that would end the list", arch: X86_64,
			boot: Boot{Env: map[string]string{"A": "[1]", "B": "2"}},
			line: "env.vars=[ B=2 ] env.vars=A=[1] --",
		},
		{
			name: "only values that would end the list", arch: X86_64,
			boot: Boot{Env: map[string]string{"A": "]"}},
			line: "env.vars=A=] --",
		},
		{
			name: "network of old releases", release: "0.16.0", arch: X86_64,
			boot: Boot{Net: userNet()},
			line: "netdev.ipv4_addr=10.0.2.15 netdev.ipv4_gw_addr=10.0.2.2 netdev.ipv4_subnet_mask=255.255.255.0 --",
		},
		{
			name: "an address alone", arch: X86_64,
			boot: Boot{Net: &Net{Address: netip.MustParsePrefix("192.168.7.9/20")}},
			line: "netdev.ip=192.168.7.9/20 --",
		},
		{
			name: "the first two IPv4 name servers", arch: X86_64,
			boot: Boot{Net: &Net{
				Address: netip.MustParsePrefix("10.0.0.2/8"),
				DNS: []netip.Addr{
					netip.MustParseAddr("fd00::1"), netip.MustParseAddr("10.0.0.3"),
					netip.MustParseAddr("10.0.0.4"), netip.MustParseAddr("10.0.0.5"),
				},
			}},
			line: "netdev.ip=10.0.0.2/8::10.0.0.3:10.0.0.4 --",
		},
		{
			name: "the user's address wins", arch: X86_64,
			boot: Boot{Net: userNet(), KernelArgs: []string{"netdev.ip=1.2.3.4/8"}},
			line: "netdev.ip=1.2.3.4/8 --",
		},
		{
			name: "kernel arguments stay as they are", arch: X86_64,
			boot: Boot{KernelArgs: []string{`vfs.fstab=[ "initrd0:/:extract::ramfs=1:" ]`, "x.y=2"}, Args: []string{"a"}},
			line: `vfs.fstab=[ "initrd0:/:extract::ramfs=1:" ] x.y=2 -- a`,
		},
		{
			name: "a separator among the arguments", arch: X86_64,
			boot: Boot{Args: []string{"a", "--", "b"}},
			line: "unikernel -- a -- b",
		},
		{
			name: "a separator among the arguments of an image that knows none", arch: X86_64,
			boot: Boot{Args: []string{"a", "--", "b"}, Features: []string{"CONFIG_LIBUKBOOT=y"}},
			line: "a -- b",
		},
		{
			name: "a separator in front stays", arch: X86_64,
			boot: Boot{Args: []string{"--", "b"}},
			line: "-- b",
		},
		{
			name: "an image that takes no address gets none", arch: X86_64,
			boot: Boot{Net: userNet(), Features: []string{"CONFIG_LIBUKLIBPARAM=y"}, Args: []string{"a"}},
			line: "a",
		},
		{
			name: "an initrd is mounted where the image waits for it", arch: X86_64,
			boot: Boot{Initrd: true, Features: []string{"CONFIG_LIBUKLIBPARAM=y", "CONFIG_LIBVFSCORE_AUTOMOUNT_UP=y"}},
			line: "vfs.fstab=[ initrd0:/:extract::: ] --",
		},
		{
			name: "an initrd is not mounted twice", arch: X86_64,
			boot: Boot{Initrd: true, Features: []string{"CONFIG_LIBUKLIBPARAM=y", "CONFIG_LIBVFSCORE_AUTOMOUNT_UP=y", "CONFIG_LIBVFSCORE_AUTOMOUNT_CI=y"}},
		},
		{
			name: "an initrd of an image that tells nothing", arch: X86_64,
			boot: Boot{Initrd: true},
		},
		{
			name: "offers beside other parameters", arch: X86_64,
			boot: Boot{
				Env: map[string]string{"A": "1"}, KernelArgs: []string{"x.y=1"},
				Offer: []string{"A=2", "broken", "N=3", "BAD KEY=4"},
			},
			line: "env.vars=[ A=1 N=3 ] x.y=1 --",
		},
		{
			name: "offers alone could become arguments", arch: X86_64,
			boot: Boot{Offer: []string{"N=3"}, Args: []string{"a"}},
			line: "a",
		},
		{
			name: "offers to an image that takes them", arch: X86_64,
			boot: Boot{Offer: []string{"N=3"}, Args: []string{"a"}, Features: []string{"CONFIG_LIBUKLIBPARAM=y", "CONFIG_LIBPOSIX_ENVIRON_LIBPARAM=y"}},
			line: "env.vars=[ N=3 ] -- a",
		},
		{
			name: "offers to an image that takes none", arch: X86_64,
			boot: Boot{Offer: []string{"N=3"}, KernelArgs: []string{"x.y=1"}, Features: []string{"CONFIG_LIBUKLIBPARAM=y"}},
			line: "x.y=1 --",
		},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			line, err := mustFor(t, Unikraft, tc.release, tc.arch).CommandLine(tc.boot)
			must.NoError(t, err)
			must.EqOp(t, tc.line, line)
		})
	}
}

// numbered gives so many variables.
func numbered(n int) map[string]string {
	env := map[string]string{}
	for i := range n {
		env[fmt.Sprintf("V%02d", i)] = "x"
	}
	return env
}

func TestUnikraftEnvironmentLimit(t *testing.T) {
	g := mustFor(t, Unikraft, "", X86_64)
	roomy := []string{"CONFIG_LIBUKLIBPARAM=y", "CONFIG_LIBPOSIX_ENVIRON_LIBPARAM=y", "CONFIG_LIBPOSIX_ENVIRON_LIBPARAM_MAXCOUNT=20"}

	_, err := g.CommandLine(Boot{Env: numbered(8)})
	must.NoError(t, err)
	_, err = g.CommandLine(Boot{Env: numbered(9)})
	must.ErrorContains(t, err, "the image takes 8")
	_, err = g.CommandLine(Boot{Env: numbered(20), Features: roomy})
	must.NoError(t, err)
	_, err = g.CommandLine(Boot{Env: numbered(21), Features: roomy})
	must.ErrorContains(t, err, "the image takes 20")

	line, err := g.CommandLine(Boot{Env: numbered(7), Offer: []string{"A=1", "B=2"}})
	must.NoError(t, err)
	must.StrContains(t, line, "A=1")
	must.StrNotContains(t, line, "B=2")
}

func TestUnikraftLimits(t *testing.T) {
	long := strings.Repeat("x", 3700)
	many := strings.Fields(strings.Repeat("a ", 58))
	cases := []struct {
		name    string
		release string
		arch    Arch
		boot    Boot
		message string // empty: it fits
	}{
		{name: "words fit", arch: X86_64, boot: Boot{Args: many}},
		{name: "words fit on arm64", arch: ARM64, boot: Boot{Args: many}},
		{name: "words of kernel arguments count", arch: X86_64, boot: Boot{Args: many, KernelArgs: []string{"a.b=1 c.d=2"}}, message: "61 words: the guest takes 58"},
		{name: "one word too many", arch: X86_64, boot: Boot{Args: append([]string{"z"}, many...)}, message: "59 words: the guest takes 58"},
		{name: "one word too many on arm64", arch: ARM64, boot: Boot{Args: append([]string{"z"}, many...)}, message: "60 words: the guest takes 59"},
		{name: "more words where the image takes them", arch: X86_64, boot: Boot{Args: append([]string{"z"}, many...), Features: []string{"CONFIG_LIBUKBOOT_MAXNBARGS=500"}}},
		{name: "bytes fit", arch: X86_64, boot: Boot{Args: []string{long}}},
		{name: "bytes with room for a long kernel path", arch: X86_64, boot: Boot{Args: []string{long, long[:200]}}, message: "3901 bytes: the guest takes 3838"},
		{name: "bytes with a short kernel path", arch: X86_64, boot: Boot{Args: []string{long, long[:200]}, Kernel: "/k"}},
		{name: "bytes with a build's name", release: "0.17.0", arch: ARM64, boot: Boot{Args: []string{long, long[:340]}}, message: "the guest takes 4029"},
		{name: "bytes on arm64", arch: ARM64, boot: Boot{Name: "n", Args: []string{long, long[:340]}}},
		{name: "more bytes where the image takes them", arch: X86_64, boot: Boot{Args: []string{long, long}, Features: []string{"CONFIG_LIBUKBOOT_CMDLINE_MAX_LEN=16384"}}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			_, err := mustFor(t, Unikraft, tc.release, tc.arch).CommandLine(tc.boot)
			if tc.message == "" {
				must.NoError(t, err)
				return
			}
			must.ErrorContains(t, err, tc.message)
			must.ErrorIs(t, err, ErrNoRoom)
		})
	}
}

func TestUnikraftRefuses(t *testing.T) {
	ipv6 := netip.MustParsePrefix("fd00::2/64")
	cases := []struct {
		name    string
		boot    Boot
		message string
	}{
		{"NUL in an argument", Boot{Args: []string{"ok", "a\x00b"}}, `args: argument 2: "a\x00b" has a NUL byte`},
		{"an empty argument", Boot{Args: []string{""}}, "args: argument 1 is empty"},
		{"NUL in a value", Boot{Env: map[string]string{"A": "\x00"}}, "env: A"},
		{"= in a name", Boot{Env: map[string]string{"A=B": "1"}}, `env: "A=B"`},
		{"a space in a name", Boot{Env: map[string]string{"A B": "1"}}, `env: "A B"`},
		{"no name", Boot{Env: map[string]string{"": "1"}}, `env: ""`},
		{"environment that the image lacks", Boot{Env: map[string]string{"A": "1"}, Features: []string{"CONFIG_LIBUKLIBPARAM=y"}}, "CONFIG_LIBPOSIX_ENVIRON_LIBPARAM"},
		{"parameters that the image lacks", Boot{KernelArgs: []string{"a.b=1"}, Features: []string{"CONFIG_LIBUKBOOT=y"}}, "CONFIG_LIBUKLIBPARAM"},
		{"IPv6", Boot{Net: &Net{Address: ipv6}}, "fd00::2/64"},
		{"an address that it can neither be told nor ask for", Boot{Net: userNet(), Served: true, Features: []string{"CONFIG_LIBLWIP=y"}}, "CONFIG_LWIP_DHCP"},
		{"an IPv6 gateway", Boot{Net: &Net{Address: userNet().Address, Gateway: ipv6.Addr()}}, "gateway, not fd00::2"},
		{"no address", Boot{Net: &Net{}}, "IPv4 address"},
		{"a hostname with a colon", Boot{Net: &Net{Address: userNet().Address, Hostname: "a:b"}}, `"a:b"`},
		{"an end of parameters", Boot{KernelArgs: []string{"a.b=1", "--"}}, `kernel_args: "--"`},
		{"help", Boot{KernelArgs: []string{"help"}}, `kernel_args: "help"`},
		{"an open quote", Boot{KernelArgs: []string{`a.b="x`}}, "kernel_args"},
		{"an open list", Boot{KernelArgs: []string{"a.b=[ 1 2"}}, `"a.b=[" is not closed`},
		{"a kernel path with a space", Boot{Kernel: "/a b"}, `kernel path "/a b"`},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			_, err := mustFor(t, Unikraft, "", X86_64).CommandLine(tc.boot)
			must.ErrorContains(t, err, tc.message)
		})
	}
}

func TestFor(t *testing.T) {
	cases := []struct {
		family  Family
		release string
		arch    Arch
		message string
	}{
		{Unikraft, "v0.17.0", ARM64, ""},
		{Unikraft, "0.18", X86_64, ""},
		{Mirage, "4.11.1", ARM64, ""},
		{Solo5, "", X86_64, ""},
		{Linux, "6.1", ARM64, ""},
		{Solo5, "", ARM64, "unikraft-qemu"},
		{Unikraft, "Calypso", ARM64, `"Calypso" cannot be read`},
		{Unikraft, "0.17.0.1", ARM64, "cannot be read"},
		{Unikraft, "0.12.0", ARM64, "before 0.13.0"},
		{"hermit", "", ARM64, `unknown guest "hermit"`},
		{Unikraft, "", "riscv64", `unknown architecture "riscv64"`},
	}
	for _, tc := range cases {
		t.Run(fmt.Sprintf("%s %s %s", tc.family, tc.release, tc.arch), func(t *testing.T) {
			g, err := For(tc.family, tc.release, tc.arch)
			if tc.message != "" {
				must.ErrorContains(t, err, tc.message)
				return
			}
			must.NoError(t, err)
			must.EqOp(t, tc.family, g.Family())
			must.False(t, g.AnswersPowerButton())
			devices := g.Devices()
			must.NotEq(t, "", devices.Machine)
			must.NotEq(t, "", devices.Net)
			must.NotEq(t, "", devices.CPUKVM)
			must.NotEq(t, "", devices.CPUTCG)
		})
	}
}
