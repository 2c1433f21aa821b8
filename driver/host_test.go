// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/probe"
)

// No start of a task waits while the node is looked at again.
func TestHost_KnownWhileLooking(t *testing.T) {
	h := &host{known: true, result: probe.Result{KVM: true}}
	h.probing.Lock() // a look is under way
	defer h.probing.Unlock()

	got := make(chan probe.Result, 1)
	go func() {
		result, _ := h.get(t.Context(), nil)
		got <- result
	}()
	select {
	case result := <-got:
		must.True(t, result.KVM)
	case <-time.After(10 * time.Second):
		t.Fatal("it waited for the look's end")
	}
}

// A job that insists on KVM is refused by what is so now, not by what was.
func TestAccelerator_LooksAgain(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	h.quiet = true
	h.driver.host.known = true
	h.driver.host.result = probe.Result{KVMReason: "what was so once", Arches: map[guest.Arch]probe.Arch{
		guest.HostArch(): {QEMU: "/bin/false", Accelerator: probe.TCG},
	}}
	task, _ := h.newTask(strings.Replace(stepsConfig(t, guest.HostArch(), ""), `"tcg"`, `"kvm"`, 1))
	_, _, err := h.StartTask(task)
	if node, _ := h.driver.host.last(); node.KVM {
		must.NoError(t, h.DestroyTask(task.ID, true)) // this host's KVM works
		return
	}
	must.ErrorContains(t, err, `config.accelerator = "kvm"`)
	must.StrNotContains(t, err.Error(), "what was so once")
}

// The fingerprint looks again when it is asked to.
func TestFingerprint_Asked(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ch, err := h.driver.Fingerprint(ctx)
	must.NoError(t, err)
	must.NotNil(t, <-ch)
	h.driver.host.ask()
	h.driver.host.ask() // counts once
	must.NotNil(t, <-ch)
	must.NoError(t, ctx.Err())
}
