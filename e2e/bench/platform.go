// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"path/filepath"
	"runtime"
)

// platform is how the application's guest for this machine's architecture runs.
type platform struct {
	qemu    string // program
	machine string
	nic     string // device
	kernel  string
	initrd  string
	tasks   string // what Nomad's qemu driver calls the program
	drive   string // how it attaches its image, which the guest does not need
}

// All runs of the guest have the same memory and are told the same.
const (
	guestMiB    = 16
	guestPort   = "8080"
	commandLine = "netdev.ip=10.0.2.15/24:10.0.2.2 -- steps --port=" + guestPort
)

func hostPlatform(images string) platform {
	p := platform{
		qemu: "qemu-system-x86_64", machine: "pc", nic: "virtio-net-pci", tasks: "x86_64", drive: "ide",
		kernel: filepath.Join(images, "steps-x86_64"),
		initrd: filepath.Join(images, "steps.cpio"),
	}
	if runtime.GOARCH == "arm64" {
		p.qemu, p.machine, p.nic, p.tasks = "qemu-system-aarch64", "virt", "virtio-net-device", "aarch64"
		p.drive = "none" // virt has no IDE, and QEMU then does not start
		p.kernel = filepath.Join(images, "steps-arm64")
	}
	return p
}

// bootArgs are the QEMU arguments that the guest itself needs. The qemu driver
// passes them on; a shell's user would type them.
func (p platform) bootArgs(hostPort string) []string {
	return []string{
		"-cpu", "max",
		"-m", "16M", // the last -m counts: the qemu driver puts its own before
		"-kernel", p.kernel,
		"-initrd", p.initrd,
		"-append", commandLine,
		"-netdev", "user,id=net,hostfwd=tcp:127.0.0.1:" + hostPort + "-:" + guestPort,
		"-device", p.nic + ",netdev=net",
	}
}
