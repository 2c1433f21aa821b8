// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// The operating systems that a platform names. kraftkit writes the monitor
// there: qemu (kvm in old packages), and fc, xen and kraftcloud, which QEMU
// does not boot. urunc's images, and ordinary ones, say linux.
const osLinux = "linux"

var bootable = []string{"qemu", "kvm", osLinux} // the better first

// isUnikraftOS tells whether a platform's operating system is one of kraftkit's.
func isUnikraftOS(os string) bool { return os == "qemu" || os == "kvm" }

// choosePlatform picks the manifest of an index for an architecture; where the
// job names none, for the host's if there is one, else for another.
func choosePlatform(index v1.IndexManifest, want, host guest.Arch) (v1.Descriptor, error) {
	if len(index.Manifests) == 1 && index.Manifests[0].Platform == nil {
		return index.Manifests[0], nil // the kernel in it tells the rest
	}
	arches := []guest.Arch{want}
	if want == "" {
		arches = append([]guest.Arch{host}, guest.Arches...)
	}
	for _, arch := range arches {
		for _, os := range bootable {
			for _, entry := range index.Manifests {
				if entry.Platform != nil && entry.Platform.OS == os && arch != "" && platformArch(entry.Platform.Architecture) == arch {
					return entry, nil
				}
			}
		}
	}
	wanted := "qemu"
	if want != "" {
		wanted += "/" + string(want)
	}
	return v1.Descriptor{}, fmt.Errorf("has no image for %s; it has %s", wanted, platforms(index))
}

// platformArch is the architecture of a platform, in Unikraft's or Docker's
// words; empty: none of those known.
func platformArch(name string) guest.Arch {
	arch, err := guest.ParseArch(name)
	if err != nil {
		return ""
	}
	return arch
}

// platforms lists what an index has, for people.
func platforms(index v1.IndexManifest) string {
	var names []string
	for _, entry := range index.Manifests {
		if entry.Platform == nil || entry.Platform.OS == "unknown" { // attestations
			continue
		}
		if name := entry.Platform.OS + "/" + entry.Platform.Architecture; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "none that is named"
	}
	return strings.Join(names, ", ")
}
