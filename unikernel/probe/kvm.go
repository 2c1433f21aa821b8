// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package probe

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kvmDevice is how the kernel offers KVM.
const kvmDevice = "/dev/kvm"

// deviceMissing says why a host has no KVM device; empty: it has one.
func deviceMissing(device string) string {
	_, err := os.Stat(device)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Sprintf("no %s: virtualization is off in the firmware, or the kernel's kvm module is not loaded", device)
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// whyDenied says in words why QEMU's user may not open a device.
func whyDenied(device string, as *syscall.Credential) string {
	uid := os.Geteuid()
	if as != nil {
		uid = int(as.Uid)
	}
	var stat unix.Stat_t
	if err := unix.Stat(device, &stat); err != nil {
		return fmt.Sprintf("user id %d may not open %s", uid, device)
	}
	return fmt.Sprintf("user id %d may not open %s (mode %04o, owner %d, group %d): give it to a group with mode 0660",
		uid, device, stat.Mode&0o7777, stat.Uid, stat.Gid)
}

// From the kernel's interface, include/uapi/linux/kvm.h.
const (
	kvmCreateVM         = 0xae01     // _IO(KVMIO, 0x01)
	kvmCheckExtension   = 0xae03     // _IO(KVMIO, 0x03)
	kvmCapARMVMIPASize  = 165        // the widest guest address, in bits; 0: the usual one only
	usualIPABits        = 40         // of a machine that is made without saying
	kvmCreateDevice     = 0xc00caee0 // _IOWR(KVMIO, 0xe0, struct kvm_create_device)
	kvmCreateDeviceTest = 1          // only ask whether it could be made
	kvmVGICv2           = 5
	kvmVGICv3           = 7
)

// kvmDeviceRequest is struct kvm_create_device.
type kvmDeviceRequest struct {
	kind, fd, flags uint32
}

// gicVersions asks KVM which of ARM's interrupt controllers it offers to
// guests. The host's own controller decides: most with a v3 offer no v2.
func gicVersions(device string) ([]int, error) {
	kvm, err := os.OpenFile(device, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer kvm.Close()
	// Some processors, such as Apple's, address less than is usual.
	bits, _, errno := unix.Syscall(unix.SYS_IOCTL, kvm.Fd(), kvmCheckExtension, kvmCapARMVMIPASize)
	if errno != 0 || bits >= usualIPABits {
		bits = 0
	}
	vm, _, errno := unix.Syscall(unix.SYS_IOCTL, kvm.Fd(), kvmCreateVM, bits)
	if errno != 0 {
		return nil, fmt.Errorf("creating an empty virtual machine: %w", errno)
	}
	defer unix.Close(int(vm))

	var versions []int
	for _, gic := range []struct {
		version int
		kind    uint32
	}{{2, kvmVGICv2}, {3, kvmVGICv3}} {
		request := kvmDeviceRequest{kind: gic.kind, flags: kvmCreateDeviceTest}
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, vm, kvmCreateDevice, uintptr(unsafe.Pointer(&request)))
		if errno == 0 {
			versions = append(versions, gic.version)
		}
	}
	return versions, nil
}
