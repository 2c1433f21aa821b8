// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build board

package suite

import (
	"os"
	"testing"

	"github.com/shoenig/test/must"
)

// QEMU over its limit ends, and Nomad says why.
func TestOutOfMemory(t *testing.T) {
	a := startAgent(t, `memory_overhead = "1MiB"`)
	alloc := a.run(t, `memory = 32
args = ["--start-delay=3", "--fill-memory"]`, failed)
	t.Log(told(alloc))
	must.Eq(t, "true", end(t, alloc).Details["oom_killed"])
}

// Without the right to open /dev/kvm, a node says so, and guests are emulated
// only where the job allows it.
func TestKVMRefused(t *testing.T) {
	refuseKVM(t)
	a := startAgent(t, `emulation = true`)
	attributes := a.node(t).Attributes
	must.Eq(t, "false", attributes["driver.unikernel.kvm"])
	must.StrContains(t, attributes["driver.unikernel.kvm.reason"], "may not open /dev/kvm")
	must.Eq(t, "tcg", attributes["driver.unikernel.arch.arm64"])

	alloc := a.run(t, `accelerator = "kvm"`, failed)
	must.StrContains(t, told(alloc), "may not open /dev/kvm")
	a.stopJobs(t)

	alloc = a.run(t, ``, running)
	must.StrContains(t, told(alloc), "emulation")
	mustAnswer(t, a.address(t))
}

// Where the operator allows emulation, a guest of another architecture runs by
// it, and so does one whose job asks for it; both are told.
func TestEmulated(t *testing.T) {
	a := startAgent(t, `emulation = true`)
	must.Eq(t, "kvm", a.node(t).Attributes["driver.unikernel.arch.arm64"])
	must.Eq(t, "tcg", a.node(t).Attributes["driver.unikernel.arch.x86_64"])

	alloc := a.run(t, `image = "`+images+`/steps-x86_64"`, running)
	must.StrContains(t, told(alloc), "on x86_64 with")
	must.StrContains(t, told(alloc), "under tcg (emulation): pc, cpu max, virtio over PCI; this node is arm64")
	mustAnswer(t, a.address(t))
	a.stopJobs(t)

	alloc = a.run(t, `accelerator = "tcg"`, running)
	must.StrContains(t, told(alloc), "under tcg (emulation): virt, cpu max, GICv2, virtio over MMIO")
	mustAnswer(t, a.address(t))
}

// Where the operator forbids emulation, a node without KVM takes no guest.
func TestEmulationForbidden(t *testing.T) {
	refuseKVM(t)
	a := startAgent(t, `emulation = false`)
	driver := a.node(t).Drivers["unikernel"]
	must.False(t, driver.Detected)
	must.StrContains(t, driver.HealthDescription, "emulation = false")

	response := a.submit(t, ``)
	eventually(t, "the evaluation is over", func() error {
		eval, _, err := a.Evaluations().Info(response.EvalID, nil)
		if err != nil {
			return err
		}
		if eval.Status == "pending" {
			return os.ErrDeadlineExceeded
		}
		must.MapContainsKey(t, eval.FailedTGAllocs, "steps")
		return nil
	})
}

// refuseKVM takes the right to open /dev/kvm from QEMU's user.
func refuseKVM(t *testing.T) {
	t.Helper()
	must.NoError(t, os.Chmod("/dev/kvm", 0))
	t.Cleanup(func() { must.NoError(t, os.Chmod("/dev/kvm", 0o660)) })
}
