// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// HugePages says whether the kernel may give huge pages to this program and to
// what it starts from now on. QEMU asks for them for the guest's RAM and for
// translated code; a small guest touches little of each, and the rest of every
// 2 MiB is lost.
// Source: prctl(2), PR_SET_THP_DISABLE: kept across fork and exec.
func HugePages(allowed bool) error {
	forbid := uintptr(1)
	if allowed {
		forbid = 0
	}
	err := unix.Prctl(unix.PR_SET_THP_DISABLE, forbid, 0, 0, 0)
	if err != nil && !errors.Is(err, unix.EINVAL) { // a kernel that has no huge pages
		return fmt.Errorf("choosing the size of memory pages: %w", err)
	}
	return nil
}
