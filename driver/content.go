// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/image"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/machine"
)

// mount is one of the task's files or folders that the guest is to find.
type mount struct {
	image.Mount
	name      string // as the job calls it, for messages
	readOnly  bool
	transport guest.Transport // empty: one that fits
	format    machine.DiskFormat
}

// content is what a guest gets of the host's files, beside its image.
type content struct {
	packed []image.Mount // into the initrd
	shares []machine.Share
	disks  []machine.Disk
	// What the guest is told of them, in the same order.
	toldShares []guest.Share
	toldDisks  []guest.Disk
}

func (c *content) close() {
	for _, share := range c.shares {
		share.Folder.Close()
	}
	for _, disk := range c.disks {
		disk.File.Close()
	}
}

// mounts are the job's mounts, and the volumes that Nomad has prepared.
func (l *launch) mounts() []mount {
	all := slices.Clone(l.wish.mounts)
	for _, volume := range l.task.Mounts {
		all = append(all, mount{
			Mount:    image.Mount{Root: volume.HostPath, Source: ".", Target: "/" + strings.TrimLeft(volume.TaskPath, "/")},
			name:     fmt.Sprintf("volume_mount at %s", volume.TaskPath),
			readOnly: volume.Readonly,
		})
	}
	return all
}

// openContent opens what the guest is to find, each by a transport that its
// kernel takes.
func (l *launch) openContent(images *image.Store) error {
	mounts := l.mounts()
	if err := checkTargets(mounts); err != nil {
		return err
	}
	var disks []mount
	for _, m := range mounts {
		transport, err := l.transport(m)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		switch transport {
		case guest.Initrd:
			l.content.packed = append(l.content.packed, m.Mount)
		case guest.NineP:
			err = l.share(m)
		case guest.Block:
			disks = append(disks, m)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	if err := l.openDisks(images, disks); err != nil {
		return err
	}
	return images.Pack(l.imageRequest(), l.image, l.content.packed)
}

// transport chooses how a mount reaches the guest. What an image is not known
// to take is only chosen where nothing else would do.
func (l *launch) transport(m mount) (guest.Transport, error) {
	if m.transport != "" {
		return m.transport, l.takes(m.transport)
	}
	shared := l.guest.Content(guest.NineP, l.image.Features)
	switch {
	case !m.readOnly && shared.Can == guest.No:
		return "", fmt.Errorf("is writable, which needs 9p, and image %s takes none: %s: make it read only, or give an image with 9p", l.image.Source, shared.Why)
	case !m.readOnly, m.Root != "" && shared.Can == guest.Yes:
		return guest.NineP, nil
	}
	err := l.takes(guest.Initrd)
	if err == nil {
		return guest.Initrd, nil
	}
	if l.takes(guest.NineP) == nil {
		return guest.NineP, nil
	}
	return "", err
}

// takes refuses a transport that the image is known not to take.
func (l *launch) takes(t guest.Transport) error {
	content := l.guest.Content(t, l.image.Features)
	if content.Can == guest.No {
		return fmt.Errorf("cannot reach the guest by %s: image %s: %s", t, l.image.Source, content.Why)
	}
	return nil
}

// share shares a folder over 9p.
func (l *launch) share(m mount) error {
	told := guest.Share{Target: m.Target}
	tag, err := l.guest.Tag(len(l.content.shares), told)
	if err != nil {
		return err
	}
	if l.guest.Content(guest.NineP, l.image.Features).Can == guest.Unknown {
		l.progress(fmt.Sprintf("%s goes over 9p as %q; the image does not tell whether its kernel has 9p", m.name, tag))
	}
	folder, err := l.imageRequest().OpenFolder(m.Mount, m.readOnly)
	if err != nil {
		return err
	}
	l.content.shares = append(l.content.shares, machine.Share{
		Folder: folder, ReadOnly: m.readOnly, Device: l.guest.Devices().Share, Tag: tag,
	})
	l.content.toldShares = append(l.content.toldShares, told)
	if err := machine.MayUse(folder, l.settings.credential, !m.readOnly); err != nil {
		return fmt.Errorf("QEMU runs as user %q (the plugin's user): %w", l.settings.User, err)
	}
	return nil
}

// openDisks opens the image's own disk and the job's.
func (l *launch) openDisks(images *image.Store, mounts []mount) error {
	if len(l.image.Devices) > 0 || l.guest.Devices().OneBus {
		return l.openDemanded(images, mounts)
	}
	if l.image.Block != nil {
		if err := l.takes(guest.Block); err != nil {
			return fmt.Errorf("the image's own disk: %w", err)
		}
		if err := l.ownDisk(images, l.image.BlockMount, ""); err != nil {
			return err
		}
	}
	for _, m := range mounts {
		if err := l.openDisk(m, ""); err != nil {
			return err
		}
	}
	return nil
}

// openDemanded opens the disks that the image's manifest names, in its order:
// a guest ends at once where one is missing, or one more is there.
func (l *launch) openDemanded(images *image.Store, mounts []mount) error {
	own := l.image.Block != nil
	for at, device := range l.image.Devices {
		if device.Kind != image.BlockDevice {
			continue
		}
		place := busPlace(at)
		i := slices.IndexFunc(mounts, func(m mount) bool { return strings.TrimPrefix(m.Target, "/") == device.Name })
		var err error
		switch {
		case i >= 0:
			err = l.openDisk(mounts[i], place)
			mounts = slices.Delete(mounts, i, i+1)
		case own:
			own = false
			err = l.ownDisk(images, device.Name, place)
		default:
			err = fmt.Errorf("image %s demands a disk %q: give it one by mount { source = … target = %q transport = \"block\" }", l.image.Source, device.Name, "/"+device.Name)
		}
		if err != nil {
			return err
		}
	}
	if len(mounts) > 0 {
		return fmt.Errorf("%s: image %s demands no disk of that name; its devices: %v", mounts[0].name, l.image.Source, l.image.Devices)
	}
	return nil
}

// busPlace puts the device of a manifest's entry at its place on the PCI bus.
// The first ones are the board's own.
func busPlace(entry int) string { return fmt.Sprintf("addr=%#x", 3+entry) }

// ownDisk gives the guest the image's disk: a copy for each guest, which it
// may write to, and which goes with it.
func (l *launch) ownDisk(images *image.Store, target, place string) error {
	format := machine.Raw
	qcow2, err := image.IsQCOW2(l.image.Block)
	if err != nil {
		return fmt.Errorf("the disk of image %s: %w", l.image.Source, err)
	}
	if qcow2 {
		format = machine.QCOW2
	}
	file, err := images.PrivateDisk(l.image)
	if err != nil {
		return err
	}
	l.addDisk(file, format, guest.Disk{Target: target}, place)
	return nil
}

func (l *launch) openDisk(m mount, place string) error {
	file, err := l.imageRequest().OpenDisk(m.Mount, m.readOnly)
	if err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	l.addDisk(file, m.format, guest.Disk{Target: m.Target, ReadOnly: m.readOnly}, place)
	switch qcow2, err := image.IsQCOW2(file); {
	case err != nil:
		return fmt.Errorf("%s: %w", m.name, err)
	case qcow2 && m.format == machine.Raw:
		return fmt.Errorf("%s: its file is a qcow2 disk: say format = \"qcow2\"", m.name)
	case !qcow2 && m.format == machine.QCOW2:
		return fmt.Errorf("%s: its file is no qcow2 disk: leave format out", m.name)
	}
	return nil
}

// serialSize is how long a disk's serial number may be (virtio, 5.2.6.1).
const serialSize = 20

func (l *launch) addDisk(file *os.File, format machine.DiskFormat, told guest.Disk, place string) {
	devices := l.guest.Devices()
	if place == "" {
		place = l.mmioPlace(len(l.content.disks))
	}
	disk := machine.Disk{
		File: file, Format: format, ReadOnly: told.ReadOnly, Device: devices.Disk,
		Properties: joinProperties(devices.PCIProperties, place),
	}
	if len(told.Target) <= serialSize {
		disk.Serial = told.Target
	}
	l.content.disks = append(l.content.disks, disk)
	l.content.toldDisks = append(l.content.toldDisks, told)
}

// mmioPlace gives the n-th disk its place among arm64's virtio-mmio devices:
// guests find these by rising addresses, and QEMU hands out the highest first,
// so that vda would be the last disk.
func (l *launch) mmioPlace(n int) string {
	if l.guest.Devices().Disk != "virtio-blk-device" {
		return ""
	}
	return fmt.Sprintf("bus=virtio-mmio-bus.%d", n)
}

// nicProperties are those of the NIC, with its place on the bus where the
// image's manifest gives it one.
func (l *launch) nicProperties() string {
	devices := l.guest.Devices()
	at := slices.IndexFunc(l.image.Devices, func(d image.Device) bool { return d.Kind == image.NetDevice })
	if at < 0 || !devices.OneBus {
		return devices.PCIProperties
	}
	return joinProperties(devices.PCIProperties, busPlace(at))
}

func joinProperties(properties ...string) string {
	return strings.Join(slices.DeleteFunc(properties, func(p string) bool { return p == "" }), ",")
}

// check makes a mount of a job's own, or says what is wrong with it.
func (c MountConfig) check() (mount, error) {
	m := mount{
		Mount:    image.Mount{Source: c.Source, Target: c.Target},
		name:     fmt.Sprintf("config.mount %q", c.Source),
		readOnly: c.ReadOnly, transport: guest.Transport(c.Transport), format: machine.DiskFormat(orElse(c.Format, string(machine.Raw))),
	}
	switch m.transport {
	case "auto":
		m.transport = ""
	case "", guest.Initrd, guest.NineP, guest.Block:
	default:
		return mount{}, fmt.Errorf("%q: unknown transport %q: use auto, initrd, 9p or block", c.Source, c.Transport)
	}
	switch {
	case !strings.HasPrefix(c.Target, "/"):
		return mount{}, fmt.Errorf("%q: target %q: write an absolute path", c.Source, c.Target)
	case m.format != machine.Raw && m.format != machine.QCOW2:
		return mount{}, fmt.Errorf("%q: unknown format %q: use raw or qcow2", c.Source, c.Format)
	case c.Format != "" && m.transport != guest.Block:
		return mount{}, fmt.Errorf("%q: format = %q is for disks: set transport = \"block\"", c.Source, c.Format)
	case !c.ReadOnly && m.transport == guest.Initrd:
		return mount{}, fmt.Errorf("%q with readonly = false: files reach the guest as a copy in its initrd, which cannot be written back: set readonly = true, or transport = \"9p\" where its kernel has that", c.Source)
	}
	return m, nil
}

// checkNICs refuses an image that demands other network cards than a machine
// here has.
func (l *launch) checkNICs() error {
	nics := l.demandedNICs()
	if nics > 1 {
		return fmt.Errorf("image %s demands %d network cards: a guest has one here", l.image.Source, nics)
	}
	if nics > 0 && l.wish.NetworkMode == noNetwork {
		return fmt.Errorf("config.network_mode: %q: image %s was built for a network card and does not boot without one", noNetwork, l.image.Source)
	}
	if l.image.Devices != nil && nics == 0 && len(l.ports) > 0 {
		return fmt.Errorf("config.ports: %q: image %s was built without a network card", l.wish.Ports, l.image.Source)
	}
	return nil
}

// demandedNICs counts the network cards in the image's manifest, if it has one.
func (l *launch) demandedNICs() int {
	count := 0
	for _, device := range l.image.Devices {
		if device.Kind == image.NetDevice {
			count++
		}
	}
	return count
}

var errMountTwice = errors.New("two mounts have this target")

// checkTargets refuses two mounts at one place.
func checkTargets(mounts []mount) error {
	seen := map[string]bool{}
	for _, m := range mounts {
		if seen[m.Target] {
			return fmt.Errorf("%s: target %q: %w", m.name, m.Target, errMountTwice)
		}
		seen[m.Target] = true
	}
	return nil
}
