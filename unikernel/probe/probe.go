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

	// Credential is whom QEMU ran as, with the group that opens /dev/kvm now;
	// nil: as this process. Tasks' QEMUs run as the same, or KVM is not theirs.
	Credential *syscall.Credential

	// Short tells that the host lacked something for the moment, such as a
	// descriptor, when it was probed: what does not work here may work later.
	Short bool

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
	result := Result{Arches: map[guest.Arch]Arch{}, Credential: as}
	for _, arch := range guest.Arches {
		found, err := findQEMU(ctx, arch, options.QEMU[arch], as)
		found.Reason = result.because(err)
		result.Arches[arch] = found
	}
	result.KVMReason = result.because(probeKVM(ctx, host, result.Arches[host], as))
	result.KVM = result.KVMReason == ""
	if err := ctx.Err(); err != nil {
		return Result{}, fmt.Errorf("probing QEMU and KVM: %w", context.Cause(ctx))
	}
	if result.KVM && host == guest.ARM64 {
		if result.GIC, err = gicVersions(kvmDevice); err != nil {
			return Result{}, fmt.Errorf("asking KVM for its interrupt controllers: %w", err)
		}
	}
	for name, arch := range result.Arches {
		if arch.QEMU == "" {
			continue
		}
		arch.Accelerator, err = accelerate(ctx, name, arch.QEMU, result.KVM && name == host, options.Emulation, as)
		arch.Reason = result.because(err)
		result.Arches[name] = arch
	}
	return result, nil
}

// because is why something does not work, in words; empty: it does.
func (r *Result) because(err error) string {
	if err == nil {
		return ""
	}
	r.Short = r.Short || errors.Is(err, errShort)
	return err.Error()
}

// accelerate chooses the best accelerator, or says why there is none.
func accelerate(ctx context.Context, name guest.Arch, qemu string, kvm, emulation bool, as *syscall.Credential) (Accelerator, error) {
	if kvm {
		return KVM, nil
	}
	if !emulation {
		return None, errors.New("KVM does not run such guests here, and the plugin option emulation = false forbids emulating them")
	}
	// It fails for want of a part that is a package of its own, for example. A
	// host that is too busy to tell is taken to emulate: tasks there are slow,
	// not wrong.
	err := payloads[name].run(ctx, qemu, TCG, as)
	if err != nil && !errors.Is(err, errLate) && ctx.Err() == nil {
		return None, fmt.Errorf("emulation does not work: %w", err)
	}
	return TCG, nil
}

// probeKVM tells why KVM does not run kernels; nil: it does.
func probeKVM(ctx context.Context, host guest.Arch, qemu Arch, as *syscall.Credential) error {
	load, known := payloads[host]
	if !known {
		return errors.New("no payload for this machine's architecture")
	}
	if qemu.QEMU == "" {
		return errors.New(qemu.Reason)
	}
	if reason := deviceMissing(kvmDevice); reason != "" {
		return errors.New(reason)
	}
	err := load.run(ctx, qemu.QEMU, KVM, as)
	if errors.Is(err, errPermission) {
		return errors.New(whyDenied(kvmDevice, as))
	}
	return err
}
