// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build board

package suite

import (
	"testing"

	"github.com/shoenig/test/must"
)

// The Debian package was installed, its files are whole, and its programs run.
func TestPackage(t *testing.T) {
	const name = "nomad-driver-unikernel"
	must.StrContains(t, mustRun(t, "dpkg", "--status", name), "Status: install ok installed")
	must.Eq(t, "", mustRun(t, "dpkg", "--verify", name))
	must.StrContains(t, mustRun(t, "nomad-hybrid", "policy"), "complexity")
	mustRun(t, name, "cache", "ls")
}
