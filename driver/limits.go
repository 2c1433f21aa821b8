// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/cgroup"
)

// maxThreads bounds QEMU's threads: one for each processor, one for the main
// loop, and those of its thread pools.
const maxThreads = 64

// startShares is the least weight that QEMU has until its start is over, in MHz
// as Nomad counts it. A boot takes a fraction of a second of processor time;
// with the weight of a task that reserves next to nothing, a busy node would
// stretch it beyond every timeout.
const startShares = 256

// startingShares is a task's weight while it starts; 0: it has none.
func startingShares(own int64) int64 {
	if own <= 0 {
		return 0
	}
	return max(own, startShares)
}

// cgroupSpec turns a task's resources into limits for QEMU.
func cgroupSpec(task *drivers.TaskConfig) cgroup.Spec {
	resources := task.Resources
	spec := cgroup.Spec{
		Name: task.AllocID + "." + task.Name, // as the client names its own
		Limits: cgroup.Limits{
			MemoryMiB:    resources.NomadResources.Memory.MemoryMB,
			MemoryMaxMiB: resources.NomadResources.Memory.MemoryMaxMB,
			Pids:         maxThreads,
		},
	}
	if linux := resources.LinuxResources; linux != nil {
		spec.Path = linux.CpusetCgroupPath
		spec.Limits.CPUShares = linux.CPUShares
		spec.Limits.Cpuset = linux.CpusetCpus
	}
	return spec
}

func deleteCgroup(state cgroup.State) error {
	group, err := cgroup.Load(state)
	if err != nil {
		return err
	}
	return group.Delete()
}
