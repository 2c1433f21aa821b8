// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Package machine runs one guest in one monitor: it starts QEMU, keeps in
// touch with it over QMP and its console, finds it again after a restart of
// this program, stops it, and tells how the guest ended.
//
// QEMU is started without any helper process. After a guest's end QEMU waits,
// paused, until this package has read how it ended.
package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"syscall"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// Accelerator is how a guest's processor is made.
type Accelerator string

// The accelerators.
const (
	KVM Accelerator = "kvm"
	TCG Accelerator = "tcg" // emulation
)

// Config is all that a machine is started from.
type Config struct {
	ID     string // unique on this host; names the run directory
	RunDir string // the machine makes its own directory in it, private to this user
	QEMU   string // path of the QEMU binary for Arch

	Arch        guest.Arch
	Accelerator Accelerator
	Type        string // machine type, such as "virt"
	CPU         string // CPU model
	GIC         string // GIC version of arm64's virt machine; empty: QEMU's choice
	CPUs        int
	MemoryMiB   int64 // guest RAM

	Kernel      *os.File // opened again by QEMU, so readable for User
	Initrd      *os.File // nil: none
	CommandLine string
	NICs        []NIC
	Disks       []Disk   // in the guest's order
	Shares      []Share  // in the guest's order
	Panic       string   // device by which the guest reports a panic; empty: none
	ExtraArgs   []string // passed to QEMU as they are: the caller has checked them

	// User is whom QEMU runs as. nil: as this process.
	User    *syscall.Credential
	Netns   string     // path of the network namespace that QEMU runs in; empty: this one
	Console *os.File   // where QEMU writes the guest's console; nil: nowhere
	Held    []*os.File // what QEMU keeps open while it lives, and does not know of

	// Restore is a state that Save wrote, to go on from in place of a boot, read
	// from where the file stands. Everything else must be as it was for that
	// guest. nil: the guest boots.
	Restore *os.File

	// Join puts QEMU into its cgroups, before the guest runs. nil: nothing.
	Join func(pid int) error
}

// directory is the machine's own.
func (c Config) directory() string { return filepath.Join(c.RunDir, c.ID) }

// NIC is a network card and what it is connected to.
type NIC struct {
	ID     string // of the netdev
	Device string // QEMU device model, such as "virtio-net-device"
	// Properties of the device beyond its MAC, such as "disable-modern=on".
	Properties string
	MAC        string
	// Netdev makes the value of -netdev, escaped already. Files have the
	// numbers from fd on in QEMU.
	Netdev func(fd int) string
	Files  []*os.File
}

// idPattern keeps IDs safe as directory names and QEMU ids.
var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

// Validate reports every field that cannot work.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if !idPattern.MatchString(c.ID) {
		bad("machine id %q: use letters, digits, '.', '_' and '-', at most 128", c.ID)
	}
	if c.QEMU == "" {
		bad("no QEMU for %s", c.Arch)
	}
	if c.Accelerator != KVM && c.Accelerator != TCG {
		bad("unknown accelerator %q: use %s or %s", c.Accelerator, KVM, TCG)
	}
	if c.MemoryMiB < 1 {
		bad("guest memory of %d MiB: at least 1 is needed", c.MemoryMiB)
	}
	if c.Kernel == nil {
		bad("no kernel")
	}
	if len(c.NICs) > 1 {
		bad("%d NICs: a machine has at most one", len(c.NICs))
	}
	for _, d := range c.Disks {
		if d.Format != Raw && d.Format != QCOW2 {
			bad("disk of format %q: use %s or %s", d.Format, Raw, QCOW2)
		}
	}
	return errors.Join(errs...)
}
