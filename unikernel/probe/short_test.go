// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package probe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/shoenig/test/must"
	"golang.org/x/sys/unix"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// shortOf is the real QEMU of x86_64, as it is when it may have only so much of
// something. limit is an option of prlimit(1).
func shortOf(t *testing.T, limit string) string {
	t.Helper()
	qemu, err := lookUp(guest.X86_64, "")
	must.NoError(t, err)
	path := filepath.Join(t.TempDir(), "qemu")
	script := fmt.Sprintf("#!/bin/sh\nexec prlimit %s %s \"$@\"\n", limit, qemu)
	must.NoError(t, os.WriteFile(path, []byte(script), 0o755))
	must.NoError(t, os.Chmod(filepath.Dir(filepath.Dir(path)), 0o755)) // for QEMU's user
	return path
}

// What a shortage keeps from working is said to be short, by what QEMU itself,
// its loader and the kernel say of it.
func TestRun_Short(t *testing.T) {
	must.EqOp(t, 0, os.Geteuid(), must.Sprint("needs root, to run QEMU as a user of its own"))
	nobodyElse := &syscall.Credential{Uid: 64123, Gid: 64123}
	for limit, says := range map[string]string{
		"--nofile=3":     "error while loading shared libraries",
		"--nofile=7":     "Too many open files",
		"--as=20480000":  "failed to map segment",
		"--as=150000000": "Cannot allocate memory",
		"--nproc=1":      "Resource temporarily unavailable",
	} {
		t.Run(limit, func(t *testing.T) {
			err := payloads[guest.X86_64].run(t.Context(), shortOf(t, limit), TCG, nobodyElse)
			must.ErrorContains(t, err, says)
			must.ErrorIs(t, err, errShort)
		})
	}
}

// The same where this process is short, at every number of descriptors that
// does not do.
func TestProbe_Short(t *testing.T) {
	var before unix.Rlimit
	must.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &before))
	t.Cleanup(func() { must.NoError(t, unix.Prlimit(0, unix.RLIMIT_NOFILE, &before, nil)) })
	next, err := unix.Dup(0) // the lowest number that is free
	must.NoError(t, err)
	must.NoError(t, unix.Close(next))

	short := 0
	for spare := range 32 {
		must.NoError(t, unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(next + spare), Max: before.Max}, nil))
		result, err := Host(t.Context(), Options{User: "nobody", Emulation: true})
		if err != nil {
			must.ErrorContains(t, err, "too many open files")
			continue
		}
		if !result.Short {
			for _, arch := range guest.Arches {
				must.NotEq(t, None, result.Arches[arch].Accelerator, must.Sprint(result.Arches[arch].Reason))
			}
			must.Positive(t, short)
			return
		}
		short++
	}
	t.Fatal("short of descriptors with 32 to spare")
}

// A QEMU that is killed from outside tells nothing of the host either; one that
// fails by itself does.
func TestEnding_Short(t *testing.T) {
	killed := fakeQEMU(t, goodVersion, "kill -KILL $$")
	must.ErrorIs(t, payloads[guest.ARM64].run(t.Context(), killed, TCG, nil), errShort)
	for _, lasting := range []string{
		"echo 'ioctl(KVM_CREATE_VM) failed: 16 Device or resource busy' >&2; exit 1",
		"echo 'qemu: could not load PC BIOS' >&2; exit 1",
		"echo 'error: failed to set MSR' >&2; kill -ABRT $$",
		"echo 'KVM internal error. Suberror: 1' >&2; exec sleep 1000",
		"exit 131",
	} {
		err := payloads[guest.X86_64].run(t.Context(), fakeQEMU(t, goodVersion, lasting), KVM, nil)
		must.Error(t, err)
		must.False(t, errors.Is(err, errShort), must.Sprint(err))
	}
}
