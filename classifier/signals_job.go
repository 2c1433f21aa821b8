// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package classifier

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"
)

// hintSignals reads what the author says of the application.
func (s *subject) hintSignals() {
	if h, ok := s.hints[HintComplexity]; ok {
		score, _ := s.policy.complexity(h.Value)
		s.signal("complexity", h.Value, h.Level+" meta", score)
	}
	if h, ok := s.hints[HintWorkload]; ok {
		kind, _ := s.policy.workload(h.Value)
		s.signal("workload", h.Value, h.Level+" meta", float64(kind.Score))
	}
}

// resourceSignals reads what the author asked for. What was left to Nomad's
// defaults says nothing about the application.
func (s *subject) resourceSignals() {
	if r := s.task.Resources; r != nil {
		if r.CPU != nil && deref(r.Cores) == 0 {
			s.scaled("cpu", float64(*r.CPU), "MHz", "resources.cpu")
		}
		if deref(r.Cores) > 0 {
			s.scaled("cores", float64(*r.Cores), "", "resources.cores")
		}
		if r.MemoryMB != nil {
			mib, source := *r.MemoryMB, "resources.memory"
			if most := deref(r.MemoryMaxMB); most > mib {
				mib, source = most, "resources.memory_max"
			}
			s.scaled("memory", float64(mib), "MiB", source)
		}
		var devices []string
		for _, d := range r.Devices {
			devices = append(devices, d.Name)
		}
		s.found("devices", "resources.device", devices...)
	}
	if n := deref(s.group.Count); n > 1 {
		s.scaled("count", float64(n), "instances", "group count")
	}
}

// jobSignals reads what else the job asks for of the system around the
// application.
func (s *subject) jobSignals() {
	if kind := deref(s.job.Type); kind != "" {
		s.tabled("type", kind, kind, "job type")
	}
	if l := s.task.Lifecycle; l != nil {
		s.found("lifecycle", "task lifecycle", l.Hook)
	}
	if n := len(s.task.Templates); n > 0 {
		s.scaled("templates", float64(n), "", "task template")
	}
	if n := len(s.task.Artifacts); n > 0 {
		s.scaled("artifacts", float64(n), "", "task artifact")
	}
	s.found("volumes", "volume_mount and config", s.volumes()...)
	s.found("checks", "service check", scriptChecks(s.group, s.task)...)
	s.found("connect", "group service", connected(s.group, s.task)...)
	s.networkSignal()
	s.configSignals()
	if s.task.User != "" {
		s.found("user", "task user", s.task.User)
	}
}

// container is the docker driver's config of a task, whichever way it is
// written.
func (s *subject) container() map[string]any {
	switch s.task.Driver {
	case driverDocker:
		return s.task.Config
	case driverHybrid:
		return s.unwrapped[sideContainer]
	}
	return nil
}

func (s *subject) volumes() []string {
	var found []string
	for _, m := range s.task.VolumeMounts {
		found = append(found, deref(m.Volume))
	}
	for _, v := range list(s.container()["volumes"]) {
		found = append(found, fmt.Sprint(v))
	}
	for _, key := range []string{"mount", "mounts"} {
		for _, v := range list(s.container()[key]) {
			if m, ok := v.(map[string]any); ok {
				found = append(found, fmt.Sprintf("%v at %v", m["source"], m["target"]))
			}
		}
	}
	return found
}

func (s *subject) networkSignal() {
	mode, source := "", "group network"
	for _, n := range s.group.Networks {
		mode = n.Mode
	}
	if m, ok := s.container()["network_mode"].(string); ok && m != "" {
		mode, source = m, "config.network_mode"
	}
	if mode != "" {
		kind, _, _ := strings.Cut(mode, "/") // cni/NAME
		s.tabled("network", kind, mode, source)
	}
}

// configSignals reads the docker driver's config.
func (s *subject) configSignals() {
	config := s.container()
	var added []string
	for _, c := range list(config["cap_add"]) {
		added = append(added, fmt.Sprint(c))
	}
	s.found("capabilities", "config.cap_add", added...)
	if !asksNothing(config["privileged"]) {
		s.found("privileged", "config.privileged", fmt.Sprint(config["privileged"]))
	}
	var words []string
	for _, key := range []string{"entrypoint", "command", "args"} {
		for _, v := range list(config[key]) {
			words = append(words, fmt.Sprint(v))
		}
	}
	if len(words) == 0 {
		return
	}
	kind := "arguments"
	switch {
	case slices.ContainsFunc(words, func(w string) bool { return slices.Contains(shellNames, path.Base(w)) }):
		kind = "shell"
	case !asksNothing(config["entrypoint"]) || !asksNothing(config["command"]):
		kind = "program"
	}
	s.tabled("command", kind, kind+": "+short(strings.Join(words, " ")), "config")
}

var shellNames = []string{"sh", "bash", "ash", "dash", "zsh", "busybox"}

// short cuts a text for a table.
func short(text string) string {
	const most = 60
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}

// scriptChecks names the checks that run a command inside a task, given in the
// task itself or in its group.
func scriptChecks(group *api.TaskGroup, task *api.Task) []string {
	var found []string
	for _, s := range task.Services {
		for i := range s.Checks {
			if isScript(&s.Checks[i]) {
				found = append(found, fmt.Sprintf("%q of service %q", s.Checks[i].Name, s.Name))
			}
		}
	}
	for _, s := range group.Services {
		for i := range s.Checks {
			c := &s.Checks[i]
			if isScript(c) && slices.Contains([]string{c.TaskName, s.TaskName}, task.Name) {
				found = append(found, fmt.Sprintf("%q of service %q", c.Name, s.Name))
			}
		}
	}
	return found
}

func isScript(c *api.ServiceCheck) bool { return strings.EqualFold(c.Type, "script") }

// connected names the services by which a task is part of Consul Connect.
func connected(group *api.TaskGroup, task *api.Task) []string {
	var found []string
	for _, list := range [][]*api.Service{group.Services, task.Services} {
		for _, s := range list {
			if s.Connect != nil {
				found = append(found, s.Name)
			}
		}
	}
	return found
}
