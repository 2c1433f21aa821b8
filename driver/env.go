// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// optionalEnv are Nomad's own variables, by prefix, in the order in which they
// are left out where a guest's command line has no room for all. The job's own
// are never left out.
var optionalEnv = []string{
	"NOMAD_META_", "NOMAD_PARENT_", "NOMAD_CPU_", "NOMAD_MEMORY_", "NOMAD_JOB_", "NOMAD_GROUP_",
	"NOMAD_DC", "NOMAD_REGION", "NOMAD_NAMESPACE", "NOMAD_SHORT_", "NOMAD_ALLOC_", "NOMAD_TASK_",
	"NOMAD_SECRETS_", "NOMAD_HOST_", "NOMAD_ADDR_", "NOMAD_IP_", "NOMAD_",
}

// commandLine tells the guest what it is to know.
func (l *launch) commandLine() (string, error) {
	boot := guest.Boot{
		Name:       l.task.Name,
		Args:       l.args(),
		KernelArgs: l.wish.KernelArgs,
		Env:        l.env(),
		Features:   l.image.Features,
		Initrd:     l.image.Initrd != nil,
	}
	if l.nic != nil {
		boot.Net = &l.nic.Net
	}
	line, err := l.guest.CommandLine(boot)
	for _, prefix := range optionalEnv {
		if !errors.Is(err, guest.ErrNoRoom) {
			break
		}
		maps.DeleteFunc(boot.Env, func(key, _ string) bool { return strings.HasPrefix(key, prefix) })
		line, err = l.guest.CommandLine(boot)
	}
	return line, err
}

// args: the job's win over the image's.
func (l *launch) args() []string {
	if l.wish.Args != nil {
		return l.wish.Args
	}
	return slices.Clone(l.image.Args)
}

// env is the image's environment under the task's.
func (l *launch) env() map[string]string {
	env := maps.Clone(l.image.Env)
	if env == nil {
		env = make(map[string]string)
	}
	maps.Copy(env, l.task.Env)
	return env
}
