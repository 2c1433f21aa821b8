// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package classifier

import (
	"fmt"

	"github.com/hashicorp/nomad/api"
)

// taskBlockers says what in a task, beside its config, a unikernel cannot do.
// Each reason names the field.
func taskBlockers(group *api.TaskGroup, task *api.Task) []string {
	var why []string
	add := func(is bool, format string, args ...any) {
		if is {
			why = append(why, fmt.Sprintf(format, args...))
		}
	}
	add(task.User != "", "user = %q: a unikernel has no users", task.User)
	add(task.Lifecycle != nil, "lifecycle: a hook runs beside other tasks, which nomad-hybrid leaves to containers")
	add(task.CSIPluginConfig != nil, "csi_plugin: a plugin mounts folders of the host")
	add(len(task.Actions) > 0, "action: it runs a command inside the task, and a unikernel is one process")
	add(task.Kind != "", "kind = %q: Nomad made this task for Consul Connect", task.Kind)
	if task.Resources != nil {
		for _, d := range task.Resources.Devices {
			add(true, "resources.device %q: a guest has no devices of the host", d.Name)
		}
	}
	for _, t := range task.Templates {
		mode := deref(t.ChangeMode)
		add(mode == "signal" || mode == "script", "template %q: change_mode = %q needs a process to signal or to run", deref(t.DestPath), mode)
	}
	for _, check := range scriptChecks(group, task) {
		add(true, "check %s: a script check runs a command inside the task; use http or tcp", check)
	}
	return why
}
