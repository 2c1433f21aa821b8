// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/google/nftables"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/shoenig/test/must"
	"github.com/vishvananda/netlink"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// A plugin that is killed in the middle of a start, after whichever of its
// steps, leaves nothing behind once the next one has looked.
func TestStartTask_PluginDies(t *testing.T) {
	steps := []step{
		stepRecorded, stepCgroupMade, stepLimited, stepPlanned, stepNetworkMade, stepConnected,
		stepQEMUMade, stepJoined, stepBooted,
	}
	for _, at := range steps {
		t.Run(string(at), func(t *testing.T) {
			dir := runDir(t)
			h := newHarness(t, dir, "")
			netns, path := newNetns(t)
			task := h.newBridgeTask(path, stepsConfig(t, guest.ARM64, `ports = ["http"]`))
			dieAt(t, dir, task, at)

			s := &sweeper{d: h.driver, unowned: make(map[string]time.Time)}
			now := time.Now()
			s.sweep(t.Context(), now)
			s.sweep(t.Context(), now.Add(orphanAge))

			must.SliceEmpty(t, inNetns(t, netns))
			left, err := filepath.Glob(filepath.Join(dir, "*"))
			must.NoError(t, err)
			must.SliceEmpty(t, left)
			must.SliceEmpty(t, processesOf(t, dir))
			must.SliceEmpty(t, cgroupsOf(t, task))
		})
	}
}

// inNetns lists the taps and tables in netns.
func inNetns(t *testing.T, netns ns.NetNS) []string {
	t.Helper()
	found := tapsIn(t, netns)
	must.NoError(t, netns.Do(func(ns.NetNS) error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := conn.ListTables()
		for _, table := range tables {
			found = append(found, "table "+table.Name)
		}
		return err
	}))
	return found
}

// tapsIn lists the taps in netns.
func tapsIn(t *testing.T, netns ns.NetNS) []string {
	t.Helper()
	var found []string
	must.NoError(t, netns.Do(func(ns.NetNS) error {
		links, err := netlink.LinkList()
		for _, link := range links {
			if link.Type() == "tuntap" {
				found = append(found, "tap "+link.Attrs().Name)
			}
		}
		return err
	}))
	return found
}

// processesOf lists the processes that have files in dir open.
func processesOf(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	files, err := filepath.Glob("/proc/[0-9]*/fd/*")
	must.NoError(t, err)
	for _, file := range files {
		target, err := os.Readlink(file) // some have gone meanwhile
		if err == nil && strings.HasPrefix(target, dir+"/") {
			found = append(found, file+" -> "+target)
		}
	}
	return found
}

// cgroupsOf lists the cgroups that bear the task's name.
func cgroupsOf(t *testing.T, task *drivers.TaskConfig) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && strings.Contains(entry.Name(), task.AllocID) {
			found = append(found, path)
		}
		return nil // others make and remove theirs meanwhile
	})
	must.NoError(t, err)
	return found
}
