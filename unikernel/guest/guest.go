// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Package guest knows the kinds of guest: what each family wants on its kernel
// command line, which devices it drives, and by what signs it tells its end.
// A file for each family. It imports no other part of the project.
package guest

import "net/netip"

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
	Env        map[string]string // the application's environment
	Net        *Net              // nil: no network
	Initrd     bool              // an initrd is attached
}

// Net is the address that a guest is told. IPv4 only where the family takes
// only that.
type Net struct {
	Address  netip.Prefix // address and prefix length
	Gateway  netip.Addr   // zero: none
	DNS      []netip.Addr
	Hostname string
}

// Devices is the virtual hardware that a family drives on its architecture.
type Devices struct {
	Machine string // QEMU machine type, such as "virt" or "pc"
	Net     string // QEMU device model of a NIC, such as "virtio-net-device"
	CPUKVM  string // QEMU CPU model under KVM
	CPUTCG  string // QEMU CPU model under TCG
	Panic   string // QEMU device by which the guest reports a panic; empty: none
	// Accept is added to the NIC's properties, such as "disable-modern=on".
	NetProperties string
	// MaxMemoryMiB is the most RAM the guest can use; 0: no limit known.
	MaxMemoryMiB int64
	// MinMemoryMiB is the least RAM any guest of this family was seen to boot with.
	MinMemoryMiB int64
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
