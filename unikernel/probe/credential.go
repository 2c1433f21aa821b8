// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package probe

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Credential makes the plugin option user, a name or a numeric id, into what
// QEMU is started with: the user, its group, and the group of /dev/kvm where
// that is what opens the device. nil means: as this process.
func Credential(name string) (*syscall.Credential, error) {
	if name == "" {
		return nil, nil
	}
	who, err := user.Lookup(name)
	if _, unknown := errors.AsType[user.UnknownUserError](err); unknown {
		who, err = user.LookupId(name)
	}
	if err != nil {
		return nil, fmt.Errorf("the plugin option user names %q, which is not found: %w", name, err)
	}
	uid, err := strconv.ParseUint(who.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %q has the id %q: %w", name, who.Uid, err)
	}
	gid, err := strconv.ParseUint(who.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %q has the group id %q: %w", name, who.Gid, err)
	}
	if os.Geteuid() != 0 {
		if int(uid) == os.Geteuid() {
			return nil, nil
		}
		return nil, fmt.Errorf("the plugin option user names %q: only root can start QEMU as another user", name)
	}
	as := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	if group, ok := deviceGroup(kvmDevice); ok {
		as.Groups = []uint32{group}
	}
	return as, nil
}

// deviceGroup is the group that may open a device for reading and writing.
func deviceGroup(device string) (uint32, bool) {
	var stat unix.Stat_t
	if err := unix.Stat(device, &stat); err != nil || stat.Mode&0o060 != 0o060 || stat.Gid == 0 {
		return 0, false
	}
	return stat.Gid, true
}
