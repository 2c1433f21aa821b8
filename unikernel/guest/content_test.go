// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package guest

import (
	"strings"
	"testing"

	"github.com/shoenig/test/must"
)

func TestContent(t *testing.T) {
	built := []string{"CONFIG_LIBUKLIBPARAM=y", "CONFIG_LIBUKCPIO=y", "CONFIG_LIBVIRTIO_9P=y"}
	for _, c := range []struct {
		family   Family
		arch     Arch
		features []string
		initrd   Knowledge
		ninep    Knowledge
		block    Knowledge
	}{
		{Unikraft, ARM64, nil, Unknown, Unknown, Unknown},
		{Unikraft, ARM64, built, Yes, No, No},
		{Unikraft, ARM64, append(built, "CONFIG_LIB9PFS=y", "CONFIG_LIBVIRTIO_BLK=y"), Yes, Yes, Yes},
		{Mirage, ARM64, nil, No, No, Unknown},
		{Solo5, X86_64, nil, No, No, Yes},
		{Linux, ARM64, nil, Yes, Unknown, Unknown},
	} {
		g, err := For(c.family, "", c.arch)
		must.NoError(t, err)
		for transport, want := range map[Transport]Knowledge{Initrd: c.initrd, NineP: c.ninep, Block: c.block} {
			got := g.Content(transport, c.features)
			must.Eq(t, want.String(), got.Can.String(), must.Sprintf("%s by %s", c.family, transport))
			must.NotEq(t, "", got.Why)
		}
	}
}

func TestUnikraft_Fstab(t *testing.T) {
	up := []string{"CONFIG_LIBUKLIBPARAM=y", "CONFIG_LIBVFSCORE_AUTOMOUNT_UP=y"}
	data := []Share{{Target: "/data"}}
	for _, c := range []struct {
		name string
		boot Boot
		want string // empty: no fstab
	}{
		{"nothing told", Boot{Shares: data}, ""},
		{"compiled in", Boot{Shares: data, Features: append(up, "CONFIG_LIBVFSCORE_AUTOMOUNT_CI=y")}, ""},
		{"the job's own", Boot{Shares: data, Features: up, KernelArgs: []string{"vfs.fstab=[ a:/:9pfs ]"}}, "vfs.fstab=[ a:/:9pfs ]"},
		{"a share", Boot{Shares: data, Features: up}, "vfs.fstab=[ fs0:/data:9pfs:::mkmp ]"},
		{"shares in a ramfs", Boot{Shares: append(data, Share{Target: "/b"}), Features: append(up, "CONFIG_LIBRAMFS=y")}, "vfs.fstab=[ :/:ramfs::: fs0:/data:9pfs:::mkmp fs1:/b:9pfs:::mkmp ]"},
		{"the root", Boot{Shares: []Share{{Target: "/"}}, Features: append(up, "CONFIG_LIBRAMFS=y")}, "vfs.fstab=[ fs0:/:9pfs:::mkmp ]"},
		{"with an initrd", Boot{Initrd: true, Shares: data, Features: up}, "vfs.fstab=[ initrd0:/:extract::: fs0:/data:9pfs:::mkmp ]"},
	} {
		g, err := For(Unikraft, "0.17.0", ARM64)
		must.NoError(t, err)
		line, err := g.CommandLine(c.boot)
		must.NoError(t, err, must.Sprint(c.name))
		must.Eq(t, c.want != "", strings.Contains(line, "vfs.fstab"), must.Sprint(c.name))
		must.StrContains(t, line, c.want, must.Sprint(c.name))
	}
	g, err := For(Unikraft, "0.17.0", ARM64)
	must.NoError(t, err)
	_, err = g.CommandLine(Boot{Shares: []Share{{Target: "/a:b"}}, Features: up})
	must.ErrorContains(t, err, `"/a:b"`)
}

func TestLinux_Root(t *testing.T) {
	g, err := For(Linux, "", X86_64)
	must.NoError(t, err)
	for want, disks := range map[string][]Disk{
		"root=/dev/vda rw": {{Target: "/"}},
		"root=/dev/vdb ro": {{Target: "/data"}, {Target: "/", ReadOnly: true}},
	} {
		line, err := g.CommandLine(Boot{Disks: disks})
		must.NoError(t, err)
		must.StrContains(t, line, want)
	}
	line, err := g.CommandLine(Boot{Disks: []Disk{{Target: "/data"}}})
	must.NoError(t, err)
	must.StrNotContains(t, line, "root=")
}
