// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/hashicorp/nomad/nomad/structs"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/shoenig/test/must"
	"github.com/vishvananda/netlink"

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
