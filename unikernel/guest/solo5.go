// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package guest

import (
	"fmt"
	"strings"
)

// solo5Bytes is the room of Solo5's copy of the line (bindings/virtio), with
// the NUL byte that ends it. What does not fit is cut with a warning.
const solo5Bytes = 8192

// solo5 is a guest built for Solo5's virtio target. QEMU puts the kernel's path
// in front of the line; Solo5 drops all up to the first space, takes options of
// its own from what follows, and hands the rest to the application as one
// text, which MirageOS splits (see mirageQuote).
type solo5 struct{}

func newSolo5(arch Arch) (Guest, error) {
	if arch != X86_64 {
		return nil, fmt.Errorf("guest %q on %s: Solo5 has a virtio target for x86_64 only; build the unikernel for unikraft-qemu and use guest %q", Solo5, arch, Mirage)
	}
	return solo5{}, nil
}

func (s solo5) Family() Family { return Solo5 }

// AnswersPowerButton is false: Solo5's virtio target ignores it.
func (s solo5) AnswersPowerButton() bool { return false }

// TakesIPv6 is as MirageOS's.
func (s solo5) TakesIPv6(args []string) bool { return mirageTakesIPv6(args) }

// Devices: virtio over PCI, legacy or transitional, right on the root bus. The
// devices must be those of the image's manifest.
func (s solo5) Devices() Devices {
	return Devices{
		Machine:       "pc",
		Net:           "virtio-net-pci",
		Disk:          "virtio-blk-pci",
		PCIProperties: "disable-legacy=off",
		OneBus:        true,
		CPUKVM:        "host",
		CPUTCG:        "max",
		MaxMemoryMiB:  1024,
		MinMemoryMiB:  8,
	}
}

// Content: only the disks that the image's manifest names.
func (s solo5) Content(t Transport, _ []string) Content {
	if t != Block {
		return noContent(Solo5, t)
	}
	return Content{Yes, "the disks that its manifest names, each as a mount's target"}
}

// Tag fails: nothing would mount a share.
func (s solo5) Tag(int, Share) (string, error) { return "", errNoShares }

func (s solo5) Signs() Signs { return &console{signs: solo5Signs} }

func (s solo5) CommandLine(b Boot) (string, error) {
	if err := refuseEnv(b, "Solo5"); err != nil {
		return "", err
	}
	if strings.ContainsAny(b.Kernel, " ") {
		return "", fmt.Errorf("kernel path %q has a space, and QEMU puts it in front of the guest's command line: use a path without", b.Kernel)
	}
	var words []string
	for _, arg := range b.KernelArgs {
		if !isSolo5Option(arg) {
			return "", fmt.Errorf("kernel_args: Solo5 takes --solo5:quiet and --solo5:debug, not %q", arg)
		}
		words = append(words, arg)
	}
	args, err := mirageArgs(b)
	if err != nil {
		return "", err
	}
	for _, arg := range args {
		word := mirageQuote(arg)
		if isSolo5Option(word) { // meant for the application
			word = `"` + word + `"`
		}
		words = append(words, word)
	}
	line := strings.Join(words, " ")
	if len(line) > solo5Bytes-1 {
		return "", fmt.Errorf("args and kernel_args make a command line of %d bytes: the guest takes %d: %w", len(line), solo5Bytes-1, ErrNoRoom)
	}
	return line, nil
}

func isSolo5Option(word string) bool {
	return word == "--solo5:quiet" || word == "--solo5:debug"
}
