// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/shared/structs"
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

// A guest's QEMU runs as whom the node was looked at: the right to KVM may have
// been given to another group since the plugin was configured.
func TestStartTask_GroupOfKVM(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	settings, _, err := h.driver.configured()
	must.NoError(t, err)
	node, err := h.driver.host.get(t.Context(), settings)
	must.NoError(t, err)
	given := *node.Credential
	given.Groups = []uint32{4242}
	h.driver.host.result.Credential = &given

	task, _ := h.newTask(stepsConfig(t, guest.ARM64, ""))
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", startedQEMU(t, h, task)))
	must.NoError(t, err)
	must.StrContains(t, string(status), "Groups:\t4242 \n")
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

// What a look finds while the plugin is short of descriptors is no fact about
// the node: it is told with its reason, and looked at again.
func TestHost_ShortIsNotKept(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	settings, _, err := h.driver.configured()
	must.NoError(t, err)
	host := h.driver.host

	told := false
	for spare := range 12 { // another step fails at each
		withSpareFiles(t, spare, func() {
			result, err := host.get(t.Context(), settings)
			_, known := host.last()
			if known {
				return // enough for all
			}
			if err != nil {
				must.ErrorContains(t, err, "too many open files")
				return
			}
			must.True(t, result.Short)
			told = told || strings.Contains(unusable(result), "too many open files") &&
				strings.Contains(result.KVMReason, "looked at again")
		})
	}
	must.True(t, told)

	sure, err := host.look(t.Context(), settings)
	must.NoError(t, err)
	must.EqOp(t, "", unusable(sure))
	withSpareFiles(t, 4, func() {
		again, err := host.look(t.Context(), settings)
		must.NoError(t, err)
		must.Eq(t, sure, again) // what worked before still counts
	})
}

// Nomad hears why a node that is short takes no guest, and soon that it does.
func TestFingerprint_Short(t *testing.T) {
	h := newHarness(t, runDir(t), "")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var told <-chan *drivers.Fingerprint
	withSpareFiles(t, 4, func() {
		var err error
		told, err = h.driver.Fingerprint(ctx)
		must.NoError(t, err)
		fp := <-told
		must.NotEq(t, drivers.HealthStateHealthy, fp.Health)
		must.StrContains(t, fp.HealthDescription, "too many open files")
		must.MapContainsKeys(t, fp.Attributes, []string{"driver.unikernel.kvm.reason", "driver.unikernel.arch.arm64.reason"})
	})
	fp := <-told
	must.EqOp(t, drivers.HealthStateHealthy, fp.Health, must.Sprint(fp.HealthDescription))
	must.EqOp(t, "tcg", fp.Attributes["driver.unikernel.arch."+otherArch()].GoString())
	must.EqOp(t, "", fp.Attributes["driver.unikernel.arch.arm64.reason"].GoString())
}

// otherArch is an architecture that this host is not.
func otherArch() string {
	if guest.HostArch() == guest.ARM64 {
		return string(guest.X86_64)
	}
	return string(guest.ARM64)
}

// Nomad keeps an attribute until it is told that it is empty, and has one that
// was empty from the beginning.
func TestAttributeNames_TakeBack(t *testing.T) {
	told := attributeNames{}
	for _, step := range []struct{ now, want map[string]string }{
		{map[string]string{"kvm": "false", "kvm.reason": "none"}, map[string]string{"kvm": "false", "kvm.reason": "none"}},
		{map[string]string{"kvm": "true", "gic": "3"}, map[string]string{"kvm": "true", "gic": "3", "kvm.reason": ""}},
		{nil, nil}, // it could not be looked at
		{map[string]string{"kvm": "true"}, map[string]string{"kvm": "true", "gic": "", "kvm.reason": ""}},
	} {
		fp := &drivers.Fingerprint{}
		for name, value := range step.now {
			if fp.Attributes == nil {
				fp.Attributes = map[string]*structs.Attribute{}
			}
			fp.Attributes[name] = structs.NewStringAttribute(value)
		}
		told.takeBack(fp)
		var got map[string]string
		for name, value := range fp.Attributes {
			if got == nil {
				got = map[string]string{}
			}
			got[name] = value.GoString()
		}
		must.Eq(t, step.want, got)
	}
}
