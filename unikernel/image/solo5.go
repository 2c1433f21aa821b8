// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// Solo5's ELF notes, from its include/elf_abi.h and include/mft_abi.h.
const (
	solo5Owner    = "Solo5"
	solo5ABI      = 0x31494241 // "ABI1"
	solo5Manifest = 0x3154464d // "MFT1"

	solo5EntrySize  = 104 // struct mft_entry: a name, the type, and what only the tender uses
	solo5NameSize   = 68
	solo5MostDevice = 64
)

// The targets that a Solo5 kernel is linked for (enum abi_target).
const (
	solo5HVT    = 1
	solo5SPT    = 2
	solo5Virtio = 3
)

var solo5Targets = map[uint32]string{solo5HVT: "hvt", solo5SPT: "spt", solo5Virtio: "virtio", 4: "muen", 5: "genode", 6: "xen"}

const solo5Advice = "QEMU cannot run it; build for QEMU with mirage configure -t virtio (x86_64) or -t unikraft-qemu (arm64 and x86_64)"

// solo5Target reads which target a Solo5 kernel is linked for.
func solo5Target(notes []note) (uint32, bool) {
	for _, n := range notes {
		if n.owner == solo5Owner && n.kind == solo5ABI && len(n.text) >= 4 {
			return binary.LittleEndian.Uint32(n.text), true
		}
	}
	return 0, false
}

func solo5Facts(facts Facts, target uint32, notes []note, k sniffed) (Facts, bool, error) {
	facts.Family, facts.Devices = guest.Solo5, solo5Devices(notes)
	switch target {
	case solo5HVT, solo5SPT:
		facts.Format = Solo5Tender
		return facts, true, nil
	case solo5Virtio:
		header, ok := multibootHeader(k.head)
		if !ok || header.flags&multibootAddresses == 0 || facts.Arch != guest.X86_64 {
			return Facts{}, false, &NotBootable{"a Solo5 virtio kernel whose multiboot header is missing", "build it again"}
		}
		facts.Format = Multiboot64
		return facts, true, nil
	}
	name := solo5Targets[target]
	if name == "" {
		name = fmt.Sprintf("unknown (%d)", target)
	}
	return Facts{}, false, &NotBootable{"a Solo5 kernel for the target " + name, solo5Advice}
}

// solo5Devices reads the manifest: the devices that the kernel demands.
func solo5Devices(notes []note) []Device {
	for _, n := range notes {
		if n.owner == solo5Owner && n.kind == solo5Manifest {
			return manifestDevices(n.text)
		}
	}
	return nil
}

func manifestDevices(text []byte) []Device {
	const head = 8 // version, entries
	le := binary.LittleEndian
	// The manifest is aligned to 8 bytes in the note, which leaves 4 in front.
	if len(text) < 4+head || le.Uint32(text[4:]) != 1 {
		return nil
	}
	entries := min(le.Uint32(text[8:]), solo5MostDevice)
	text = text[4+head:]
	devices := []Device{}
	for range entries {
		if len(text) < solo5EntrySize {
			return nil
		}
		name, _, _ := bytes.Cut(text[:solo5NameSize], []byte{0})
		switch le.Uint32(text[solo5NameSize:]) {
		case 1:
			devices = append(devices, Device{string(name), BlockDevice})
		case 2:
			devices = append(devices, Device{string(name), NetDevice})
		}
		text = text[solo5EntrySize:]
	}
	return devices
}
