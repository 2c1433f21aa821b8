// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"testing"
	"time"

	"github.com/shoenig/test/must"

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
