// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"bytes"
	"debug/elf"
	"errors"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

func TestDetect_Kernels(t *testing.T) {
	service := Device{"service", NetDevice}
	storage := Device{"storage", BlockDevice}
	for name, c := range map[string]struct {
		kernel []byte
		want   Facts
	}{
		"arm64 Image tells no family": {arm64Image(), Facts{Arch: guest.ARM64, Format: LinuxImage}},
		"arm64 Image of Linux": {
			arm64Image([]byte("\x00Linux version 6.1.0-18-arm64 (debian-kernel@lists.debian.org) (gcc-12) #1 SMP\n")...),
			Facts{Arch: guest.ARM64, Format: LinuxImage, Family: guest.Linux, Release: "6.1.0-18-arm64"},
		},
		"the words alone are no banner": {
			arm64Image([]byte("\x00Linux version %s, or Linux version 5 (none)\x00")...),
			Facts{Arch: guest.ARM64, Format: LinuxImage},
		},
		"arm64 Image of Unikraft, by its banner": {
			arm64Image([]byte("\x00Powered by\n\x00 __\n\x00Calypso 0.17.0~eaf6fda\x00")...),
			Facts{Arch: guest.ARM64, Format: LinuxImage, Family: guest.Unikraft, Release: "0.17.0~eaf6fda"},
		},
		"arm64 Image of Unikraft, by its short banner": {
			arm64Image([]byte("\x00Powered by Unikraft Telesto (0.16.1)\n\x00")...),
			Facts{Arch: guest.ARM64, Format: LinuxImage, Family: guest.Unikraft, Release: "0.16.1"},
		},
		"arm64 Image of Unikraft, by its libinfo": {
			arm64Image(libinfo(libinfoText(libinfoRelease, "0.18.0"), libinfoData(libinfoConfig, []byte("CONFIG_A=y\n# CONFIG_B is not set\n")))...),
			Facts{Arch: guest.ARM64, Format: LinuxImage, Family: guest.Unikraft, Release: "0.18.0", Features: []string{"CONFIG_A=y"}},
		},
		"MirageOS on Unikraft": {
			arm64Image(append(libinfo(libinfoText(libinfoRelease, "0.18.0")), "\x00Accessible with `Mirage_runtime.name`.\x00Fatal error: exception %s\n"...)...),
			Facts{Arch: guest.ARM64, Format: LinuxImage, Family: guest.Mirage, Release: "0.18.0"},
		},
		"OCaml on Unikraft": {
			arm64Image(append(libinfo(libinfoText(libinfoRelease, "0.18.0")), "Fatal error: exception %s\n"...)...),
			Facts{Arch: guest.ARM64, Format: LinuxImage, Release: "0.18.0"},
		},
		"libinfo that does not add up counts for nothing": {
			arm64Image(libinfo(libinfoText(libinfoRelease, "0.18.0"), []byte{9, 9, 9})...),
			Facts{Arch: guest.ARM64, Format: LinuxImage},
		},
		"marks of two families count for nothing": {
			arm64Image(append(libinfo(libinfoText(libinfoRelease, "0.18.0")), "Linux version 6.1.0 (a@b) (gcc)"...)...),
			Facts{Arch: guest.ARM64, Format: LinuxImage},
		},
		"drives GICv2 only": {
			arm64Image([]byte("arm,cortex-a15-gic\x00arm,gic-400\x00")...),
			Facts{Arch: guest.ARM64, Format: LinuxImage, GICs: []int{2}},
		},
		"drives both GICs": {
			arm64Image([]byte("arm,gic-v3\x00arm,cortex-a15-gic\x00")...),
			Facts{Arch: guest.ARM64, Format: LinuxImage, GICs: []int{2, 3}},
		},
		"speaks of a GIC that it need not drive": {
			arm64Image([]byte("arm,gic-v3-its\x00")...),
			Facts{Arch: guest.ARM64, Format: LinuxImage},
		},
		"Unikraft for x86_64": {
			unikraftELF("0.17.0~eaf6fda"),
			Facts{Arch: guest.X86_64, Format: Multiboot32, Family: guest.Unikraft, Release: "0.17.0~eaf6fda"},
		},
		"multiboot of nobody known": {
			craftedELF{class: elf.ELFCLASS32, machine: elf.EM_386, multiboot: true}.bytes(),
			Facts{Arch: guest.X86_64, Format: Multiboot32},
		},
		"Solo5 virtio": {
			solo5ELF(elf.EM_X86_64, solo5Virtio, storage, service),
			Facts{Arch: guest.X86_64, Format: Multiboot64, Family: guest.Solo5, Devices: []Device{storage, service}},
		},
		"Solo5 virtio without devices": {
			solo5ELF(elf.EM_X86_64, solo5Virtio),
			Facts{Arch: guest.X86_64, Format: Multiboot64, Family: guest.Solo5, Devices: []Device{}},
		},
		"Solo5 hvt": {
			solo5ELF(elf.EM_AARCH64, solo5HVT, service),
			Facts{Arch: guest.ARM64, Format: Solo5Tender, Family: guest.Solo5, Devices: []Device{service}},
		},
		"bzImage": {
			bzImage("6.1.0-18-amd64 (debian-kernel@lists.debian.org) #1 SMP"),
			Facts{Arch: guest.X86_64, Format: BzImage, Family: guest.Linux, Release: "6.1.0-18-amd64"},
		},
		"bzImage that names no release": {bzImage(""), Facts{Arch: guest.X86_64, Format: BzImage}},
	} {
		t.Run(name, func(t *testing.T) {
			facts, err := Detect(bytes.NewReader(c.kernel), int64(len(c.kernel)))
			must.NoError(t, err)
			must.Eq(t, c.want, facts)
		})
	}
}

func TestDetect_Others(t *testing.T) {
	noise := make([]byte, 64<<10)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	whole := unikraftELF("0.17.0")
	self, err := os.ReadFile("/proc/self/exe")
	must.NoError(t, err)
	vmlinuz := append([]byte("MZ"), make([]byte, 0x100)...)
	vmlinuz[0x3c] = 0x80
	copy(vmlinuz[0x80:], "PE\x00\x00\x64\xaa")
	with := func(k []byte, at int, b byte) []byte {
		k = bytes.Clone(k)
		k[at] = b
		return k
	}

	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"empty":                {nil, "empty"},
		"noise":                {noise, "nothing that boots"},
		"one byte":             {[]byte{7}, "too short"},
		"shell script":         {[]byte("#!/bin/sh\necho\n"), "script"},
		"text":                 {[]byte("hello\n"), "text, not a kernel"},
		"half an arm64 header": {arm64Image()[:60], "too short"},
		"arm64 magic in noise": {append(make([]byte, arm64MagicAt), "ARM\x64\x00\x00\x00\x00"...), "makes no sense"},
		"big-endian arm64":     {with(arm64Image(), 24, 1), "big-endian"},
		"EFI only":             {vmlinuz, "PE, arm64"},
		"EFI zboot":            {append([]byte("MZ\x00\x00zimg"), make([]byte, 64)...), "zboot"},
		"bzImage cut short":    {bzImage("")[:1600], "cut short"},
		"ELF cut short":        {whole[:len(whole)-8], "cut short"},
		"ELF header only":      {whole[:20], "cannot be read"},
		"this test itself":     {self, "a program for an operating system"},
		"static program": {
			craftedELF{class: elf.ELFCLASS64, machine: elf.EM_X86_64, notes: elfNote("GNU", 1, make([]byte, 16))}.bytes(),
			"a program for an operating system (x86_64)",
		},
		"debug image": {
			craftedELF{class: elf.ELFCLASS64, machine: elf.EM_X86_64, multiboot: true}.bytes(), "objcopy",
		},
		"arm64 ELF":  {craftedELF{class: elf.ELFCLASS64, machine: elf.EM_AARCH64}.bytes(), "raw Image"},
		"vmlinux":    {craftedELF{class: elf.ELFCLASS64, machine: elf.EM_X86_64}.bytes(), "without a multiboot header"},
		"object":     {craftedELF{class: elf.ELFCLASS64, machine: elf.EM_X86_64, kind: elf.ET_REL}.bytes(), "object file"},
		"riscv":      {craftedELF{class: elf.ELFCLASS64, machine: elf.EM_RISCV}.bytes(), "EM_RISCV"},
		"Solo5 xen":  {solo5ELF(elf.EM_X86_64, 6), "target xen"},
		"Solo5 else": {solo5ELF(elf.EM_X86_64, 99), "unknown (99)"},
		"cpio":       {[]byte("070701" + string(make([]byte, 200))), "cpio archive"},
		"qcow2":      {[]byte("QFI\xfb" + string(make([]byte, 200))), "qcow2"},
		"xz":         {[]byte("\xfd7zXZ\x00" + string(make([]byte, 200))), "xz"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Detect(bytes.NewReader(c.file), int64(len(c.file)))
			var not *NotBootable
			must.True(t, errors.As(err, &not), must.Sprintf("%v", err))
			must.StrContains(t, err.Error(), c.want)
		})
	}
}

// A mark is found wherever it lies, also across the windows of the scan.
func TestDetect_MarkOnEdge(t *testing.T) {
	mark := libinfo(libinfoText(libinfoRelease, "0.17.0"))
	for _, at := range []int{scanWindow - len(mark), scanWindow - 10, scanWindow - 1, scanWindow, scanWindow + scanOverlap - 3} {
		kernel := arm64Image(make([]byte, 3*scanWindow)...)
		copy(kernel[at:], mark)
		facts, err := Detect(bytes.NewReader(kernel), int64(len(kernel)))
		must.NoError(t, err)
		must.Eq(t, "0.17.0", facts.Release, must.Sprintf("at %d", at))
	}
}

// Whatever the file, Detect ends, and either names a format or says why not.
func FuzzDetect(f *testing.F) {
	for _, seed := range [][]byte{
		arm64Image(), bzImage("6.1"), unikraftELF("0.17.0"), []byte("#!/bin/sh"),
		solo5ELF(elf.EM_X86_64, solo5Virtio, Device{"a", NetDevice}), solo5ELF(elf.EM_AARCH64, solo5HVT),
		craftedELF{class: elf.ELFCLASS64, machine: elf.EM_X86_64, notes: elfNote("GNU", 1, nil)}.bytes(),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		facts, err := Detect(bytes.NewReader(file), int64(len(file)))
		var not *NotBootable
		if err != nil {
			must.True(t, errors.As(err, &not), must.Sprintf("%v", err))
			return
		}
		must.NotEq(t, "", facts.Format)
		must.NotEq(t, "", facts.Arch)
	})
}
