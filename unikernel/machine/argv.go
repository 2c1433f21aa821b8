// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// firstFD is the number that the first of exec.Cmd's ExtraFiles has in the child.
const firstFD = 3

// KernelPath is the path by which QEMU is given the kernel: it is the first
// file that QEMU inherits. Multiboot guests see it.
const KernelPath = "/proc/self/fd/3"

// tcgBufferMiB bounds TCG's cache of translated code. QEMU's own default is a
// quarter of the host's memory at most, which would be charged to the task.
// Unikernels are small: 32 MiB held every one that was tried.
const tcgBufferMiB = 32

// files collects the descriptors that QEMU inherits and tells their numbers.
type files struct{ list []*os.File }

func (f *files) add(file *os.File) int {
	f.list = append(f.list, file)
	return firstFD + len(f.list) - 1
}

// path is how QEMU opens an inherited file by name. The open goes to the file
// itself, whatever has become of its name since it was checked, and the path
// holds no space or comma (Solo5 guests see it as the first word of their
// command line).
func (f *files) path(file *os.File) string {
	return fmt.Sprintf("/proc/self/fd/%d", f.add(file))
}

// escape makes v one value inside an option of QEMU's key=value,… syntax.
// Source: QEMU, util/keyval.c and util/qemu-option.c.
func escape(v string) string {
	return strings.ReplaceAll(v, ",", ",,")
}

// argv generates QEMU's arguments; inherit collects the files they speak of.
func (c Config) argv(s *sockets, inherit *files) []string {
	args := c.baseArgs()
	args = append(args, c.boardArgs()...)
	args = append(args, c.bootArgs(inherit)...)
	args = append(args, monitorArgs(inherit.add(s.first), inherit.add(s.qmp.file))...)
	args = append(args, c.consoleArgs(s, inherit)...)
	for _, nic := range c.NICs {
		args = append(args, nic.args(inherit)...)
	}
	for i, disk := range c.Disks {
		args = append(args, disk.args(i, inherit)...)
	}
	for i, share := range c.Shares {
		args = append(args, share.args(i, inherit)...)
	}
	if c.Panic != "" {
		args = append(args, "-device", c.Panic)
	}
	if c.Restore != nil {
		args = append(args, "-incoming", "defer") // see restore
	}
	return append(args, c.ExtraArgs...)
}

// baseArgs: nothing but what is asked for, confined, paused at start, and kept
// after the guest's end for us to read how it ended.
func (c Config) baseArgs() []string {
	return []string{
		"-name", escape(c.ID),
		"-nodefaults", "-no-user-config",
		"-display", "none",
		"-preconfig", "-S", // see run
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-action", "shutdown=pause,reboot=shutdown,panic=pause",
	}
}

func (c Config) boardArgs() []string {
	board := "type=" + escape(c.Type)
	if c.GIC != "" {
		board += ",gic-version=" + escape(c.GIC)
	}
	accel := string(c.Accelerator)
	if c.Accelerator == TCG {
		accel += fmt.Sprintf(",tb-size=%d", tcgBufferMiB)
	}
	return []string{
		"-machine", board,
		"-accel", accel,
		"-cpu", c.CPU,
		"-smp", strconv.Itoa(max(c.CPUs, 1)),
		"-m", fmt.Sprintf("%dM", c.MemoryMiB), // QEMU's M is MiB
	}
}

// bootArgs come first of those that inherit files: see KernelPath. The guest's
// command line is told later: see run.
func (c Config) bootArgs(inherit *files) []string {
	args := []string{"-kernel", inherit.path(c.Kernel)}
	if c.Initrd != nil {
		args = append(args, "-initrd", inherit.path(c.Initrd))
	}
	return args
}

func monitorArgs(first, listening int) []string {
	return []string{
		"-chardev", fmt.Sprintf("socket,id=first,fd=%d", first),
		"-mon", "chardev=first,mode=control",
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d,server=on,wait=off", listening),
		"-mon", "chardev=qmp,mode=control",
	}
}

// consoleArgs: QEMU itself writes the console into Console and offers it on a
// socket, with no copying process between.
func (c Config) consoleArgs(s *sockets, inherit *files) []string {
	chardev := fmt.Sprintf("socket,id=console,fd=%d,server=on,wait=off", inherit.add(s.console.file))
	var args []string
	if c.Console != nil {
		// An fdset and not /proc/self/fd: the pipe belongs to root and
		// could not be opened again by QEMU's user.
		args = append(args, "-add-fd", fmt.Sprintf("set=1,fd=%d", inherit.add(c.Console)))
		chardev += ",logfile=/dev/fdset/1,logappend=on"
	}
	return append(args, "-chardev", chardev, "-serial", "chardev:console")
}

func (n NIC) args(inherit *files) []string {
	fd := firstFD + len(inherit.list)
	for _, file := range n.Files {
		inherit.add(file)
	}
	device := fmt.Sprintf("%s,netdev=%s,mac=%s", n.Device, escape(n.ID), escape(n.MAC))
	if n.Properties != "" {
		device += "," + n.Properties
	}
	if strings.HasPrefix(n.Device, "virtio-net-pci") {
		device += ",romfile=" // no boot from the network: saves loading the ROM
	}
	return []string{"-netdev", n.Netdev(fd), "-device", device}
}
