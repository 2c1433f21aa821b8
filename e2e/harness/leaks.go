// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Machine is what a run may leave on a machine, each thing as a line of text.
type Machine map[string]bool

// marks are the names by which things of a run are known, wherever they lie.
// Others may use the machine at the same time: what bears none of these is theirs.
var marks = []string{"nomad", "unikernel", "docker", "containerd"}

// LookAtMachine lists the processes and mounts that use the folders of a run,
// and network interfaces, namespaces, cgroups and files that bear its marks.
// Processes that are to stay are left out.
func LookAtMachine(stays func(pid int) bool, folders ...string) (Machine, error) {
	found := Machine{}
	err := errors.Join(
		found.addProcesses(stays, folders),
		found.addInterfaces(),
		found.addMounts(folders),
		found.addTree("cgroup", "/sys/fs/cgroup", 4),
		found.addTree("file", "/run", 2),
	)
	return found, err
}

// nobody is to stay.
func nobody(int) bool { return false }

// AwaitNothingNew waits until nothing is left that was not there before, and
// returns what is left when ctx ends. What the kernel and Nomad clean up by
// themselves tells nobody when it is done.
func AwaitNothingNew(ctx context.Context, before Machine, stays func(pid int) bool, folders ...string) error {
	return retry(ctx, 250*time.Millisecond, func() error {
		now, err := LookAtMachine(stays, folders...)
		if err != nil {
			return err
		}
		if left := now.without(before); len(left) > 0 {
			return fmt.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
		}
		return nil
	})
}

func (m Machine) without(before Machine) []string {
	var left []string
	for thing := range m {
		if !before[thing] {
			left = append(left, thing)
		}
	}
	sort.Strings(left)
	return left
}

// with is m and some folders, without what is in them.
func (m Machine) with(folders []string) Machine {
	all := maps.Clone(m)
	for _, folder := range folders {
		all.add("cgroup", folder)
		all.add("file", folder)
	}
	return all
}

func (m Machine) add(kind, name string) { m[kind+" "+name] = true }

// addProcesses finds processes by what ties them to the folders: their command
// line, working directory, environment or open files.
func (m Machine) addProcesses(stays func(pid int) bool, folders []string) error {
	pids, err := processes()
	for _, pid := range pids {
		uses := func(folder string) bool { return usesFolder(pid, folder) }
		if pid != os.Getpid() && !stays(pid) && slices.ContainsFunc(folders, uses) {
			m.add("process", strconv.Itoa(pid)+" "+commandLine(pid))
		}
	}
	return err
}

func (m Machine) addInterfaces() error {
	links, err := net.Interfaces()
	for _, link := range links {
		m.add("interface", link.Name)
	}
	return err
}

func (m Machine) addMounts(folders []string) error {
	points, err := mountPoints()
	for _, point := range points {
		under := func(folder string) bool { return strings.HasPrefix(point, folder+"/") }
		if strings.HasPrefix(point, "/run/") || slices.ContainsFunc(folders, under) {
			m.add("mount", point)
		}
	}
	return err
}

// mountPoints lists the mount points that this process sees, in their order.
func mountPoints() ([]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	var points []string
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			points = append(points, fields[4])
		}
	}
	return points, err
}

// addTree lists marked files, and all network namespaces, to a depth.
func (m Machine) addTree(kind, root string, depth int) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			return nil // it went while we looked, or is not ours
		}
		if err != nil {
			return err
		}
		below := strings.Count(strings.TrimPrefix(path, root), "/")
		if kind == "cgroup" && !entry.IsDir() {
			return nil
		}
		if below > 0 && (marked(entry.Name()) || filepath.Dir(path) == "/run/netns") {
			m.add(kind, path)
		}
		if entry.IsDir() && below >= depth {
			return fs.SkipDir
		}
		return nil
	})
}

func marked(name string) bool {
	return slices.ContainsFunc(marks, func(mark string) bool { return strings.Contains(name, mark) })
}

// processes lists the machine's processes.
func processes() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	var pids []int
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, err
}

// ProcessesOf lists the processes whose command line bears a mark, such as an
// allocation's ID.
func ProcessesOf(mark string) ([]int, error) {
	pids, err := processes()
	return slices.DeleteFunc(pids, func(pid int) bool { return !strings.Contains(commandLine(pid), mark) }), err
}

func commandLine(pid int) string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // gone: no command line
	return strings.TrimSpace(strings.ReplaceAll(string(data), "\x00", " "))
}

// usesFolder tells whether a process bears a path under a folder.
func usesFolder(pid int, folder string) bool {
	proc := fmt.Sprintf("/proc/%d/", pid)
	for name, tie := range map[string]string{"cmdline": folder + "/", "environ": siteEnv + folder + "/"} {
		if data, err := os.ReadFile(proc + name); err == nil && bytes.Contains(data, []byte(tie)) {
			return true
		}
	}
	return slices.ContainsFunc(append(openFiles(pid), proc+"cwd", proc+"root", proc+"exe"), func(link string) bool {
		target, err := os.Readlink(link)
		return err == nil && strings.HasPrefix(target, folder+"/")
	})
}

// openFiles lists the links in /proc to a process's open files.
func openFiles(pid int) []string {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)) // the pattern is well formed
	return links
}
