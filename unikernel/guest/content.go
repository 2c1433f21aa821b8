// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package guest

import (
	"errors"
	"fmt"
	"strconv"
)

// Transport is a way by which files of the host reach a guest.
type Transport string

// The transports.
const (
	Initrd Transport = "initrd" // a copy, in the archive that the guest is booted with
	NineP  Transport = "9p"     // a folder of the host, as virtio-9p shares it
	Block  Transport = "block"  // a disk, which a file of the host is
)

// Knowledge is whether an image can do something.
type Knowledge int

// Whether an image can do something.
const (
	Unknown Knowledge = iota // it does not list the options that it was built with
	Yes
	No
)

// String is "unknown", "yes" or "no".
func (k Knowledge) String() string { return [...]string{"unknown", "yes", "no"}[k] }

// Content is how files get into a guest by one transport.
type Content struct {
	Can Knowledge
	Why string // for people: what the guest does with them; or where Can is No, what it lacks
}

// Share is a folder that the host shares with the guest over 9p.
type Share struct {
	Target string // where the guest finds it, absolute
}

// Disk is a disk of the guest.
type Disk struct {
	Target   string // what the guest is to do with it; "/": its root
	ReadOnly bool
}

// shareTag is the longest name that virtio-9p gives a share (QEMU, hw/9pfs).
const shareTag = 31

// unikraftContent tells by the options that an image was built with. The build
// options of its file systems are in lib/vfscore and drivers/virtio.
func unikraftContent(t Transport, built features) Content {
	needs := map[Transport][]string{
		Initrd: {"LIBUKCPIO"},
		NineP:  {"LIBVIRTIO_9P", "LIB9PFS"},
		Block:  {"LIBVIRTIO_BLK"},
	}[t]
	how := map[Transport]string{
		Initrd: "an initrd, mounted by vfs.fstab= or as it was compiled in",
		NineP:  "shares fs0, fs1, …, mounted by vfs.fstab= or as it was compiled in",
		Block:  "virtio disks, in the order in which the job lists them",
	}[t]
	if !built.told() {
		return Content{Unknown, how + ", if it was built with CONFIG_" + needs[0]}
	}
	for _, option := range needs {
		if built.lacks(option) {
			return Content{No, "it was built without CONFIG_" + option}
		}
	}
	return Content{Yes, how}
}

// unikraftTag is the name of the n-th share: that which images have compiled
// in where they mount one.
func unikraftTag(n int) string { return "fs" + strconv.Itoa(n) }

// fstabEntries mount what an image is known to leave to its command line. Most
// images have their mounts compiled in, and a second one would stop the boot.
func fstabEntries(b Boot) ([]string, error) {
	built := features(b.Features)
	if !built.has("LIBVFSCORE_AUTOMOUNT_UP") || built.has("LIBVFSCORE_AUTOMOUNT_CI") || built.has("LIBVFSCORE_AUTOMOUNT_FB") {
		return nil, nil
	}
	var entries []string
	if b.Initrd {
		entries = append(entries, "initrd0:/:extract:::")
	} else if len(b.Shares) > 0 && b.Shares[0].Target != "/" && built.has("LIBRAMFS") {
		entries = append(entries, ":/:ramfs:::") // something to mount the shares in
	}
	for i, share := range b.Shares {
		if err := checkFstabPath(share.Target); err != nil {
			return nil, err
		}
		entries = append(entries, unikraftTag(i)+":"+share.Target+":9pfs:::mkmp")
	}
	return entries, nil
}

// checkFstabPath refuses what separates an fstab's fields, or its entries.
func checkFstabPath(path string) error {
	for _, c := range path {
		if c <= ' ' || c == ':' || c == '"' || c == '\'' || c == '\\' || c == '[' || c == ']' {
			return fmt.Errorf("mount target %q: Unikraft's vfs.fstab cannot carry %q in a path", path, c)
		}
	}
	return nil
}

var errNoShares = errors.New("nothing in this guest mounts a share over 9p")

// noContent is a family that takes nothing by a transport.
func noContent(family Family, t Transport) Content {
	return Content{No, fmt.Sprintf("a %s guest has nothing that reads %s", family, t)}
}
