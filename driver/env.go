// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/machine"
)

// offered are the prefixes of Nomad's own variables, most wanted first. Stock
// Unikraft images take eight variables in all, so a guest gets those that fit.
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
		Offer:      offer(nomads),
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

// offer sorts Nomad's variables, most wanted first.
func offer(env map[string]string) []string {
	keys := slices.SortedFunc(maps.Keys(env), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
	})
	for i, key := range keys {
		keys[i] = key + "=" + env[key]
	}
	return keys
}

func rank(key string) int {
	return slices.IndexFunc(offered, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
}
