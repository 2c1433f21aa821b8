// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// Small kernels, crafted byte by byte: enough of each format for a loader to
// take it.

var le = binary.LittleEndian

// arm64Image is a raw arm64 Image with more behind its header.
func arm64Image(more ...byte) []byte {
	head := make([]byte, arm64HeaderSize)
	le.PutUint32(head[4:], 0x14000010) // b +64
	le.PutUint64(head[16:], 2*mib)
	le.PutUint64(head[24:], 0xa)
	copy(head[arm64MagicAt:], arm64Magic)
	return append(head, more...)
}

// bzImage is an x86 Linux kernel of one set-up sector and one of code.
func bzImage(release string) []byte {
	k := make([]byte, 1024+512)
	k[x86SetupSects] = 2
	k = append(k, make([]byte, 512)...)
	le.PutUint32(k[x86SysSize:], 512/16)
	le.PutUint16(k[x86BootFlag:], 0xaa55)
	copy(k[x86Magic:], "HdrS")
	le.PutUint16(k[x86Version:], 0x20f)
	if release != "" {
		le.PutUint16(k[x86KernelText:], 0x400-0x200)
		copy(k[0x400:], release)
	}
	return k
}

// craftedELF describes an ELF file of one segment, and one more for its notes.
type craftedELF struct {
	class     elf.Class
	machine   elf.Machine
	kind      elf.Type // 0: executable
	multiboot bool
	addressed bool   // the multiboot header has load addresses
	notes     []byte // in a PT_NOTE segment
	interp    bool   // has an interpreter
	abi       elf.OSABI
	data      []byte // in the loaded segment
}

func (c craftedELF) bytes() []byte {
	if c.kind == 0 {
		c.kind = elf.ET_EXEC
	}
	load := append(make([]byte, 64), c.data...)
	if c.multiboot {
		var flags uint32
		if c.addressed {
			flags = multibootAddresses
		}
		var magic uint32 = multibootMagic
		le.PutUint32(load[0:], magic)
		le.PutUint32(load[4:], flags)
		le.PutUint32(load[8:], -(magic + flags))
	}
	contents := []segment{{elf.PT_LOAD, load}}
	if c.notes != nil {
		contents = append(contents, segment{elf.PT_NOTE, c.notes})
	}
	if c.interp {
		contents = append(contents, segment{elf.PT_INTERP, []byte("/lib/ld.so\x00")})
	}
	if c.class == elf.ELFCLASS32 {
		return c.bytes32(contents)
	}
	return c.bytes64(contents)
}

type segment struct {
	kind elf.ProgType
	data []byte
}

func (c craftedELF) ident() (ident [elf.EI_NIDENT]byte) {
	copy(ident[:], elf.ELFMAG)
	ident[elf.EI_CLASS] = byte(c.class)
	ident[elf.EI_DATA] = byte(elf.ELFDATA2LSB)
	ident[elf.EI_VERSION] = byte(elf.EV_CURRENT)
	ident[elf.EI_OSABI] = byte(c.abi)
	return ident
}

func (c craftedELF) bytes64(contents []segment) []byte {
	const head, entry = 64, 56
	var out, body bytes.Buffer
	write(&out, elf.Header64{
		Ident: c.ident(), Type: uint16(c.kind), Machine: uint16(c.machine), Version: 1,
		Phoff: head, Ehsize: head, Phentsize: entry, Phnum: uint16(len(contents)), Shentsize: 64,
	})
	start := head + entry*len(contents)
	for _, s := range contents {
		write(&out, elf.Prog64{
			Type: uint32(s.kind), Off: uint64(start + body.Len()),
			Filesz: uint64(len(s.data)), Memsz: uint64(len(s.data)), Align: 4,
		})
		body.Write(padded(s.data))
	}
	return append(out.Bytes(), body.Bytes()...)
}

func (c craftedELF) bytes32(contents []segment) []byte {
	const head, entry = 52, 32
	var out, body bytes.Buffer
	write(&out, elf.Header32{
		Ident: c.ident(), Type: uint16(c.kind), Machine: uint16(c.machine), Version: 1,
		Phoff: head, Ehsize: head, Phentsize: entry, Phnum: uint16(len(contents)), Shentsize: 40,
	})
	start := head + entry*len(contents)
	for _, s := range contents {
		write(&out, elf.Prog32{
			Type: uint32(s.kind), Off: uint32(start + body.Len()),
			Filesz: uint32(len(s.data)), Memsz: uint32(len(s.data)), Align: 4,
		})
		body.Write(padded(s.data))
	}
	return append(out.Bytes(), body.Bytes()...)
}

// unikraftELF is a Unikraft kernel for x86_64 that carries its release.
func unikraftELF(release string) []byte {
	return craftedELF{
		class: elf.ELFCLASS32, machine: elf.EM_386, multiboot: true,
		data: libinfo(libinfoText(libinfoFullRelease, release)),
	}.bytes()
}

// solo5ELF is a Solo5 kernel for a target, demanding devices.
func solo5ELF(machine elf.Machine, target uint32, devices ...Device) []byte {
	abi := make([]byte, 16)
	le.PutUint32(abi, target)
	le.PutUint32(abi[4:], 1)
	manifest := make([]byte, 12, 12+len(devices)*solo5EntrySize)
	le.PutUint32(manifest[4:], 1)
	le.PutUint32(manifest[8:], uint32(len(devices)))
	for _, device := range devices {
		entry := make([]byte, solo5EntrySize)
		copy(entry, device.Name)
		kind := uint32(1)
		if device.Kind == NetDevice {
			kind = 2
		}
		le.PutUint32(entry[solo5NameSize:], kind)
		manifest = append(manifest, entry...)
	}
	notes := append(elfNote("OpenBSD", 1, make([]byte, 4)), elfNote(solo5Owner, solo5Manifest, manifest)...)
	return craftedELF{
		class: elf.ELFCLASS64, machine: machine, interp: true,
		multiboot: target == solo5Virtio, addressed: target == solo5Virtio,
		notes: append(notes, elfNote(solo5Owner, solo5ABI, abi)...),
	}.bytes()
}

func elfNote(owner string, kind uint32, text []byte) []byte {
	var out bytes.Buffer
	write(&out, []uint32{uint32(len(owner) + 1), uint32(len(text)), kind})
	out.Write(padded(append([]byte(owner), 0)))
	out.Write(padded(text))
	return out.Bytes()
}

// libinfo is a global header of .uk_libinfo with these records.
func libinfo(records ...[]byte) []byte {
	body := bytes.Join(records, nil)
	head := make([]byte, libinfoHeader)
	le.PutUint32(head, uint32(libinfoHeader+len(body)))
	le.PutUint16(head[4:], 1)
	return append(head, body...)
}

func libinfoText(kind uint16, text string) []byte {
	return libinfoData(kind, append([]byte(text), 0))
}

func libinfoData(kind uint16, data []byte) []byte {
	record := make([]byte, libinfoRecord)
	le.PutUint16(record, kind)
	le.PutUint32(record[2:], uint32(libinfoRecord+len(data)))
	return append(record, data...)
}

func padded(data []byte) []byte {
	return append(bytes.Clone(data), make([]byte, alignUp(uint64(len(data)), 4)-uint64(len(data)))...)
}

// write writes fixed-size values, which cannot fail into a buffer.
func write(to *bytes.Buffer, value any) {
	if err := binary.Write(to, le, value); err != nil {
		panic(err)
	}
}
