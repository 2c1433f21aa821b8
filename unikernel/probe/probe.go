// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Package probe finds out what this host can do for guests: which QEMU it has
// for each architecture, and whether KVM runs a kernel. It tells what works,
// not what exists: some hosts offer a /dev/kvm that cannot run the first
// instructions of a unikernel, so the probe boots a payload of its own that
// consists of such instructions, as the user that tasks' QEMU runs as.
package probe

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// Accelerator is how QEMU runs a guest's instructions.
type Accelerator string

// The accelerators; None says that guests of an architecture cannot run.
const (
	None Accelerator = ""
	KVM  Accelerator = "kvm"
	TCG  Accelerator = "tcg" // QEMU's emulation
)

// patience bounds one start of QEMU. A payload takes milliseconds under KVM;
// the rest is for slow, busy boards.
const patience = 30 * time.Second

// Options is what the operator chose.
type Options struct {
	// QEMU names the binary for an architecture; absent or empty: looked up
	// in PATH.
	QEMU map[guest.Arch]string

	// User is whom QEMU runs as, a name or a numeric id; empty: as this
	// process. Only root can run QEMU as another user: elsewhere it must be
	// empty or this process's own user.
	User string

	// Emulation tells whether guests may run without KVM.
	Emulation bool
}

// Result is what the host can do.
type Result struct {
	// Arches has an entry for every architecture of guest.Arches.
	Arches map[guest.Arch]Arch

	KVM       bool   // KVM runs kernels of the host's own architecture
	KVMReason string // why it does not; empty where it does

	// GIC lists the versions of ARM's interrupt controller that KVM offers
	// to guests, such as 2 and 3. Empty on other hosts and without KVM.
	GIC []int
}

// Arch is what the host can do for guests of one architecture.
type Arch struct {
	QEMU        string      // the binary's absolute path; empty: none that will do
	Version     string      // of QEMU, such as "7.2.17"
	Machines    []string    // machine types that it has, such as "virt" and "virt-7.2"; nil: it did not tell
	Accelerator Accelerator // the best that works and is allowed
	Reason      string      // why there is no accelerator; empty where there is
}

// Host probes this machine. What does not work is told in the result; an error
// means that the probe itself could not be made.
func Host(ctx context.Context, options Options) (Result, error) {
	return probe(ctx, guest.HostArch(), options)
}

// probe is Host for a machine of architecture host.
func probe(ctx context.Context, host guest.Arch, options Options) (Result, error) {
	as, err := Credential(options.User)
	if err != nil {
		return Result{}, err
	}
	result := Result{Arches: map[guest.Arch]Arch{}}
	for _, arch := range guest.Arches {
		result.Arches[arch] = findQEMU(ctx, arch, options.QEMU[arch], as)
	}
	result.KVM, result.KVMReason = probeKVM(ctx, host, result.Arches[host], as)
	if err := ctx.Err(); err != nil {
		return Result{}, fmt.Errorf("probing QEMU and KVM: %w", context.Cause(ctx))
	}
	if result.KVM && host == guest.ARM64 {
		if result.GIC, err = gicVersions(kvmDevice); err != nil {
			return Result{}, fmt.Errorf("asking KVM for its interrupt controllers: %w", err)
		}
	}
	for name, arch := range result.Arches {
		arch.accelerate(ctx, name, result.KVM && name == host, options.Emulation, as)
		result.Arches[name] = arch
	}
	return result, nil
}

// accelerate chooses the best accelerator, or says why there is none.
func (a *Arch) accelerate(ctx context.Context, name guest.Arch, kvm, emulation bool, as *syscall.Credential) {
	switch {
	case a.QEMU == "":
		a.Accelerator = None
	case kvm:
		a.Accelerator = KVM
	case emulation:
		if a.Reason = probeTCG(ctx, name, *a, as); a.Reason == "" {
			a.Accelerator = TCG
		}
	default:
		a.Reason = "KVM does not run such guests here, and the plugin option emulation = false forbids emulating them"
	}
}

// probeTCG tells why QEMU does not emulate kernels of an architecture, such as
// for want of a part that is a package of its own; empty: it does. A host that
// is too busy to tell is taken to emulate: tasks there are slow, not wrong.
func probeTCG(ctx context.Context, arch guest.Arch, qemu Arch, as *syscall.Credential) string {
	err := payloads[arch].run(ctx, qemu.QEMU, TCG, as)
	if err == nil || errors.Is(err, errLate) || ctx.Err() != nil {
		return ""
	}
	return "emulation does not work: " + err.Error()
}

// probeKVM tells whether KVM runs kernels, or why not.
func probeKVM(ctx context.Context, host guest.Arch, qemu Arch, as *syscall.Credential) (bool, string) {
	load, known := payloads[host]
	if !known {
		return false, "no payload for this machine's architecture"
	}
	if qemu.QEMU == "" {
		return false, qemu.Reason
	}
	if reason := deviceMissing(kvmDevice); reason != "" {
		return false, reason
	}
	err := load.run(ctx, qemu.QEMU, KVM, as)
	if errors.Is(err, errPermission) {
		return false, whyDenied(kvmDevice, as)
	}
	if err != nil {
		return false, err.Error()
	}
	return true, ""
}
