// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"os"
	"slices"
	"strings"
	"syscall"
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
	args := config.argv(&sockets{qmp: listener{file}, console: listener{file}, first: file}, &inherit)

	must.Eq(t, KernelPath, after(t, args, "-kernel"))
	must.Eq(t, "/proc/self/fd/4", after(t, args, "-initrd"))
	must.False(t, strings.Contains(strings.Join(args, " "), "a, b"), must.Sprint("/proc shows arguments to all"))
	must.Eq(t, "a,,b", after(t, args, "-name"))
	must.Eq(t, "type=virt,gic-version=3", after(t, args, "-machine"))
	must.Eq(t, "kvm", after(t, args, "-accel"))
	must.Eq(t, "40M", after(t, args, "-m"))
	must.Eq(t, strings.Repeat("f", 9), after(t, args, "-netdev"))
	must.Eq(t, "virtio-net-device,netdev=net0,mac=52:54:00:12:34:56", after(t, args, "-device"))
	must.Eq(t, []string{"-msg", "timestamp=on"}, args[len(args)-2:])
	must.SliceLen(t, 8, inherit.list)
}

func TestConfig_ArgvOfTCG(t *testing.T) {
	config := Config{ID: "a", Arch: guest.X86_64, Accelerator: TCG, Type: "pc", Kernel: os.Stdin, Panic: "pvpanic"}
	var inherit files
	args := config.argv(&sockets{qmp: listener{os.Stdin}, console: listener{os.Stdin}, first: os.Stdin}, &inherit)
	must.Eq(t, "tcg,tb-size=32", after(t, args, "-accel"))
	must.Eq(t, "pvpanic", after(t, args, "-device"))
	must.SliceNotContains(t, args, "-initrd")
	must.SliceNotContains(t, args, "-netdev")
}

func TestConfig_ArgvOfStorage(t *testing.T) {
	file := os.Stdin
	config := Config{
		ID: "a", Arch: guest.X86_64, Accelerator: TCG, Type: "pc", Kernel: file,
		Disks: []Disk{
			{File: file, Format: Raw, Device: "virtio-blk-pci", Serial: "/a,b", Properties: "addr=0x3"},
			{File: file, Format: QCOW2, ReadOnly: true, Device: "virtio-blk-pci"},
		},
		Shares: []Share{{Folder: file, ReadOnly: true, Device: "virtio-9p-pci", Tag: "/a,b"}},
	}
	var inherit files
	args := strings.Join(config.argv(&sockets{qmp: listener{file}, console: listener{file}, first: file}, &inherit), " ")
	for _, want := range []string{
		"-add-fd set=2,fd=7 -blockdev driver=file,node-name=disk0-file,filename=/dev/fdset/2,read-only=off " +
			"-blockdev driver=raw,node-name=disk0,file=disk0-file,read-only=off -device virtio-blk-pci,drive=disk0,serial=/a,,b,addr=0x3",
		"-add-fd set=3,fd=8 -blockdev driver=file,node-name=disk1-file,filename=/dev/fdset/3,read-only=on " +
			"-blockdev driver=qcow2,node-name=disk1,file=disk1-file,read-only=on -device virtio-blk-pci,drive=disk1",
		"-fsdev local,id=share0,path=/proc/self/fd/9,security_model=none,multidevs=remap,readonly=on -device virtio-9p-pci,fsdev=share0,mount_tag=/a,,b",
	} {
		must.StrContains(t, args, want)
	}
}

func TestMayUse(t *testing.T) {
	dir := t.TempDir()
	folder, err := os.Open(dir)
	must.NoError(t, err)
	defer func() { _ = folder.Close() }()
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	for _, c := range []struct {
		mode        os.FileMode
		list, write bool
	}{{0o777, true, true}, {0o755, true, false}, {0o750, false, false}} {
		must.NoError(t, os.Chmod(dir, c.mode))
		must.Eq(t, c.list, MayUse(folder, nobody, false) == nil, must.Sprintf("list %o", c.mode))
		must.Eq(t, c.write, MayUse(folder, nobody, true) == nil, must.Sprintf("write %o", c.mode))
		must.NoError(t, MayUse(folder, nil, true))
	}
	must.Eq(t, 0, os.Geteuid(), must.Sprint("the process itself stays what it was"))
}
