// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/machine"
)

// hardware is the virtual machine that is chosen for a guest, by what the job
// says, what the image can do and what the node offers.
type hardware struct {
	machine   string // QEMU machine type
	cpu       string // QEMU CPU model
	gic       string // version of ARM's interrupt controller; empty on x86_64
	transport string // of virtio: mmio or pci
}

func (h hardware) String() string {
	text := h.machine + ", cpu " + h.cpu
	if h.gic != "" {
		text += ", GICv" + h.gic
	}
	return text + ", virtio over " + strings.ToUpper(h.transport)
}

func cpuModel(devices guest.Devices, accel machine.Accelerator) string {
	if accel == machine.KVM {
		return devices.CPUKVM
	}
	return devices.CPUTCG
}

// chooseHardware refuses, in words, what QEMU would refuse or what would hang.
func (l *launch) chooseHardware() error {
	devices := l.guest.Devices()
	l.hardware = hardware{
		machine:   cmp.Or(l.wish.Machine.Type, devices.Machine),
		cpu:       cmp.Or(l.wish.Machine.CPU, cpuModel(devices, l.accel)),
		transport: devices.Transport(),
	}
	can := l.node.Arches[l.image.Arch]
	if len(can.Machines) > 0 && !slices.Contains(can.Machines, l.hardware.machine) {
		return fmt.Errorf("config.machine.type = %q: QEMU %s for %s has no such machine type on this node: leave type out, or use one of %s",
			l.hardware.machine, can.Version, l.image.Arch, strings.Join(knownMachines(l.image.Arch, can.Machines), ", "))
	}
	var err error
	l.hardware.gic, err = l.chooseGIC()
	return err
}

// guestMachines are the machine types that guests here are made for, the usual
// one first.
var guestMachines = map[guest.Arch][]string{
	guest.ARM64:  {"virt"},
	guest.X86_64: {"pc", "q35", "microvm"},
}

// knownMachines are those of guestMachines that a QEMU has.
func knownMachines(arch guest.Arch, have []string) []string {
	return slices.DeleteFunc(slices.Clone(guestMachines[arch]), func(name string) bool {
		return !slices.Contains(have, name)
	})
}

// chooseGIC gives arm64's virt machine the interrupt controller that the job
// names, or one that the image drives and the node offers.
func (l *launch) chooseGIC() (string, error) {
	wanted := l.wish.Machine.GIC
	if l.image.Arch != guest.ARM64 {
		if wanted != "" {
			return "", fmt.Errorf("config.machine.gic = %q: the guest is for %s, and only arm64 machines have a GIC: leave gic out", wanted, l.image.Arch)
		}
		return "", nil
	}
	if l.accel != machine.KVM {
		return emulatedGIC(wanted, l.image.GICs), nil
	}
	if len(l.node.GIC) == 0 {
		return wanted, nil // KVM did not tell
	}
	gic, err := offeredGIC(wanted, l.image.GICs, l.node.GIC)
	if err != nil {
		return "", fmt.Errorf("%w, and KVM on this node offers its guests %s only (attribute driver.unikernel.gic): "+
			"place the task on a node that offers the other, by a constraint on that attribute, or have it emulated by accelerator = \"tcg\"",
			err, gicNames(l.node.GIC))
	}
	return gic, nil
}

// emulatedGIC is QEMU's own choice, GICv2, where the image does not need the
// other. drives is nil where the image does not tell.
func emulatedGIC(wanted string, drives []int) string {
	switch {
	case wanted != "":
		return wanted
	case drives == nil || slices.Contains(drives, 2):
		return "2"
	}
	return "3"
}

// offeredGIC is the newest version that the host offers and the image drives.
func offeredGIC(wanted string, drives, offered []int) (string, error) {
	if version, err := strconv.Atoi(wanted); err == nil && !slices.Contains(offered, version) {
		return "", fmt.Errorf("config.machine.gic = %q", wanted)
	}
	if wanted != "" {
		return wanted, nil // also max and host, which are QEMU's words
	}
	best := 0
	for _, version := range offered {
		if version > best && (drives == nil || slices.Contains(drives, version)) {
			best = version
		}
	}
	if best == 0 {
		return "", fmt.Errorf("the image's kernel drives %s only", gicNames(drives))
	}
	return strconv.Itoa(best), nil
}

// gicNames is such as "GICv2 and GICv3".
func gicNames(versions []int) string {
	names := make([]string, len(versions))
	for i, version := range versions {
		names[i] = "GICv" + strconv.Itoa(version)
	}
	return strings.Join(names, " and ")
}
