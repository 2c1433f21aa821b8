// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Package guest knows the kinds of guest: what each family wants on its kernel
// command line, which devices it drives, and by what signs it tells its end.
// A file for each family. It imports no other part of the project.
package guest

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// ErrNoRoom is in an error of CommandLine where less of Args, Env or KernelArgs
// would do: the line is too long, or the guest takes fewer variables, or none.
var ErrNoRoom = errors.New("the guest's command line has no room")

// For gives the guest of a family at a release on an architecture. The release
// is that of the guest's kernel, such as "0.17.0"; an empty one stands for the
// newest whose contract is known. It fails where the family does not run on
// the architecture or the release cannot be read or is too old.
func For(family Family, release string, arch Arch) (Guest, error) {
	if _, err := ParseArch(string(arch)); err != nil {
		return nil, err
	}
	switch family {
	case Unikraft:
		return newUnikraft(release, arch)
	case Mirage:
		return mirage{arch: arch}, nil
	case Solo5:
		return newSolo5(arch)
	case Linux:
		return linux{arch: arch}, nil
	}
	return nil, fmt.Errorf("unknown guest %q: use one of %v", family, Families)
}

// Guest is one family of guests at one release on one architecture.
type Guest interface {
	// Family is the kind of guest.
	Family() Family

	// CommandLine encodes what the guest is told at boot into its kernel
	// command line, in the family's own grammar, ready for QEMU's -append
	// (taken as it is; the caller escapes nothing). It fails, naming the
	// value, where the grammar or the release cannot carry it.
	CommandLine(Boot) (string, error)

	// Devices tells the virtual hardware that the family drives.
	Devices() Devices

	// TakesIPv6 tells whether the guest can be told an IPv6 address beside
	// its IPv4 one, and is left to by these arguments of the application.
	TakesIPv6(args []string) bool

	// Content tells whether files get into the guest by a transport, as far as
	// the options tell that its image was built with.
	Content(t Transport, features []string) Content

	// Tag is the name by which the guest finds the n-th of its shares.
	Tag(n int, share Share) (string, error)

	// Signs starts a reader of one boot's console.
	Signs() Signs

	// AnswersPowerButton tells whether an ACPI or PSCI power-down request
	// makes the guest end by itself. Where it does not, a stop does not wait.
	AnswersPowerButton() bool
}

// Boot is what a guest is told when it boots.
type Boot struct {
	Name       string            // a word for argv[0], where the family needs one in front
	Args       []string          // the application's arguments
	KernelArgs []string          // parameters for the guest's kernel, passed as they are
	Env        map[string]string // the application's environment; an error where it cannot be carried
	Net        *Net              // nil: no network
	DHCP       bool              // the guest asks for its address: it is told none
	Served     bool              // ports are forwarded to the guest, so it must have the address of Net
	Initrd     bool              // an initrd is attached
	Shares     []Share           // attached folders of the host, in order
	Disks      []Disk            // attached disks, in order

	// Offer is more environment, as KEY=VALUE, most wanted first. The guest
	// gets as much of it as there is room for, and nothing where its image is
	// not known to take any. Keys that Env has are left out.
	Offer []string

	// Kernel is the path by which QEMU is given the kernel. Multiboot guests
	// find it in front of their command line, where it takes room and must be
	// a plain word. Empty: room for a long path is kept.
	Kernel string

	// Features are the options that the image was built with, as
	// "CONFIG_X=y"; nil: not told. They widen or narrow what is carried.
	Features []string
}

// Net is the addresses that a guest is told. IPv6 is left out where the family
// takes IPv4 only.
type Net struct {
	Address  netip.Prefix // address and prefix length
	Gateway  netip.Addr   // zero: none
	Address6 netip.Prefix // the IPv6 address beside the one above; zero: none
	Gateway6 netip.Addr   // zero: none
	DNS      []netip.Addr // most wanted first; the guest is told as many as its family takes
	Hostname string       // told where the family takes one
}

// Devices is the virtual hardware that a family drives on its architecture.
type Devices struct {
	Machine string // QEMU machine type, such as "virt" or "pc"
	Net     string // QEMU device model of a NIC, such as "virtio-net-device"
	Share   string // QEMU device model of a share over 9p; empty: it drives none
	Disk    string // QEMU device model of a disk; empty: it drives none
	CPUKVM  string // QEMU CPU model under KVM
	CPUTCG  string // QEMU CPU model under TCG
	Panic   string // QEMU device by which the guest reports a panic; empty: none
	// PCIProperties is added to the properties of NIC and disks, such as
	// "disable-legacy=off".
	PCIProperties string
	// OneBus means that NIC and disks must have the order of the image's
	// manifest on the PCI bus.
	OneBus bool
	// MaxMemoryMiB is the most RAM the guest can use; 0: no limit known.
	MaxMemoryMiB int64
	// MinMemoryMiB is the least RAM any guest of this family was seen to boot
	// with; 0: not known.
	MinMemoryMiB int64
}

// Transport is how the guest reaches its virtio devices: "mmio" or "pci".
func (d Devices) Transport() string {
	if strings.HasSuffix(d.Net, "-pci") {
		return "pci"
	}
	return "mmio"
}

// Signs reads a guest's console, line by line, for what tells how it ended.
// It is not safe for concurrent use.
type Signs interface {
	// Line takes one console line, without its line end.
	Line(string)
	// End tells what the console said of the guest's end, if it said anything.
	End() (End, bool)
}

// End is what a guest's console told of its end.
type End struct {
	Status   int    // the application's return value, where it was told
	Crashed  bool   // a crash, panic or abort; Status is then meaningless
	Evidence string // the console line that told it
}
