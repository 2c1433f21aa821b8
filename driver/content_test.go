// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/image"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/machine"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/probe"
)

// launchOf is a launch of an image, as far as content is concerned.
func launchOf(t *testing.T, found *image.Image, mounts ...MountConfig) (*launch, *image.Store) {
	t.Helper()
	dir := t.TempDir()
	must.NoError(t, os.Chmod(dir, 0o755))
	must.NoError(t, os.MkdirAll(filepath.Join(dir, "steps", "local", "folder"), 0o755))
	images, err := image.NewStore(image.Options{CacheDir: filepath.Join(dir, "cache")})
	must.NoError(t, err)
	credential, err := probe.Credential("nobody")
	must.NoError(t, err)
	kind, err := guest.For(found.Family, found.Release, found.Arch)
	must.NoError(t, err)
	l := &launch{
		d:        New(hclog.NewNullLogger()),
		settings: &settings{credential: credential, PluginConfig: PluginConfig{User: "nobody", ImagePaths: []string{filepath.Join(dir, "images")}}},
		task:     &drivers.TaskConfig{ID: "id", Name: "steps", AllocDir: dir}, wish: &wish{}, image: found, guest: kind,
	}
	for _, config := range mounts {
		m, err := config.check()
		must.NoError(t, err)
		l.wish.mounts = append(l.wish.mounts, m)
	}
	t.Cleanup(l.close)
	return l, images
}

// put writes a file into the task's folder.
func put(t *testing.T, l *launch, name string, content string) {
	t.Helper()
	must.NoError(t, os.WriteFile(filepath.Join(l.task.TaskDir().Dir, name), []byte(content), 0o644))
}

var (
	told    = []string{"CONFIG_LIBUKBOOT=y", "CONFIG_LIBUKLIBPARAM=y"}
	told9p  = append(told, "CONFIG_LIBUKCPIO=y", "CONFIG_LIBVIRTIO_9P=y", "CONFIG_LIB9PFS=y", "CONFIG_LIBVFSCORE_AUTOMOUNT_UP=y", "CONFIG_LIBRAMFS=y")
	toldOld = append(told, "CONFIG_LIBUKCPIO=y")
)

func unikraftWith(features []string) *image.Image {
	return &image.Image{Family: guest.Unikraft, Arch: guest.ARM64, Source: "acme/app", Features: features}
}

// Each mount goes by a transport that fits; what cannot be carried is refused,
// naming the transport and what the image lacks.
func TestTransport(t *testing.T) {
	linux := &image.Image{Family: guest.Linux, Arch: guest.ARM64, Source: "acme/linux"}
	mirage := &image.Image{Family: guest.Mirage, Arch: guest.ARM64, Source: "acme/mirage"}
	cases := []struct {
		name  string
		image *image.Image
		mount mount
		goes  guest.Transport
		says  []string
	}{
		{"read only, told", unikraftWith(told9p), mount{readOnly: true}, guest.Initrd, nil},
		{"read only, not told", unikraftWith(nil), mount{readOnly: true}, guest.Initrd, nil},
		{"read only, built without", unikraftWith(told), mount{readOnly: true}, "", []string{"initrd", "acme/app", "CONFIG_LIBUKCPIO"}},
		{"writable, told", unikraftWith(told9p), mount{}, guest.NineP, nil},
		{"writable, not told", unikraftWith(nil), mount{}, guest.NineP, nil},
		{"writable, built without", unikraftWith(toldOld), mount{}, "", []string{"writable", "9p", "CONFIG_LIBVIRTIO_9P"}},
		{"volume, told", unikraftWith(told9p), mount{readOnly: true, Mount: image.Mount{Root: "/volume"}}, guest.NineP, nil},
		{"volume, not told", unikraftWith(nil), mount{readOnly: true, Mount: image.Mount{Root: "/volume"}}, guest.Initrd, nil},
		{"asked for, built without", unikraftWith(told), mount{transport: guest.NineP}, "", []string{"by 9p", "CONFIG_LIBVIRTIO_9P"}},
		{"disk, built without", unikraftWith(told), mount{transport: guest.Block}, "", []string{"by block", "CONFIG_LIBVIRTIO_BLK"}},
		{"Linux, read only", linux, mount{readOnly: true}, guest.Initrd, nil},
		{"Linux, writable", linux, mount{}, guest.NineP, nil},
		{"MirageOS, read only", mirage, mount{readOnly: true}, "", []string{"initrd", "mirage"}},
		{"MirageOS, writable", mirage, mount{}, "", []string{"9p", "mirage"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l, _ := launchOf(t, c.image)
			goes, err := l.transport(c.mount)
			if c.says == nil {
				must.NoError(t, err)
				must.Eq(t, c.goes, goes)
			}
			for _, words := range c.says {
				must.ErrorContains(t, err, words)
			}
		})
	}
}

func TestOpenContent_Shares(t *testing.T) {
	l, images := launchOf(t, unikraftWith(told9p), MountConfig{Source: "local/folder", Target: "/data"})
	must.ErrorContains(t, l.openContent(images), "may not write to")
	l.content.close()

	l, images = launchOf(t, unikraftWith(told9p), MountConfig{Source: "local/folder", Target: "/data"})
	must.NoError(t, os.Chmod(filepath.Join(l.task.TaskDir().LocalDir, "folder"), 0o777))
	l.task.Mounts = []*drivers.MountConfig{{HostPath: l.task.TaskDir().LocalDir, TaskPath: "volume", Readonly: true}}
	must.NoError(t, l.openContent(images))
	must.SliceLen(t, 2, l.content.shares)
	must.Eq(t, "fs0", l.content.shares[0].Tag)
	must.True(t, l.content.shares[1].ReadOnly)
	line, err := l.commandLine()
	must.NoError(t, err)
	must.StrContains(t, line, "vfs.fstab=[ :/:ramfs::: fs0:/data:9pfs:::mkmp fs1:/volume:9pfs:::mkmp ]")
}

func TestOpenContent_Refuses(t *testing.T) {
	folder := MountConfig{Source: "local/folder", Target: "/data", ReadOnly: true}
	disk := MountConfig{Source: "local/disk", Target: "/disk", Transport: "block"}
	with := func(c MountConfig, change func(*MountConfig)) MountConfig { change(&c); return c }
	solo5 := func(devices ...image.Device) *image.Image {
		return &image.Image{Family: guest.Solo5, Arch: guest.X86_64, Source: "acme/solo5", Devices: devices}
	}
	for says, c := range map[string]struct {
		image  *image.Image
		mounts []MountConfig
	}{
		"two mounts have this target": {unikraftWith(nil), []MountConfig{folder, folder}},
		"is no folder":                {unikraftWith(told9p), []MountConfig{with(disk, func(m *MountConfig) { m.Transport = "9p" })}},
		"no such file":                {unikraftWith(nil), []MountConfig{with(disk, func(m *MountConfig) { m.Source = "local/absent" })}},
		"leads outside":               {unikraftWith(told9p), []MountConfig{with(folder, func(m *MountConfig) { m.Source, m.Transport = "local/../../..", "9p" })}},
		`say format = "qcow2"`:        {unikraftWith(nil), []MountConfig{with(disk, func(m *MountConfig) { m.Source = "local/qcow2" })}},
		"is no qcow2 disk":            {unikraftWith(nil), []MountConfig{with(disk, func(m *MountConfig) { m.Format = "qcow2" })}},
		"on top of another file":      {unikraftWith(nil), []MountConfig{with(disk, func(m *MountConfig) { m.Source, m.Format = "local/backed", "qcow2" })}},
		`demands a disk "storage"`:    {solo5(image.Device{Name: "storage", Kind: image.BlockDevice}), nil},
		"demands no disk of that":     {solo5(image.Device{Name: "service", Kind: image.NetDevice}), []MountConfig{disk}},
	} {
		t.Run(says, func(t *testing.T) {
			l, images := launchOf(t, c.image, c.mounts...)
			put(t, l, "local/disk", "disk")
			put(t, l, "local/qcow2", "QFI\xfb\x00\x00\x00\x03"+string(make([]byte, 100)))
			put(t, l, "local/backed", "QFI\xfb\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x70"+string(make([]byte, 100)))
			must.ErrorContains(t, l.openContent(images), says)
		})
	}
}

// A Solo5 guest's devices lie on the bus as its manifest lists them.
func TestOpenContent_Solo5(t *testing.T) {
	l, images := launchOf(t, &image.Image{
		Family: guest.Solo5, Arch: guest.X86_64, Source: "acme/solo5", Devices: []image.Device{
			{Name: "logs", Kind: image.BlockDevice}, {Name: "service", Kind: image.NetDevice}, {Name: "storage", Kind: image.BlockDevice},
		}},
		MountConfig{Source: "local/storage", Target: "/storage", Transport: "block", ReadOnly: true},
		MountConfig{Source: "local/logs", Target: "/logs", Transport: "block"},
	)
	put(t, l, "local/storage", "storage")
	put(t, l, "local/logs", "logs")
	must.NoError(t, l.openContent(images))
	must.SliceLen(t, 2, l.content.disks)
	logs, storage := l.content.disks[0], l.content.disks[1]
	must.Eq(t, "disable-legacy=off,addr=0x3", logs.Properties)
	must.False(t, logs.ReadOnly)
	must.Eq(t, "disable-legacy=off,addr=0x4", l.nicProperties())
	must.Eq(t, "disable-legacy=off,addr=0x5", storage.Properties)
	must.True(t, storage.ReadOnly)
	must.Eq(t, machine.Raw, storage.Format)
}

// On arm64 the first disk has the lowest address, where guests look first.
func TestOpenContent_Order(t *testing.T) {
	l, images := launchOf(t, &image.Image{Family: guest.Linux, Arch: guest.ARM64, Source: "acme/linux"},
		MountConfig{Source: "local/a", Target: "/", Transport: "block"},
		MountConfig{Source: "local/b", Target: "/b", Transport: "block"},
	)
	put(t, l, "local/a", "a")
	put(t, l, "local/b", "b")
	must.NoError(t, l.openContent(images))
	must.Eq(t, "bus=virtio-mmio-bus.0", l.content.disks[0].Properties)
	must.Eq(t, "bus=virtio-mmio-bus.1", l.content.disks[1].Properties)
	line, err := l.commandLine()
	must.NoError(t, err)
	must.StrContains(t, line, "root=/dev/vda rw")
}

func TestMountConfig_Refuses(t *testing.T) {
	for says, config := range map[string]MountConfig{
		"unknown transport": {Source: "local/a", Target: "/a", Transport: "virtiofs"},
		"absolute path":     {Source: "local/a", Target: "a"},
		"unknown format":    {Source: "local/a", Target: "/a", Transport: "block", Format: "vmdk"},
		"is for disks":      {Source: "local/a", Target: "/a", Format: "raw"},
		"cannot be written": {Source: "local/a", Target: "/a", Transport: "initrd"},
	} {
		_, err := config.check()
		must.ErrorContains(t, err, says)
	}
}
