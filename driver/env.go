// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/helper"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/machine"
)

// offered are the prefixes of Nomad's own variables, most wanted first, after
// those of the task's own ports. Stock Unikraft images take eight variables in
// all, so a guest gets those that fit.
var offered = []string{
	"NOMAD_PORT_", "NOMAD_ADDR_", "NOMAD_HOST_PORT_", "NOMAD_ALLOC_ID", "NOMAD_ALLOC_INDEX", "NOMAD_TASK_NAME",
	"NOMAD_META_", "NOMAD_",
}

// commandLine tells the guest what it is to know.
func (l *launch) commandLine() (string, error) {
	own, nomads := l.env()
	if l.wish.Warm {
		nomads = lastingOnly(nomads)
	}
	boot := guest.Boot{
		Name:       l.task.Name,
		Args:       l.args(),
		KernelArgs: l.wish.KernelArgs,
		Env:        own,
		Offer:      offer(nomads, l.wish.Ports),
		Kernel:     machine.KernelPath,
		Features:   l.image.Features,
		Initrd:     l.image.Initrd != nil,
		Shares:     l.content.toldShares,
		Disks:      l.content.toldDisks,
	}
	if l.nic != nil {
		boot.Net, boot.DHCP, boot.Served = &l.nic.Net, l.wish.DHCP, len(l.ports) > 0
	}
	return l.guest.CommandLine(boot)
}

// args: the job's win over the image's.
func (l *launch) args() []string {
	if l.wish.Args != nil {
		return l.wish.Args
	}
	return slices.Clone(l.image.Args)
}

// env is the environment: the image's under the job's, and apart from them
// what Nomad adds by itself.
func (l *launch) env() (own, nomads map[string]string) {
	own, nomads = maps.Clone(l.image.Env), make(map[string]string)
	if own == nil {
		own = make(map[string]string)
	}
	for key, value := range l.task.Env {
		if strings.HasPrefix(key, "NOMAD_") {
			nomads[key] = value
		} else {
			own[key] = value
		}
	}
	return own, nomads
}

// offer sorts Nomad's variables, most wanted first: a guest has little to do
// with those ports of its group that are not its own.
func offer(env map[string]string, ports []string) []string {
	keys := slices.SortedFunc(maps.Keys(env), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a, ports), rank(b, ports)), cmp.Compare(a, b))
	})
	for i, key := range keys {
		keys[i] = key + "=" + env[key]
	}
	return keys
}

func rank(key string, ports []string) int {
	at := slices.IndexFunc(offered, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
	if isOf(key, ports) {
		return at - len(offered)
	}
	return at
}

// portVariables begin what Nomad tells of each port.
var portVariables = []string{"NOMAD_PORT_", "NOMAD_ADDR_", "NOMAD_HOST_PORT_"}

// isOf tells whether a variable is about the port of one of labels, in whose
// names Nomad puts underscores for what a variable's name cannot have.
func isOf(key string, labels []string) bool {
	return slices.ContainsFunc(labels, func(label string) bool {
		name := helper.CleanEnvVar(label, '_')
		return slices.ContainsFunc(portVariables, func(prefix string) bool { return key == prefix+name })
	})
}
