// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"golang.org/x/sys/unix"
)

// ProcessMemory is one process's proportional share of memory (PSS): pages that
// it shares with others count in part, so that the shares of all add up.
type ProcessMemory struct {
	PID  int
	Role string // what it is to the task: qemu, application, logmon, …
	KiB  int
}

// TaskMemory tells what runs for one task and for no other, and its memory.
// It finds processes by the task's log pipes, which each of Nomad's helpers
// holds open, QEMU by the file that it writes its console to, and a container's
// by asking Docker.
func (c *Cluster) TaskMemory(ctx context.Context, docker *Docker, allocID, task string) ([]ProcessMemory, error) {
	roles, err := containerProcesses(ctx, docker, task+"-"+allocID)
	if err != nil {
		return nil, err
	}
	pids, err := processes()
	if err != nil {
		return nil, err
	}
	pipes := filepath.Join(c.allocDir(allocID), "alloc", "logs", "."+task+".std")
	console := filepath.Join(c.allocDir(allocID), task, ".console.")
	for _, pid := range pids {
		if _, known := roles[pid]; !known && pid != c.Node.PID && !c.isPlugin(pid) && holdsOpen(pid, pipes, console) {
			roles[pid] = helperRole(pid)
		}
	}
	return measure(roles)
}

// NodeMemory is the memory of what serves all tasks of the node.
func (c *Cluster) NodeMemory(docker *Docker) ([]ProcessMemory, error) {
	roles := map[int]string{c.Node.PID: "nomad client"}
	pids, err := processes()
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		switch {
		case c.isPlugin(pid):
			roles[pid] = "unikernel driver"
		case docker.Daemon != nil && pid == docker.Daemon.PID:
			roles[pid] = "dockerd"
		case docker.Daemon != nil && parent(pid) == docker.Daemon.PID && program(pid) == "containerd":
			roles[pid] = "containerd"
		}
	}
	return measure(roles)
}

// SiteMemory is the memory of all processes of a site, agents and daemons
// among them: those that bear its folder, and what they started. dir is the
// folder of the site's files.
func (c *Cluster) SiteMemory(dir string) (kib int, err error) {
	pids, err := processes()
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		if !ofSite(pid, dir) {
			continue
		}
		own, err := pss(pid)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it ended
		}
		if err != nil {
			return 0, fmt.Errorf("memory of process %d: %w", pid, err)
		}
		kib += own
	}
	return kib, nil
}

// ofSite tells whether a process, or one that it comes from, is a site's daemon
// or has its environment.
func ofSite(pid int, dir string) bool {
	for ; pid > 1; pid = parent(pid) {
		environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil && bytes.Contains(environment, []byte(siteEnv+dir+"/")) {
			return true
		}
	}
	return false
}

// containerProcesses finds what runs for a container: its own processes, its
// shim and the proxies of its ports. A task that is none has none.
func containerProcesses(ctx context.Context, docker *Docker, name string) (map[int]string, error) {
	roles := map[int]string{}
	found, err := docker.Client.ContainerList(ctx, container.ListOptions{
		Filters: filters.NewArgs(filters.Arg("name", "^/"+name+"$")),
	})
	if err != nil || len(found) == 0 {
		return roles, err
	}
	info, err := docker.Client.ContainerInspect(ctx, found[0].ID)
	if err != nil {
		return nil, err
	}
	top, err := docker.Client.ContainerTop(ctx, info.ID, []string{"-o", "pid"})
	if err != nil {
		return nil, err
	}
	for _, row := range top.Processes {
		if pid, err := strconv.Atoi(strings.TrimSpace(row[0])); err == nil {
			roles[pid] = "application"
		}
	}
	roles[parent(info.State.Pid)] = "shim"
	for _, network := range info.NetworkSettings.Networks {
		addProxies(roles, network.IPAddress)
	}
	return roles, nil
}

// addProxies finds docker-proxy processes by the container's address.
func addProxies(roles map[int]string, address string) {
	pids, err := processes()
	if err != nil || address == "" {
		return
	}
	for _, pid := range pids {
		if program(pid) == "docker-proxy" && strings.Contains(commandLine(pid)+" ", "-container-ip "+address+" ") {
			roles[pid] = "port proxy"
		}
	}
}

func measure(roles map[int]string) ([]ProcessMemory, error) {
	var all []ProcessMemory
	for pid, role := range roles {
		kib, err := pss(pid)
		if err != nil {
			return nil, fmt.Errorf("memory of %s, process %d: %w", role, pid, err)
		}
		all = append(all, ProcessMemory{PID: pid, Role: role, KiB: kib})
	}
	slices.SortFunc(all, func(a, b ProcessMemory) int { return b.KiB - a.KiB })
	return all, nil
}

// pss reads a process's proportional set size in KiB.
func pss(pid int) (int, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(data) {
		if fields := bytes.Fields(line); len(fields) > 1 && string(fields[0]) == "Pss:" {
			return strconv.Atoi(string(fields[1]))
		}
	}
	return 0, fmt.Errorf("smaps_rollup has no Pss")
}

// holdsOpen tells whether a process has a file open whose path begins so.
func holdsOpen(pid int, prefixes ...string) bool {
	return slices.ContainsFunc(openFiles(pid), func(link string) bool {
		target, err := os.Readlink(link)
		return err == nil && slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(target, prefix) })
	})
}

// helperRole names a process that serves a task: Nomad's helpers by their
// subcommand, others by their program.
func helperRole(pid int) string {
	if fields := strings.Fields(commandLine(pid)); len(fields) > 1 && strings.HasPrefix(program(pid), "nomad") {
		return fields[1]
	}
	name := program(pid)
	if strings.HasPrefix(name, "qemu-system-") {
		return "qemu"
	}
	return name
}

// isPlugin tells whether a process is the node's driver plugin, also where a
// client that is gone started it.
func (c *Cluster) isPlugin(pid int) bool {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && exe == filepath.Join(c.Dir, "plugins", PluginName)
}

// program is the base name of what a process runs.
func program(pid int) string {
	first, _, _ := strings.Cut(commandLine(pid), " ")
	return filepath.Base(first)
}

// parent is the process that started another, 0 where it is gone.
func parent(pid int) int {
	fields := statFields(pid)
	if len(fields) < 2 {
		return 0
	}
	ppid, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return ppid
}

// MemoryOf sums the memory of processes in KiB.
func MemoryOf(all []ProcessMemory) int {
	sum := 0
	for _, p := range all {
		sum += p.KiB
	}
	return sum
}
