// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import "bytes"

// gicDrivers are the names, as device trees spell them, by which a kernel's
// drivers find ARM's interrupt controllers on QEMU's virt machine: hw/arm/virt.c
// calls a GICv2 "arm,cortex-a15-gic" and a GICv3 "arm,gic-v3". A kernel that
// has the driver has the name (Unikraft: drivers/ukintctlr/gic; Linux:
// drivers/irqchip).
var gicDrivers = []struct {
	version int
	name    []byte
}{
	{2, []byte("arm,cortex-a15-gic\x00")},
	{3, []byte("arm,gic-v3\x00")},
}

// gicMarks remembers which of gicDrivers were seen.
type gicMarks [2]bool

// look reads a part of a kernel.
func (m *gicMarks) look(data []byte) {
	for i, driver := range gicDrivers {
		m[i] = m[i] || bytes.Contains(data, driver.name)
	}
}

// versions are those that were seen, the lowest first; nil: none.
func (m *gicMarks) versions() []int {
	var versions []int
	for i, driver := range gicDrivers {
		if m[i] {
			versions = append(versions, driver.version)
		}
	}
	return versions
}
