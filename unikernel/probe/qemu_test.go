// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package probe

import (
	"path/filepath"
	"testing"

	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

func TestFindQEMU(t *testing.T) {
	cases := map[string]struct {
		version string
		want    string
		reason  string
	}{
		"debian":    {goodVersion, "7.2.17", ""},
		"oldest":    {"QEMU emulator version 6.0.0", "6.0.0", ""},
		"two-part":  {"QEMU emulator version 10.1 (plain)", "10.1", ""},
		"too old":   {"QEMU emulator version 5.2.0 (Debian 1:5.2+dfsg-11)", "", "is QEMU 5.2.0: at least 6.0 is needed"},
		"not QEMU":  {"hello", "", "told no QEMU version"},
		"says none": {"", "", "told no QEMU version"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			path := fakeQEMU(t, tc.version, "exit 1")
			found, err := findQEMU(t.Context(), guest.ARM64, path, nil)
			must.Eq(t, tc.want, found.Version)
			if tc.reason != "" {
				must.ErrorContains(t, err, tc.reason)
				return
			}
			must.NoError(t, err)
			must.EqOp(t, path, found.QEMU)
		})
	}
}

func TestLookUp(t *testing.T) {
	_, err := lookUp(guest.ARM64, filepath.Join(t.TempDir(), "qemu"))
	must.ErrorContains(t, err, "qemu { arm64 }")
	must.ErrorContains(t, err, "no such file")

	t.Setenv("PATH", t.TempDir())
	_, err = lookUp(guest.X86_64, "")
	must.ErrorContains(t, err, "no qemu-system-x86_64 in PATH")
	must.ErrorContains(t, err, "qemu { x86_64 }")
}

func TestComplaint(t *testing.T) {
	must.Eq(t, "qemu: it broke", complaint("\nqemu: warning: not me\nqemu: it broke\nmore\n"))
	must.Eq(t, "", complaint("qemu: warning: only this\n"))
}
