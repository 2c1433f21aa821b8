// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Package image turns what a job names as its image into files that boot:
// a kernel, perhaps an initrd, and what is known of them.
//
// A [Store] opens a [Request]. Whatever the reference is (a file, an OCI
// registry, an OCI layout), the result is an [Image] whose files were checked
// by [Detect]: what QEMU could not boot never reaches it, and the error says
// what the file is and what would do.
package image

import (
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// Format is the boot protocol of a kernel file, read from the file itself.
type Format string

// The boot protocols that QEMU or a Solo5 tender starts.
const (
	LinuxImage  Format = "arm64 Linux Image" // raw, magic "ARM\x64" at offset 56
	Multiboot32 Format = "multiboot ELF32"   // x86_64 guests that QEMU starts in 32-bit mode
	Multiboot64 Format = "multiboot ELF64"   // Solo5's virtio target
	BzImage     Format = "x86 Linux bzImage" // magic "HdrS"
	Solo5Tender Format = "Solo5 hvt/spt ELF" // needs Solo5's own tender, not QEMU
)

// Image is a kernel that can be booted and what is known of it. Fields that
// nothing told are empty: nothing is guessed.
//
// Kernel, Initrd and Block are the very files that were checked, open and
// read-only: whoever boots them hands these descriptors on (QEMU opens
// /proc/self/fd/N), so that no path can be swapped between the check and the
// use. Every user may read their inodes, because QEMU reopens them as an
// unprivileged one, and only root or this process may write them. Where that is
// not so of the named file, or where it is compressed, they are an unlinked,
// read-only copy of it instead.
type Image struct {
	Kernel *os.File // open for reading, uncompressed
	Initrd *os.File // nil: none
	Block  *os.File // a disk image that the package brings; nil: none

	Arch    guest.Arch
	Family  guest.Family
	Release string // of the guest's kernel
	Format  Format

	Args     []string          // the image's own arguments
	Env      map[string]string // the image's own environment
	Features []string          // build options, as "CONFIG_X=y"; nil: not told
	Devices  []Device          // what the kernel demands, in order; nil: not told
	GICs     []int             // versions of ARM's interrupt controller that an arm64 kernel drives; nil: not told
	Source   string            // the reference as resolved, for people

	BlockMount string // where the guest mounts Block; empty: not told
}

// Device is a device that a Solo5 kernel's manifest demands. The kernel aborts
// where one is missing, extra or out of order.
type Device struct {
	Name string     `json:"name"` // as the unikernel calls it, such as "service"
	Kind DeviceKind `json:"kind"`
}

// DeviceKind is the kind of a demanded device.
type DeviceKind string

// The kinds of device in a Solo5 manifest.
const (
	NetDevice   DeviceKind = "net"
	BlockDevice DeviceKind = "block"
)

// Lacks tells whether the image was built without a feature, such as
// "LIBPOSIX_ENVIRON_LIBPARAM" (a leading "CONFIG_" may be given). It is known
// only where the image lists the options it was built with.
func (i *Image) Lacks(feature string) (lacks, known bool) {
	if i.Features == nil {
		return false, false
	}
	option := "CONFIG_" + strings.TrimPrefix(feature, "CONFIG_")
	has := slices.ContainsFunc(i.Features, func(have string) bool {
		name, value, _ := strings.Cut(have, "=")
		return name == option && value != "n" && value != ""
	})
	return !has, true
}

// Close closes the image's files. What was started with them holds
// descriptors of its own and keeps running; for an image from the cache these
// also keep it from being removed (see package cache).
func (i *Image) Close() error {
	var errs []error
	for _, f := range []*os.File{i.Kernel, i.Initrd, i.Block} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
