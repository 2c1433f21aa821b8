// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package probe

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

//go:generate make -C payload

//go:embed payload/arm64.bin
var arm64Payload []byte

//go:embed payload/x86_64.bin
var x86_64Payload []byte

// payload is a tiny kernel of the instructions that unikernels start with, and
// how it is run and read. Its source is in the folder payload.
type payload struct {
	kernel  []byte
	machine []string // QEMU's machine and devices, as tasks of this architecture have them
	cpu     map[Accelerator]string
	passed  func(ending) bool
}

var payloads = map[guest.Arch]payload{
	guest.ARM64: {
		kernel:  arm64Payload,
		machine: []string{"-machine", "virt,gic-version=max", "-serial", "stdio"},
		cpu:     map[Accelerator]string{KVM: "host", TCG: "max"},
		// PSCI SYSTEM_OFF ends QEMU with 0 whatever was found.
		passed: func(e ending) bool { return strings.Contains(e.output, "probe: ok") },
	},
	guest.X86_64: {
		kernel:  x86_64Payload,
		machine: []string{"-machine", "pc", "-device", "isa-debug-exit,iobase=0x501,iosize=2"},
		cpu:     map[Accelerator]string{KVM: "host,+x2apic,-pmu", TCG: "qemu64"},
		// isa-debug-exit turns the payload's 0x31 into 2*0x31+1.
		passed: func(e ending) bool { return e.status == 99 },
	},
}

// run boots the payload and tells in words what went wrong, if anything did.
func (p payload) run(ctx context.Context, qemu string, by Accelerator, as *syscall.Credential) error {
	file, err := memoryFile("probe", p.kernel)
	if err != nil {
		return err
	}
	defer file.Close()
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-no-reboot",
		"-accel", string(by), "-cpu", p.cpu[by], "-m", "16",
		"-kernel", inheritedPath,
	}
	var ended ending
	for range crashes {
		ended = start(ctx, qemu, append(args, p.machine...), as, file)
		if p.passed(ended) {
			return nil
		}
		if !ended.crashed() {
			break
		}
	}
	return ended.orShort(ended.fault())
}

// crashes is how often QEMU has to crash before that is believed to be what
// the host does: QEMU 7.2 was seen to crash once in a while under KVM on an
// emulated board, and a node would be without KVM until the next look.
const crashes = 3

// crashed tells whether QEMU ended by a fault of its own. When it aborts it has
// found one of the host's.
func (e ending) crashed() bool {
	return e.signal == syscall.SIGSEGV || e.signal == syscall.SIGBUS
}

// errLate says that a host was too slow, or too busy, for an answer.
var errLate = errors.New("the payload did not end")

// fault says why a payload did not pass.
func (e ending) fault() error {
	said := complaint(e.output)
	switch {
	case strings.Contains(e.output, internalError):
		return errors.New("KVM cannot run the instructions that kernels start with (QEMU: KVM internal error): often a virtual machine whose own KVM is incomplete")
	case strings.Contains(e.output, "Permission denied"):
		return errPermission
	case e.signal == syscall.SIGABRT:
		return fmt.Errorf("QEMU aborted when it set up a processor: KVM here is incomplete (%s)", said)
	case e.late:
		return fmt.Errorf("%w within %s", errLate, patience)
	case e.err != nil:
		return fmt.Errorf("starting QEMU: %w", e.err)
	case e.signal != 0:
		return fmt.Errorf("QEMU was ended by signal %d (%s)", e.signal, said)
	case e.status == 1 && said != "":
		return fmt.Errorf("QEMU refused: %s", said)
	}
	return fmt.Errorf("the payload computed wrongly or was reset: %s", e)
}
