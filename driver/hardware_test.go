// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"testing"

	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/image"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/machine"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/probe"
)

func TestChooseGIC(t *testing.T) {
	both := []int{2, 3}
	for name, c := range map[string]struct {
		arch   guest.Arch
		accel  machine.Accelerator
		wanted string
		drives []int
		offers []int
		want   string
		fails  string
	}{
		"newest of the host":              {accel: machine.KVM, offers: both, want: "3"},
		"host's only one":                 {accel: machine.KVM, offers: []int{2}, want: "2"},
		"newest that the image drives":    {accel: machine.KVM, drives: []int{2}, offers: both, want: "2"},
		"image drives both, host one":     {accel: machine.KVM, drives: both, offers: []int{2}, want: "2"},
		"image and host have none shared": {accel: machine.KVM, drives: []int{2}, offers: []int{3}, fails: "the image's kernel drives GICv2 only, and KVM on this node offers its guests GICv3 only"},
		"the job's":                       {accel: machine.KVM, wanted: "2", drives: []int{3}, offers: both, want: "2"},
		"the job's, which the host lacks": {accel: machine.KVM, wanted: "3", offers: []int{2}, fails: `config.machine.gic = "3", and KVM on this node offers its guests GICv2 only`},
		"a word of QEMU's":                {accel: machine.KVM, wanted: "host", offers: []int{2}, want: "host"},
		"KVM did not tell":                {accel: machine.KVM, drives: []int{2}, want: ""},
		"emulated":                        {accel: machine.TCG, offers: []int{3}, want: "2"},
		"emulated, for GICv3 only":        {accel: machine.TCG, drives: []int{3}, offers: []int{2}, want: "3"},
		"emulated, the job's":             {accel: machine.TCG, wanted: "3", want: "3"},
		"x86_64":                          {arch: guest.X86_64, accel: machine.TCG, want: ""},
		"x86_64 has none":                 {arch: guest.X86_64, accel: machine.TCG, wanted: "2", fails: "only arm64 machines have a GIC"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.arch == "" {
				c.arch = guest.ARM64
			}
			l := &launch{
				node:  probe.Result{GIC: c.offers},
				accel: c.accel,
				image: &image.Image{Arch: c.arch, GICs: c.drives},
				wish:  &wish{TaskConfig: TaskConfig{Machine: MachineConfig{GIC: c.wanted}}},
			}
			gic, err := l.chooseGIC()
			if c.fails != "" {
				must.ErrorContains(t, err, c.fails)
				return
			}
			must.NoError(t, err)
			must.Eq(t, c.want, gic)
		})
	}
}

func TestHardware_ToldInWords(t *testing.T) {
	must.Eq(t, "virt, cpu host, GICv3, virtio over MMIO", hardware{"virt", "host", "3", "mmio"}.String())
	must.Eq(t, "pc, cpu max, virtio over PCI", hardware{"pc", "max", "", "pci"}.String())
}
