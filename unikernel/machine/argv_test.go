// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// after returns the argument that follows an option.
func after(t *testing.T, args []string, option string) string {
	t.Helper()
	i := slices.Index(args, option)
	must.GreaterEq(t, 0, i, must.Sprintf("no %s in %q", option, args))
	return args[i+1]
}

func TestConfig_Argv(t *testing.T) {
	file := os.Stdin // any open file
	config := Config{
		ID: "a,b", Arch: guest.ARM64, Accelerator: KVM, Type: "virt", CPU: "host", GIC: "3",
		MemoryMiB: 40, Kernel: file, Initrd: file, CommandLine: `x -- "a, b"`, Console: file,
		NICs: []NIC{{
			ID: "net0", Device: "virtio-net-device", MAC: "52:54:00:12:34:56", Files: []*os.File{file, file},
			Netdev: func(fd int) string { return strings.Repeat("f", fd) },
		}},
		ExtraArgs: []string{"-msg", "timestamp=on"},
	}
	var inherit files
	args := config.argv(&sockets{qmp: listener{file}, console: listener{file}}, &inherit)

	must.Eq(t, KernelPath, after(t, args, "-kernel"))
	must.Eq(t, "/proc/self/fd/4", after(t, args, "-initrd"))
	must.False(t, strings.Contains(strings.Join(args, " "), "a, b"), must.Sprint("/proc shows arguments to all"))
	must.Eq(t, "a,,b", after(t, args, "-name"))
	must.Eq(t, "type=virt,gic-version=3", after(t, args, "-machine"))
	must.Eq(t, "kvm", after(t, args, "-accel"))
	must.Eq(t, "40M", after(t, args, "-m"))
	must.Eq(t, strings.Repeat("f", 8), after(t, args, "-netdev"))
	must.Eq(t, "virtio-net-device,netdev=net0,mac=52:54:00:12:34:56", after(t, args, "-device"))
	must.Eq(t, []string{"-msg", "timestamp=on"}, args[len(args)-2:])
	must.SliceLen(t, 7, inherit.list)
}

func TestConfig_ArgvOfTCG(t *testing.T) {
	config := Config{ID: "a", Arch: guest.X86_64, Accelerator: TCG, Type: "pc", Kernel: os.Stdin, Panic: "pvpanic"}
	var inherit files
	args := config.argv(&sockets{qmp: listener{os.Stdin}, console: listener{os.Stdin}}, &inherit)
	must.Eq(t, "tcg,tb-size=32", after(t, args, "-accel"))
	must.Eq(t, "pvpanic", after(t, args, "-device"))
	must.SliceNotContains(t, args, "-initrd")
	must.SliceNotContains(t, args, "-netdev")
}
