// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Package image turns what a job names as its image into files that boot:
// a kernel, perhaps an initrd, and what is known of them.
package image

import (
	"os"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// Format is the boot protocol of a kernel file, read from the file itself.
type Format string

// The boot protocols that QEMU or a Solo5 tender starts.
const (
	LinuxImage  Format = "arm64 Linux Image"  // raw, magic "ARM\x64" at offset 56
	Multiboot32 Format = "multiboot ELF32"    // x86_64 guests that QEMU starts in 32-bit mode
	Multiboot64 Format = "multiboot ELF64"    // Solo5's virtio target
	BzImage     Format = "x86 Linux bzImage"  // magic "HdrS"
	Solo5Tender Format = "Solo5 hvt/spt ELF"  // needs Solo5's own tender, not QEMU
)

// Image is a kernel that can be booted and what is known of it. Fields that
// nothing told are empty: nothing is guessed.
type Image struct {
	Kernel *os.File // open for reading, uncompressed
	Initrd *os.File // nil: none

	Arch    guest.Arch
	Family  guest.Family
	Release string // of the guest's kernel
	Format  Format

	Args     []string          // the image's own arguments
	Env      map[string]string // the image's own environment
	Features []string          // build options, as "CONFIG_X=y"; nil: not told
	Source   string            // the reference as resolved, for people
}

// Close closes the image's files.
func (i *Image) Close() error {
	var err error
	for _, f := range []*os.File{i.Kernel, i.Initrd} {
		if f == nil {
			continue
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}
	return err
}
