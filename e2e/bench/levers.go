// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

// lever is another way of starting QEMU.
type lever struct {
	name string
	args map[string]string // options whose value is another
	more []string          // further arguments
	env  []string
	with []string // a program that starts QEMU, with its arguments

	hugePages bool // the kernel may give QEMU pages of 2 MiB
	defaults  bool // without -nodefaults
}

// levers are tried beside the way in which the driver starts QEMU. They are
// for x86_64's pc, where there is most to try.
var levers = []lever{
	{name: "as the driver does"},
	{name: "huge pages allowed", hugePages: true},
	{name: "QEMU's default devices", defaults: true},
	{name: "boot ROM of the network card", args: map[string]string{"-device": "virtio-net-pci,netdev=net"}},
	{name: "no usb, vmport, hpet, smbus, i8042", args: map[string]string{"-machine": "pc,usb=off,vmport=off,hpet=off,smbus=off,i8042=off"}},
	{name: "no ACPI", args: map[string]string{"-machine": "pc,acpi=off"}},
	{name: "q35", args: map[string]string{"-machine": "q35"}},
	{name: "microvm", args: map[string]string{"-machine": "microvm", "-device": "virtio-net-device,netdev=net"}},
	{name: "qboot", more: []string{"-bios", "qboot.rom"}},
	{name: "SeaBIOS for microvm", more: []string{"-bios", "bios-microvm.bin"}},
	{name: "no ACPI, huge pages allowed", args: map[string]string{"-machine": "pc,acpi=off"}, hugePages: true},
	{name: "tb-size=8", args: map[string]string{"-accel": "tcg,tb-size=8"}},
	{name: "tb-size by default", args: map[string]string{"-accel": "tcg"}},
	{name: "thread=single", args: map[string]string{"-accel": "tcg,tb-size=32,thread=single"}},
	{name: "cpu qemu64", args: map[string]string{"-cpu": "qemu64,+pdpe1gb,+rdrand"}},
	{name: "one malloc arena", env: []string{"MALLOC_ARENA_MAX=1"}},
	{name: "malloc trims at 64 KiB", env: []string{"MALLOC_TRIM_THRESHOLD_=65536", "MALLOC_TOP_PAD_=0"}},
	{name: "all symbols bound at start", env: []string{"LD_BIND_NOW=1"}},
	{name: "balloon with free page reporting", more: []string{"-device", "virtio-balloon-pci,free-page-reporting=on"}},
	{name: "not mergeable by KSM", args: map[string]string{"-machine": "pc,mem-merge=off"}},
	{name: "with the sandbox", more: []string{"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"}},
	{name: "pinned to core 1", with: []string{"taskset", "-c", "1"}},
}

// tryLevers starts a bare QEMU in each way, in turns, and prints what that
// changes.
func tryLevers(ctx context.Context, rounds int) error {
	layout, err := harness.FindLayout()
	if err != nil {
		return err
	}
	answer, err := rightAnswer(layout.Path("examples", "steps", "data", "steps.csv"))
	if err != nil {
		return err
	}
	p := hostPlatform(layout.Build("steps"))
	r := &report{}
	pace := hostPace
	pace.round = 10 * time.Second
	failures := map[string]error{}
	for round := range rounds + 1 { // the first one fills caches
		for _, l := range levers {
			if failures[l.name] != nil || ctx.Err() != nil {
				continue
			}
			s, err := runBare(ctx, l.name, bareRun{argv: l.argv(p), env: l.env, answer: answer, pace: pace, smallPages: !l.hugePages})
			if err != nil && ctx.Err() == nil {
				failures[l.name] = err
			}
			if err != nil {
				continue
			}
			if round > 0 {
				r.Samples = append(r.Samples, s)
			}
		}
	}
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	defer out.Flush()
	for _, l := range levers {
		if err := failures[l.name]; err != nil {
			_, _ = fmt.Fprintf(out, "%s\t%v\n", l.name, err)
			continue
		}
		r.contenders = []string{l.name}
		_, _ = fmt.Fprintf(out, "%s\tmonitor %s ms\tfirst byte %s ms\tanswer %s ms\tCPU until then %s ms\tmemory %s MiB\t%s\n", l.name,
			r.row(start, "-")[0], r.row(firstByte, "-")[0], r.row(direct, "-")[0], r.row(cpuToAnswer, "-")[0], r.row(memory, "-")[0], roles(r.memoryByRole(l.name)))
	}
	return nil
}

func (l lever) argv(p platform) []string {
	argv := append(slices.Clone(l.with), p.qemu, "-display", "none", "-no-user-config", "-machine", p.machine, "-accel", "tcg,tb-size=32")
	if !l.defaults {
		argv = append(argv, "-nodefaults")
	}
	argv = append(argv, p.bootArgs("PORT")...)
	argv[len(argv)-1] += ",romfile="
	for option, value := range l.args {
		argv[slices.Index(argv, option)+1] = value
	}
	return append(argv, l.more...)
}
