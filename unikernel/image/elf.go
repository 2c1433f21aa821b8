// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// detectELF knows the ELF files that boot: multiboot ones, Solo5's, and tells
// the others apart in words.
func detectELF(k sniffed) (Facts, bool, error) {
	if !bytes.HasPrefix(k.head, []byte(elf.ELFMAG)) {
		return Facts{}, false, nil
	}
	file, err := elf.NewFile(io.NewSectionReader(k.file, 0, k.size))
	if err != nil {
		return Facts{}, false, &NotBootable{
			"an ELF file that cannot be read (" + err.Error() + ")", "it is damaged or cut short; fetch or build it again",
		}
	}
	if want := elfEnd(file); want < 0 || want > k.size {
		return Facts{}, false, truncated("an ELF file", k.size, want)
	}
	facts := Facts{Arch: elfArch(file)}
	notes := elfNotes(file)
	if target, ok := solo5Target(notes); ok {
		return solo5Facts(facts, target, notes, k)
	}
	header, ok := multibootHeader(k.head)
	if !ok {
		return Facts{}, false, describeELF(file, notes)
	}
	facts.Format, err = multibootFormat(file, header)
	if err != nil {
		return Facts{}, false, err
	}
	facts.Arch = guest.X86_64 // an i386 header too: QEMU starts all of them in 32-bit mode
	return facts, true, nil
}

// elfArch is the architecture of guests that an ELF file is for; empty: none
// of those known.
func elfArch(file *elf.File) guest.Arch {
	switch file.Machine {
	case elf.EM_AARCH64:
		return guest.ARM64
	case elf.EM_X86_64, elf.EM_386:
		return guest.X86_64
	}
	return ""
}

// elfEnd is the least size that the file must have for its segments; negative
// where they make no sense.
func elfEnd(file *elf.File) int64 {
	var end int64
	for _, segment := range file.Progs {
		if segment.Type != elf.PT_LOAD {
			continue
		}
		last := int64(segment.Off) + int64(segment.Filesz)
		if int64(segment.Off) < 0 || last < int64(segment.Off) {
			return -1
		}
		end = max(end, last)
	}
	return end
}

// note is an ELF note.
type note struct {
	owner string
	kind  uint32
	text  []byte
}

// mostNotes bounds the bytes of notes that are read from one section or segment.
const mostNotes = 64 << 10

// elfNotes reads a file's notes from its sections, or from its segments where
// the sections were stripped.
func elfNotes(file *elf.File) []note {
	var notes []note
	for _, section := range file.Sections {
		if section.Type == elf.SHT_NOTE {
			notes = append(notes, readNotes(section.Open(), file.ByteOrder)...)
		}
	}
	if len(notes) > 0 {
		return notes
	}
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_NOTE {
			notes = append(notes, readNotes(segment.Open(), file.ByteOrder)...)
		}
	}
	return notes
}

func readNotes(r io.Reader, order binary.ByteOrder) []note {
	data, err := io.ReadAll(io.LimitReader(r, mostNotes))
	if err != nil {
		return nil
	}
	const header = 12
	var notes []note
	for len(data) >= header {
		name, text := uint64(order.Uint32(data)), uint64(order.Uint32(data[4:]))
		kind := order.Uint32(data[8:])
		data = data[header:]
		textAt := alignUp(name, 4)
		if textAt+text > uint64(len(data)) {
			break
		}
		owner, _, _ := bytes.Cut(data[:name], []byte{0})
		notes = append(notes, note{string(owner), kind, data[textAt : textAt+text]})
		data = data[min(textAt+alignUp(text, 4), uint64(len(data))):]
	}
	return notes
}

func alignUp(n, to uint64) uint64 { return (n + to - 1) &^ (to - 1) }

// The multiboot 1 header, from the Multiboot Specification 0.6.96, 3.1.
const (
	multibootMagic     = 0x1badb002
	multibootAddresses = 1 << 16 // in the flags: the header says where to load
	multibootMinimum   = 12      // magic, flags, checksum
)

type multiboot struct{ flags uint32 }

// multibootHeader finds the header in a file's first 8 KiB, on a 4-byte
// boundary, with a checksum that is right.
func multibootHeader(head []byte) (multiboot, bool) {
	le := binary.LittleEndian
	for at := 0; at+multibootMinimum <= len(head); at += 4 {
		magic, flags, checksum := le.Uint32(head[at:]), le.Uint32(head[at+4:]), le.Uint32(head[at+8:])
		if magic == multibootMagic && magic+flags+checksum == 0 {
			return multiboot{flags}, true
		}
	}
	return multiboot{}, false
}

// multibootFormat checks that QEMU's multiboot loader takes the file.
func multibootFormat(file *elf.File, header multiboot) (Format, error) {
	addressed := header.flags&multibootAddresses != 0
	switch {
	case elfArch(file) != guest.X86_64:
		return "", &NotBootable{
			fmt.Sprintf("an ELF file for %s with a multiboot header", machineName(file.Machine)),
			"multiboot is for x86_64 only; give an image built for " + string(guest.X86_64),
		}
	case file.Class == elf.ELFCLASS32 && (file.Machine == elf.EM_386 || addressed):
		return Multiboot32, nil
	case addressed:
		return Multiboot64, nil
	}
	// load_multiboot in QEMU: "Cannot load x86-64 image, give a 32bit one."
	return "", &NotBootable{
		"a 64-bit multiboot ELF without load addresses in its header, which QEMU refuses",
		"give the final image and not the debug one (.dbg), or make it 32-bit: objcopy -O elf32-i386",
	}
}

// machineName names an ELF machine for people.
func machineName(machine elf.Machine) string {
	switch machine {
	case elf.EM_AARCH64:
		return "arm64"
	case elf.EM_X86_64:
		return "x86_64"
	case elf.EM_386:
		return "i386"
	}
	return machine.String()
}
