// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/cgroup"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/machine"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/network"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/output"
)

// taskState is all that is needed to find a task again, and to undo what was
// acquired for it. It goes into Nomad's task handle (msgpack, so exported
// fields only) and, from before the first step on, into a record of our own:
// a plugin that dies in the middle of a start has given Nomad no handle yet.
type taskState struct {
	TaskID   string
	AllocDir string
	Started  time.Time

	// The guest, whose family reads the console for signs.
	Family  guest.Family
	Release string
	Arch    guest.Arch

	// What was acquired, in this order. Zero values undo nothing.
	Cgroup  cgroup.State
	Network network.State
	Spool   string // path of the console's spool
	Machine machine.State
}

// undo gives back what was acquired, in reverse. The machine has ended. It may
// be called again.
func (s taskState) undo(ctx context.Context) error {
	var errs []error
	if s.Machine.Dir != "" {
		errs = append(errs, os.RemoveAll(s.Machine.Dir))
	}
	if s.Spool != "" {
		errs = append(errs, output.RemoveSpool(s.Spool))
	}
	errs = append(errs, s.Network.Undo(ctx))
	errs = append(errs, deleteCgroup(s.Cgroup))
	return errors.Join(errs...)
}
