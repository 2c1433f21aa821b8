// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// What to give instead, for most files that are no kernel.
const giveKernel = "give the kernel itself: an arm64 Image, or a multiboot ELF or bzImage for x86_64"

// known are files that people name by mistake, by how they start.
var known = []struct {
	at    int
	magic string
	what  string
	do    string
}{
	{0, "#!", "a script, not a kernel", giveKernel},
	{0, "07070", "a cpio archive, not a kernel", "name it as initrd, and the kernel as image"},
	{257, "ustar", "a tar archive, not a kernel", "unpack it, or write oci-layout: in front if it holds an OCI layout"},
	{0, "QFI\xfb", "a qcow2 disk, not a kernel", giveKernel},
	{0, "PK\x03\x04", "a zip archive, not a kernel", "unpack it (an artifact does) and name the kernel in it"},
	{0, "\xfd7zXZ\x00", "compressed with xz, which is not unpacked here", "unpack it, or compress it with gzip or zstd"},
	{0, "BZh", "compressed with bzip2, which is not unpacked here", "unpack it, or compress it with gzip or zstd"},
	{0, "\x02\x21\x4c\x18", "compressed with lz4, which is not unpacked here", "unpack it, or compress it with gzip or zstd"},
	{0, "\x04\x22\x4d\x18", "compressed with lz4, which is not unpacked here", "unpack it, or compress it with gzip or zstd"},
	{0, "\x1f\x8b", "compressed twice, with gzip inside", "compress it once"},
	{0, "\x28\xb5\x2f\xfd", "compressed twice, with zstd inside", "compress it once"},
	{0, "\x27\x05\x19\x56", "a U-Boot uImage", "give the kernel in it, without U-Boot's header"},
	{0, "\xd0\x0d\xfe\xed", "a device tree or FIT image, not a kernel", giveKernel},
	{4, "zimg", "an EFI zboot kernel (vmlinuz.efi), which QEMU's -kernel cannot unpack everywhere", "give the Image in it, plain or gzip-compressed"},
	{0x8001, "CD001", "an ISO disk image, not a kernel", giveKernel},
}

// describe says what a file is that no loader takes.
func describe(k sniffed) error {
	if k.size == 0 {
		return &NotBootable{"empty", giveKernel}
	}
	for _, file := range known {
		if len(k.head) >= file.at+len(file.magic) && string(k.head[file.at:file.at+len(file.magic)]) == file.magic {
			return &NotBootable{file.what, file.do}
		}
	}
	if bytes.HasPrefix(k.head, []byte("MZ")) {
		return describePE(k.head)
	}
	if _, ok := multibootHeader(k.head); ok {
		return &NotBootable{"a multiboot file that is not ELF", "give the ELF that it was made from"}
	}
	if isText(k.head) {
		return &NotBootable{"text, not a kernel", giveKernel}
	}
	if len(k.head) < arm64HeaderSize {
		return &NotBootable{fmt.Sprintf("too short for a kernel (%d bytes)", k.size), giveKernel}
	}
	return &NotBootable{"nothing that boots: no ELF, no arm64 Image, no bzImage (noise, or cut at the front)", giveKernel}
}

// describePE speaks of Windows and EFI programs, by the machine in their header.
func describePE(head []byte) error {
	const where = 0x3c // the PE header's offset
	machine := "unknown"
	if len(head) >= where+4 {
		at := int64(binary.LittleEndian.Uint32(head[where:]))
		if at+6 <= int64(len(head)) && string(head[at:at+4]) == "PE\x00\x00" {
			machine = peMachine(binary.LittleEndian.Uint16(head[at+4:]))
		}
	}
	return &NotBootable{
		"an EFI or Windows program (PE, " + machine + "), which needs firmware to start",
		giveKernel + " (an arm64 vmlinuz must be an Image: \"ARM\\x64\" at byte 56)",
	}
}

func peMachine(machine uint16) string {
	switch machine {
	case 0xaa64:
		return "arm64"
	case 0x8664:
		return "x86_64"
	case 0x14c:
		return "i386"
	}
	return fmt.Sprintf("machine %#x", machine)
}

// describeELF says what an ELF file is that has no multiboot header.
func describeELF(file *elf.File, notes []note) error {
	machine := machineName(file.Machine)
	switch {
	case file.Type == elf.ET_REL:
		return &NotBootable{"an object file (" + machine + "), not linked yet", "link it, or give the final image"}
	case file.Type == elf.ET_CORE:
		return &NotBootable{"a core dump", giveKernel}
	case isProgram(file, notes):
		return &NotBootable{
			"a program for an operating system (" + machine + "), not a kernel",
			"build it as a unikernel (kraft build, mirage configure), or run it in a container",
		}
	case elfArch(file) == guest.ARM64:
		return &NotBootable{
			"an arm64 ELF file, which gets no device tree from QEMU",
			"give the raw Image that was made from it (not the .dbg file)",
		}
	case elfArch(file) == guest.X86_64:
		return &NotBootable{
			"an ELF file for " + machine + " without a multiboot header in its first 8 KiB",
			"give a multiboot kernel (Unikraft's platform qemu, MirageOS's virtio or unikraft-qemu), or Linux as bzImage and not vmlinux",
		}
	}
	return &NotBootable{"an ELF file for " + machine, "give an image built for arm64 or x86_64"}
}

// isProgram tells whether an ELF file says that an operating system runs it.
func isProgram(file *elf.File, notes []note) bool {
	if file.OSABI == elf.ELFOSABI_LINUX || file.OSABI == elf.ELFOSABI_FREEBSD {
		return true
	}
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP {
			return true
		}
	}
	const abiTag, goBuildID = 1, 4
	for _, n := range notes {
		if n.owner == "GNU" && n.kind == abiTag || n.owner == "Go" && n.kind == goBuildID {
			return true
		}
	}
	return false
}

// isText tells whether a file's start is text.
func isText(head []byte) bool {
	if len(head) == sniffSize { // a character may be cut at the end
		head = head[:len(head)-utf8.UTFMax]
	}
	return utf8.Valid(head) && !bytes.ContainsFunc(head, func(r rune) bool {
		return r < ' ' && r != '\n' && r != '\r' && r != '\t' && r != 0x1b
	})
}
