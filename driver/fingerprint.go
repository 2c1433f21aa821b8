// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/shared/structs"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/machine"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/probe"
)

// fingerprintPeriod is how often the node is looked at again: QEMU may be
// installed, or the right to open /dev/kvm given, while the agent runs.
const fingerprintPeriod = 5 * time.Minute

// soonest is when a node is looked at again that was short of something; each
// time that it still is, the wait doubles up to fingerprintPeriod.
const soonest = 2 * time.Second

// Fingerprint tells Nomad what works on this node, until ctx ends.
func (d *Driver) Fingerprint(ctx context.Context) (<-chan *drivers.Fingerprint, error) {
	ch := make(chan *drivers.Fingerprint)
	d.agent.connect()
	go func() {
		defer close(ch)
		defer d.agent.disconnect()
		told := attributeNames{}
		soon := soonest
		for again := false; ; again = true {
			fp := d.fingerprint(ctx, again)
			told.takeBack(fp)
			select {
			case ch <- fp:
			case <-ctx.Done():
				return
			}
			wait := fingerprintPeriod
			if _, known := d.host.last(); !known {
				wait, soon = soon, min(2*soon, fingerprintPeriod)
			}
			select {
			case <-time.After(wait):
			case <-d.host.asked:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ch, nil
}

// attributeNames are those that Nomad has been told.
type attributeNames map[string]bool

// takeBack tells Nomad of attributes that are no more: it keeps them on the
// node until they are empty.
func (n attributeNames) takeBack(fp *drivers.Fingerprint) {
	if fp.Attributes == nil {
		return // nothing is known of them
	}
	for name := range n {
		if fp.Attributes[name] == nil {
			fp.Attributes[name] = structs.NewStringAttribute("")
		}
	}
	for name := range fp.Attributes {
		n[name] = true
	}
}

// fingerprint tells what is known of the node; with again it looks anew first.
func (d *Driver) fingerprint(ctx context.Context, again bool) *drivers.Fingerprint {
	settings, _, err := d.configured()
	if err != nil {
		return &drivers.Fingerprint{Health: drivers.HealthStateUndetected, HealthDescription: err.Error()}
	}
	look := d.host.get
	if again {
		look = d.host.look
	}
	node, err := look(ctx, settings)
	if err != nil {
		return &drivers.Fingerprint{Health: drivers.HealthStateUnhealthy, HealthDescription: err.Error()}
	}
	fp := &drivers.Fingerprint{
		Attributes:        attributes(node, settings),
		Health:            drivers.HealthStateHealthy,
		HealthDescription: drivers.DriverHealthy,
	}
	if reasons := unusable(node); reasons != "" {
		fp.Health = drivers.HealthStateUndetected
		fp.HealthDescription = reasons
	}
	return fp
}

// unusable tells why no guest at all can run here; empty: some can.
func unusable(node probe.Result) string {
	var reasons []string
	for _, arch := range guest.Arches {
		if node.Arches[arch].Accelerator != probe.None {
			return ""
		}
		reasons = append(reasons, string(arch)+": "+node.Arches[arch].Reason)
	}
	return strings.Join(reasons, "; ")
}

func attributes(node probe.Result, s *settings) map[string]*structs.Attribute {
	const prefix = "driver." + Name
	attrs := map[string]*structs.Attribute{
		prefix + ".version":             structs.NewStringAttribute(Version),
		prefix + ".guests":              structs.NewStringAttribute(families()),
		prefix + ".kvm":                 structs.NewBoolAttribute(node.KVM),
		prefix + ".memory_overhead_mib": structs.NewIntAttribute(s.overheadMiB, ""),
	}
	if !node.KVM {
		attrs[prefix+".kvm.reason"] = structs.NewStringAttribute(node.KVMReason)
	}
	for _, arch := range guest.Arches {
		can := node.Arches[arch]
		if can.Accelerator != probe.None {
			attrs[prefix+".arch."+string(arch)] = structs.NewStringAttribute(string(can.Accelerator))
			for name, value := range usualHardware(arch, can) {
				if value != "" {
					attrs[prefix+"."+name+"."+string(arch)] = structs.NewStringAttribute(value)
				}
			}
		} else {
			attrs[prefix+".arch."+string(arch)+".reason"] = structs.NewStringAttribute(can.Reason)
		}
		if can.Version != "" {
			attrs[prefix+".qemu."+string(arch)+".version"] = structs.NewStringAttribute(can.Version)
		}
	}
	if len(node.GIC) > 0 {
		attrs[prefix+".gic"] = structs.NewStringAttribute(joinInts(node.GIC))
	}
	return attrs
}

// usualHardware is what a Unikraft guest gets whose job names no machine, and
// the machine types that it may name.
func usualHardware(arch guest.Arch, can probe.Arch) map[string]string {
	usual, err := guest.For(guest.Unikraft, "", arch)
	if err != nil {
		return nil
	}
	devices := usual.Devices()
	return map[string]string{
		"machine":  devices.Machine,
		"cpu":      cpuModel(devices, machine.Accelerator(can.Accelerator)),
		"virtio":   devices.Transport(),
		"machines": strings.Join(knownMachines(arch, can.Machines), ","),
	}
}

func families() string {
	names := make([]string, len(guest.Families))
	for i, family := range guest.Families {
		names[i] = string(family)
	}
	return strings.Join(names, ",")
}

func joinInts(numbers []int) string {
	texts := make([]string, len(numbers))
	for i, n := range numbers {
		texts[i] = strconv.Itoa(n)
	}
	return strings.Join(texts, ",")
}
