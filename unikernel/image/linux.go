// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"regexp"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// The arm64 Image header, from Linux Documentation/arch/arm64/booting.rst.
const (
	arm64HeaderSize = 64
	arm64Magic      = "ARM\x64" // at arm64MagicAt
	arm64MagicAt    = 56

	arm64BigEndian = 1 << 0 // in the flags
	// No kernel asks to be loaded this far into RAM (Linux: 0 or 0x80000), nor
	// for this much of it.
	arm64MostOffset = 1 << 30
	arm64MostSize   = 1 << 34
)

// detectLinuxImage knows a raw arm64 Image. It carries nothing that tells
// Linux from Unikraft: the family comes from elsewhere.
func detectLinuxImage(k sniffed) (Facts, bool, error) {
	if len(k.head) < arm64HeaderSize || string(k.head[arm64MagicAt:arm64MagicAt+4]) != arm64Magic {
		return Facts{}, false, nil
	}
	var (
		le     = binary.LittleEndian
		code   = le.Uint64(k.head[0:])
		offset = le.Uint64(k.head[8:])
		memory = le.Uint64(k.head[16:])
		flags  = le.Uint64(k.head[24:])
	)
	if flags&arm64BigEndian != 0 {
		return Facts{}, false, &NotBootable{"a big-endian arm64 kernel", "build it little-endian"}
	}
	if code == 0 || offset >= arm64MostOffset || memory >= arm64MostSize {
		return Facts{}, false, &NotBootable{
			"marked as an arm64 Linux Image, but its header makes no sense",
			"it is damaged or not a kernel; build or fetch it again",
		}
	}
	return Facts{Arch: guest.ARM64, Format: LinuxImage}, true, nil
}

// The x86 boot protocol, from Linux Documentation/arch/x86/boot.rst. Offsets
// are from the file's start.
const (
	x86SetupSects = 0x1f1 // one byte: 512-byte sectors of set-up code
	x86SysSize    = 0x1f4 // 4 bytes: size of the rest, in 16-byte units
	x86BootFlag   = 0x1fe // 0xAA55
	x86Magic      = 0x202 // "HdrS"
	x86Version    = 0x206 // boot protocol
	x86KernelText = 0x20e // pointer to the version text, from 0x200
	x86HeaderEnd  = 0x212
)

// detectBzImage knows an x86 Linux kernel as distributions ship it.
func detectBzImage(k sniffed) (Facts, bool, error) {
	if len(k.head) < x86HeaderEnd || string(k.head[x86Magic:x86Magic+4]) != "HdrS" {
		return Facts{}, false, nil
	}
	le := binary.LittleEndian
	if le.Uint16(k.head[x86BootFlag:]) != 0xaa55 || le.Uint16(k.head[x86Version:]) < 0x200 {
		return Facts{}, false, nil
	}
	setup := int64(k.head[x86SetupSects])
	if setup == 0 {
		setup = 4 // the protocol's own default
	}
	want := (setup+1)*512 + int64(le.Uint32(k.head[x86SysSize:]))*16
	if k.size < want {
		return Facts{}, false, truncated("an x86 Linux kernel (bzImage)", k.size, want)
	}
	facts := Facts{Arch: guest.X86_64, Format: BzImage}
	if release := x86Release(k); release != "" {
		facts.Family, facts.Release = guest.Linux, release
	}
	return facts, true, nil
}

var linuxRelease = regexp.MustCompile(`^[0-9]+\.[0-9]+[0-9A-Za-z.+~_-]*`)

// x86Release reads the release that a bzImage names, such as "6.1.0-18-amd64".
func x86Release(k sniffed) string {
	at := int64(binary.LittleEndian.Uint16(k.head[x86KernelText:])) + 0x200
	if at == 0x200 {
		return ""
	}
	text := make([]byte, 128)
	n, _ := k.file.ReadAt(text, at)
	text, _, _ = bytes.Cut(text[:n], []byte{0})
	return string(linuxRelease.Find(text))
}

// truncated is a kernel that lost its end.
func truncated(what string, have, want int64) error {
	return &NotBootable{
		fmt.Sprintf("%s that was cut short: it has %d of at least %d bytes", what, have, want),
		"fetch or build it again",
	}
}
