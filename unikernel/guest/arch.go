// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package guest

import (
	"fmt"
	"runtime"
)

// Arch is a guest's processor architecture.
type Arch string

// The architectures that guests are booted on.
const (
	ARM64  Arch = "arm64"
	X86_64 Arch = "x86_64"
)

// Arches lists every architecture, the first one first.
var Arches = []Arch{ARM64, X86_64}

// ParseArch takes the names in use for an architecture (arm64, aarch64,
// x86_64, amd64).
func ParseArch(name string) (Arch, error) {
	switch name {
	case "arm64", "aarch64":
		return ARM64, nil
	case "x86_64", "amd64":
		return X86_64, nil
	}
	return "", fmt.Errorf("unknown architecture %q: use arm64 or x86_64", name)
}

// HostArch is the architecture of this machine; empty if guests of it are not
// known.
func HostArch() Arch {
	arch, err := ParseArch(runtime.GOARCH)
	if err != nil {
		return ""
	}
	return arch
}

// Family is a kind of guest: who made its kernel and its boot contract.
type Family string

// The families, as users name them in a task's `guest`.
const (
	Unikraft Family = "unikraft"
	Mirage   Family = "mirage" // MirageOS on Unikraft (its target unikraft-qemu)
	Solo5    Family = "solo5"  // MirageOS and others on Solo5's virtio target
	Linux    Family = "linux"
)

// Families lists every family.
var Families = []Family{Unikraft, Mirage, Solo5, Linux}

// ParseFamily takes a family's name.
func ParseFamily(name string) (Family, error) {
	for _, family := range Families {
		if string(family) == name {
			return family, nil
		}
	}
	return "", fmt.Errorf("unknown guest %q: use one of %v", name, Families)
}
