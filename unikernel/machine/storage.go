// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"fmt"
	"os"
)

// DiskFormat is how a file holds a disk.
type DiskFormat string

// The formats. QEMU is never left to guess: a guest could write the header of
// another format into its disk, and have QEMU open files of the host by it.
const (
	Raw   DiskFormat = "raw"
	QCOW2 DiskFormat = "qcow2"
)

// Disk is a disk of the guest, which a file of the host holds.
type Disk struct {
	File     *os.File // open for writing too, unless ReadOnly
	Format   DiskFormat
	ReadOnly bool
	Device   string // QEMU device model, such as "virtio-blk-device"
	// Properties of the device beyond its drive, such as "addr=0x4".
	Properties string
	Serial     string // by which the guest knows it; at most 20 bytes
}

// Share is a folder of the host that the guest reaches over 9p. What the guest
// does in it, QEMU does as its own user.
type Share struct {
	Folder   *os.File
	ReadOnly bool
	Device   string // QEMU device model, such as "virtio-9p-device"
	Tag      string // by which the guest knows it; at most 31 bytes
}

// firstDiskSet is the number of the first disk's set of descriptors. The
// console has set 1.
const firstDiskSet = 2

// args hand the file over as a set of descriptors: QEMU's user could not open
// a file of the task's again for writing.
func (d Disk) args(n int, inherit *files) []string {
	id, set := fmt.Sprintf("disk%d", n), firstDiskSet+n
	mode := "off"
	if d.ReadOnly {
		mode = "on"
	}
	device := fmt.Sprintf("%s,drive=%s", d.Device, id)
	if d.Serial != "" {
		device += ",serial=" + escape(d.Serial)
	}
	if d.Properties != "" {
		device += "," + d.Properties
	}
	return []string{
		"-add-fd", fmt.Sprintf("set=%d,fd=%d", set, inherit.add(d.File)),
		"-blockdev", fmt.Sprintf("driver=file,node-name=%s-file,filename=/dev/fdset/%d,read-only=%s", id, set, mode),
		"-blockdev", fmt.Sprintf("driver=%s,node-name=%s,file=%s-file,read-only=%s", d.Format, id, id, mode),
		"-device", device,
	}
}

// args share the folder as it is: owners and modes are the host's own, as far
// as QEMU's user may set them (security_model=none).
func (s Share) args(n int, inherit *files) []string {
	id := fmt.Sprintf("share%d", n)
	fsdev := fmt.Sprintf("local,id=%s,path=%s,security_model=none,multidevs=remap", id, inherit.path(s.Folder))
	if s.ReadOnly {
		fsdev += ",readonly=on"
	}
	return []string{
		"-fsdev", fsdev,
		"-device", fmt.Sprintf("%s,fsdev=%s,mount_tag=%s", s.Device, id, escape(s.Tag)),
	}
}
