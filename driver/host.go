// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"context"
	"fmt"
	"sync"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/machine"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/probe"
)

// host is what the node can do, probed when first asked for and then kept.
// Tasks start by what is known, also while the node is looked at again: that
// starts QEMU several times. What was found while the node was short of
// something is told, but not kept: whoever asks next looks again.
type host struct {
	probing sync.Mutex // one look at a time
	mu      sync.Mutex
	known   bool
	result  probe.Result
	asked   chan struct{} // holds one wish for another look
}

func newHost() *host { return &host{asked: make(chan struct{}, 1)} }

// ask wishes for another look, which the fingerprint takes.
func (h *host) ask() {
	select {
	case h.asked <- struct{}{}:
	default: // one is wished for already
	}
}

func (h *host) get(ctx context.Context, s *settings) (probe.Result, error) {
	if result, known := h.last(); known {
		return result, nil
	}
	return h.probe(ctx, s, false)
}

func (h *host) last() (probe.Result, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.result, h.known
}

// look probes again.
func (h *host) look(ctx context.Context, s *settings) (probe.Result, error) {
	return h.probe(ctx, s, true)
}

// probe takes what another probe has found meanwhile, but not again.
func (h *host) probe(ctx context.Context, s *settings, again bool) (probe.Result, error) {
	h.probing.Lock()
	defer h.probing.Unlock()
	last, known := h.last()
	if known && !again {
		return last, nil
	}
	result, err := probe.Host(ctx, probe.Options{QEMU: s.qemuPaths(), User: s.User, Emulation: s.Emulation})
	switch {
	case err == nil && !result.Short:
		h.mu.Lock()
		defer h.mu.Unlock()
		h.result, h.known = result, true
		return result, nil
	case known:
		return last, nil // a node too busy to answer: what worked before still counts
	case err == nil:
		return result, nil
	}
	return result, fmt.Errorf("finding out what this node can do: %w", err)
}

// chooseAccelerator takes KVM where it works, unless the job says otherwise.
func (l *launch) chooseAccelerator(ctx context.Context) error {
	var err error
	if l.node, err = l.d.host.get(ctx, l.settings); err != nil {
		return passing{err}
	}
	if err = l.accelerate(ctx); err != nil && l.node.Short {
		return passing{err}
	}
	return err
}

func (l *launch) accelerate(ctx context.Context) error {
	arch := l.node.Arches[l.image.Arch]
	if arch.QEMU == "" {
		return fmt.Errorf("a guest for %s cannot run on this node: %s", l.image.Arch, arch.Reason)
	}
	l.qemu = arch.QEMU
	l.accel = machine.Accelerator(arch.Accelerator)
	switch l.wish.Accelerator {
	case "kvm":
		return l.needKVM(ctx)
	case "tcg":
		l.accel = machine.TCG
		if !l.settings.Emulation {
			return fmt.Errorf(`config.accelerator = "tcg": the plugin option emulation = false forbids it on this node`)
		}
	}
	if l.accel == "" {
		return fmt.Errorf("a guest for %s cannot run on this node: %s", l.image.Arch, arch.Reason)
	}
	return nil
}

// needKVM refuses a job that insists on KVM only by what is so now.
func (l *launch) needKVM(ctx context.Context) error {
	if l.accel == machine.KVM {
		return nil
	}
	if l.image.Arch == guest.HostArch() {
		var err error
		if l.node, err = l.d.host.look(ctx, l.settings); err != nil {
			return passing{err}
		}
		if l.node.KVM {
			l.accel = machine.KVM
			l.d.host.ask() // for Nomad to learn it
			return nil
		}
	}
	reason := l.node.KVMReason
	if l.image.Arch != guest.HostArch() {
		reason = fmt.Sprintf("the guest is for %s and this node is %s", l.image.Arch, guest.HostArch())
	}
	return fmt.Errorf(`config.accelerator = "kvm": %s; use "auto" to allow emulation`, reason)
}
