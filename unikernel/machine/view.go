// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// What QEMU sees of the host's file system: programs, libraries and firmware,
// the name servers in /etc, and the devices that any program wants, with KVM.
// All else that it works with, it inherits as open files.
var (
	seenFolders = []string{"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr", "/etc", "/nix/store", "/gnu/store"}
	seenDevices = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/kvm"}
)

// view is a root directory that is put together at a mount point.
type view struct{ root string }

// narrowView gives this thread, which has a mount namespace of its own, a file
// system of what QEMU needs, for reading only, and nothing else. It is built
// over dir, which the thread then sees no more. It returns the path of QEMU in it.
func narrowView(qemu, dir string) (string, error) {
	program, err := filepath.EvalSymlinks(qemu)
	if err != nil {
		return "", err
	}
	// What the host unmounts later goes from here too: nothing is kept alive.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return "", fmt.Errorf("leaving the host's mounts: %w", err)
	}
	if err := unix.Mount("unikernel", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755,size=64k"); err != nil {
		return "", fmt.Errorf("mounting a root directory: %w", err)
	}
	v := view{root: dir}
	if err := v.fill(program); err != nil {
		return "", err
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return "", fmt.Errorf("protecting the root directory: %w", err)
	}
	return program, v.enter()
}

func (v view) fill(program string) error {
	for _, folder := range append(folderOf(program), seenFolders...) {
		if err := v.folder(folder); err != nil {
			return err
		}
	}
	for _, device := range seenDevices {
		if err := v.device(device); err != nil {
			return err
		}
	}
	if err := v.nameServers(); err != nil {
		return err
	}
	return v.proc()
}

// folderOf is the folder in which a program was installed with its firmware
// and libraries, if that is none of the system's.
func folderOf(program string) []string {
	folder := filepath.Dir(program)
	if filepath.Base(folder) == "bin" {
		folder = filepath.Dir(folder)
	}
	if folder == "/" || slices.ContainsFunc(seenFolders, func(seen string) bool { return below(folder, seen) }) {
		return nil
	}
	return []string{folder}
}

func below(path, folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }

// folder shows a folder, or the same link where it is one (/bin on many hosts).
// What the host does not have, or what is shown already, is left out.
func (v view) folder(path string) error {
	if link, err := os.Readlink(path); err == nil {
		return os.Symlink(link, v.root+path)
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := os.MkdirAll(v.root+path, 0o755); err != nil {
		return err
	}
	return v.bind(path, unix.MS_NODEV)
}

func (v view) device(path string) error {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(v.root+path), 0o755); err != nil {
		return err
	}
	// Not opened: another thread's child may hold the file open for writing
	// until it starts its program, and the root could not be protected then.
	if err := unix.Mknod(v.root+path, unix.S_IFREG|0o600, 0); err != nil {
		return fmt.Errorf("making a place for %s: %w", path, err)
	}
	return v.bind(path, unix.MS_NOEXEC)
}

// nameServers shows the folder of /etc/resolv.conf where that is a link out of
// /etc: user-mode networking reads the file again when it changes.
func (v view) nameServers() error {
	file, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if errors.Is(err, os.ErrNotExist) || below(file, "/etc") {
		return nil
	}
	if err != nil {
		return err
	}
	return v.folder(filepath.Dir(file))
}

// bind shows what is at path, for reading only; devices can be written all the same.
func (v view) bind(path string, flags uintptr) error {
	if err := unix.Mount(path, v.root+path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("showing %s: %w", path, err)
	}
	if err := unix.Mount("", v.root+path, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|flags, ""); err != nil {
		return fmt.Errorf("protecting %s: %w", path, err)
	}
	return nil
}

// proc shows of processes only those of QEMU's own user, and nothing of the
// kernel. Where the kernel is too old for that (before 5.8) it shows the
// host's /proc.
func (v view) proc() error {
	const flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := os.Mkdir(v.root+"/proc", 0o755); err != nil {
		return err
	}
	if unix.Mount("proc", v.root+"/proc", "proc", flags, "hidepid=invisible,subset=pid") == nil {
		return nil
	}
	return v.bind("/proc", unix.MS_NODEV|unix.MS_NOEXEC)
}

// enter makes the view the thread's root. Nothing of the host's mounts stays in
// the namespace, but on hosts that run from their initial RAM disk, whose root
// cannot be exchanged.
func (v view) enter() error {
	if err := unix.Chdir(v.root); err != nil {
		return err
	}
	err := unix.PivotRoot(".", ".")
	if errors.Is(err, unix.EINVAL) {
		return unix.Chroot(".")
	}
	if err != nil {
		return fmt.Errorf("entering it: %w", err)
	}
	// The old root now lies on the new one.
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leaving the host's: %w", err)
	}
	return unix.Chdir("/")
}
