// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package probe

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// fakeQEMU writes a script in QEMU's place that tells a version and, asked to
// boot, runs body.
func fakeQEMU(t *testing.T, version, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qemu")
	script := fmt.Sprintf("#!/bin/sh\nif [ \"$1\" = -version ]; then echo %q; exit 0; fi\n%s\n", version, body)
	must.NoError(t, os.WriteFile(path, []byte(script), 0o755))
	return path
}

const goodVersion = "QEMU emulator version 7.2.17 (Debian 1:7.2+dfsg-7+deb12u16)"

func TestHost(t *testing.T) {
	result, err := Host(t.Context(), Options{Emulation: true})
	must.NoError(t, err)
	for _, arch := range guest.Arches {
		must.NotEq(t, "", result.Arches[arch].QEMU)
		must.NotEq(t, "", result.Arches[arch].Version)
		must.SliceContains(t, result.Arches[arch].Machines, map[guest.Arch]string{guest.ARM64: "virt", guest.X86_64: "pc"}[arch])
		must.SliceNotContains(t, result.Arches[arch].Machines, "Supported")
		must.NotEq(t, None, result.Arches[arch].Accelerator)
	}
	// A KVM that does not run always has its reason, one that runs never.
	must.Eq(t, result.KVM, result.KVMReason == "")
	t.Logf("KVM %t %s, GIC %v", result.KVM, result.KVMReason, result.GIC)
}

func TestHostAsUnprivilegedUser(t *testing.T) {
	if os.Geteuid() != 0 {
		_, err := Host(t.Context(), Options{User: "nobody"})
		must.ErrorContains(t, err, "only root")
		return
	}
	result, err := Host(t.Context(), Options{User: "nobody", Emulation: true})
	must.NoError(t, err)
	must.NotEq(t, "", result.Arches[guest.ARM64].Version)
	nobody, err := Credential("nobody")
	must.NoError(t, err)
	must.Eq(t, nobody, result.Credential)
}

func TestProbe_WithoutKVM(t *testing.T) {
	// An arm64 machine, wherever this runs, whose QEMU starts no guest.
	broken := fakeQEMU(t, goodVersion, "exit 1")
	qemu := map[guest.Arch]string{guest.ARM64: broken}

	result, err := probe(t.Context(), guest.ARM64, Options{QEMU: qemu, Emulation: true})
	must.NoError(t, err)
	must.False(t, result.KVM)
	must.NotEq(t, "", result.KVMReason)
	must.SliceEmpty(t, result.GIC)
	must.Eq(t, None, result.Arches[guest.ARM64].Accelerator)

	must.StrContains(t, result.Arches[guest.ARM64].Reason, "emulation does not work: ")

	result, err = probe(t.Context(), guest.ARM64, Options{QEMU: qemu, Emulation: false})
	must.NoError(t, err)
	must.Eq(t, None, result.Arches[guest.ARM64].Accelerator)
	must.StrContains(t, result.Arches[guest.ARM64].Reason, "emulation = false")
}

func TestProbe_Cancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fmt.Errorf("the plugin ends"))
	_, err := Host(ctx, Options{})
	must.ErrorContains(t, err, "the plugin ends")
}

func TestCredential(t *testing.T) {
	as, err := Credential("")
	must.NoError(t, err)
	must.Nil(t, as)

	_, err = Credential("no-such-user")
	must.ErrorContains(t, err, `"no-such-user"`)

	if os.Geteuid() != 0 {
		return
	}
	byName, err := Credential("nobody")
	must.NoError(t, err)
	byID, err := Credential(fmt.Sprint(byName.Uid))
	must.NoError(t, err)
	must.Eq(t, byName, byID)
	must.NotEq(t, 0, byName.Uid)
}

func TestDeviceGroup(t *testing.T) {
	if os.Geteuid() != 0 {
		_, ok := deviceGroup("/dev/null")
		must.False(t, ok)
		return
	}
	path := filepath.Join(t.TempDir(), "device")
	must.NoError(t, os.WriteFile(path, nil, 0o600))
	cases := []struct {
		mode os.FileMode
		gid  int
		want bool
	}{
		{0o660, 1234, true},
		{0o640, 1234, false},
		{0o600, 1234, false},
		{0o660, 0, false}, // root's group is never lent
	}
	for _, tc := range cases {
		must.NoError(t, os.Chown(path, 0, tc.gid))
		must.NoError(t, os.Chmod(path, tc.mode))
		gid, ok := deviceGroup(path)
		must.Eq(t, tc.want, ok)
		if ok {
			must.Eq(t, uint32(tc.gid), gid)
		}
	}
}

func TestDeviceMissing(t *testing.T) {
	must.StrContains(t, deviceMissing(filepath.Join(t.TempDir(), "kvm")), "module is not loaded")
	must.Eq(t, "", deviceMissing("/dev/null"))
}

func TestGICVersions_NoKVM(t *testing.T) {
	_, err := gicVersions("/dev/null")
	must.ErrorContains(t, err, "creating an empty virtual machine")
}
