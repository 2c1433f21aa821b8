// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/hashicorp/nomad/nomad/structs"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/shoenig/test/must"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// newNetns is an allocation's network namespace, as Nomad would make it, with
// a path that other processes can use. It ends with the test.
func newNetns(t *testing.T) (netns ns.NetNS, path string) {
	t.Helper()
	netns, err := ns.TempNetNS()
	must.NoError(t, err, must.Sprint("bridge mode needs root"))
	t.Cleanup(func() { _ = netns.Close() })
	must.NoError(t, netns.Do(func(ns.NetNS) error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	}))
	return netns, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), netns.Fd())
}

// newBridgeTask is a task in the namespace at path whose guest listens on 8080.
func (h *harness) newBridgeTask(path, config string) *drivers.TaskConfig {
	h.t.Helper()
	task, _ := h.newTask(config)
	task.NetworkIsolation = &drivers.NetworkIsolationSpec{Mode: drivers.NetIsolationModeGroup, Path: path}
	task.Resources.Ports = &structs.AllocatedPorts{{Label: "http", Value: 25000, To: 8080, HostIP: "127.0.0.1"}}
	return task
}

// answersIn waits until the guest answers a connection within netns.
func answersIn(t *testing.T, netns ns.NetNS) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := netns.Do(func(ns.NetNS) error {
			conn, err := net.DialTimeout("tcp", "127.0.0.1:8080", time.Second)
			if err != nil {
				return err
			}
			return conn.Close()
		})
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the guest does not answer: %v", err)
		}
		time.Sleep(20 * time.Millisecond) // no one tells when it listens
	}
}

// A guest that is told no address asks by DHCP, and keeps the address when the
// plugin that answered has gone; its network ends with it.
func TestTask_BridgeDHCP(t *testing.T) {
	dir := runDir(t)
	h := newHarness(t, dir, "")
	netns, path := newNetns(t)
	task := h.newBridgeTask(path, stepsConfig(t, guest.ARM64, `ports = ["http"]
		dhcp = true`))
	handle := startElsewhere(t, dir, task)

	must.NoError(t, h.RecoverTask(handle))
	answersIn(t, netns)
	must.NoError(t, h.StopTask(task.ID, 10*time.Second, "SIGTERM"))
	must.Eq(t, 15, h.wait(task).Signal)
	must.NoError(t, h.DestroyTask(task.ID, false))
	must.SliceEmpty(t, inNetns(t, netns))
}

// The loss of the namespace's name leaves nothing of a task behind: QEMU holds
// the namespace until it ends, and with it all that was in it goes.
func TestTask_NetnsLost(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	netns, held := newNetns(t)
	path := filepath.Join(t.TempDir(), "netns")
	must.NoError(t, os.WriteFile(path, nil, 0o600))
	must.NoError(t, unix.Mount(held, path, "", unix.MS_BIND, ""))
	task := h.newBridgeTask(path, stepsConfig(t, guest.ARM64, `ports = ["http"]`))
	handle := h.start(task)
	var state taskState
	must.NoError(t, handle.GetDriverState(&state))
	answersIn(t, netns)

	must.NoError(t, unix.Unmount(path, 0))
	answersIn(t, netns)
	must.NoError(t, h.DestroyTask(task.ID, true))
	must.ErrorIs(t, unix.Kill(state.Machine.PID, 0), unix.ESRCH)
	must.SliceEmpty(t, tapsIn(t, netns))
}

// A guest without a network card has none, whatever its group's mode.
func TestTask_NoNetworkCard(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	netns, path := newNetns(t)
	task := h.newBridgeTask(path, stepsConfig(t, guest.ARM64, `network_mode = "none"`))
	h.start(task)
	awaitLog(t, task, "no network device")
	must.SliceEmpty(t, inNetns(t, netns))
}

// What a group's tasks share they cannot have twice, and what the group does
// not have no task can.
func TestStartTask_RefusesPorts(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	h.quiet = true
	netns, path := newNetns(t)
	config := stepsConfig(t, guest.ARM64, `ports = ["http"]`)
	h.start(h.newBridgeTask(path, config))

	second := h.newBridgeTask(path, stepsConfig(t, guest.ARM64, `ports = ["web"]`))
	second.Resources.Ports = &structs.AllocatedPorts{{Label: "web", Value: 25001, To: 8080, HostIP: "127.0.0.1"}}
	alone, _ := h.newTask(config)
	alone.Resources.Ports = nil
	gone := h.newBridgeTask(filepath.Join(t.TempDir(), "gone"), config)
	cases := []struct {
		name string
		task *drivers.TaskConfig
		say  []string
	}{
		{"the port of another task", second, []string{`"web"`, `"http"`, `"to = 8080"`}},
		{"no network block", alone, []string{"config.ports", `"http"`, "no network block"}},
		{"no namespace", gone, []string{"no network namespace", gone.NetworkIsolation.Path}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			_, _, err := h.StartTask(tc.task)
			for _, say := range tc.say {
				must.ErrorContains(t, err, say)
			}
			must.SliceLen(t, 2, inNetns(t, netns)) // of the first task
		})
	}
}
