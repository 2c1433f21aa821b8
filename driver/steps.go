// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

// step is a point in a task's start. A plugin may die at any of them, and what
// was acquired until then must be found by the next one.
type step string

// The steps, in order. Those that end in "made" are between making a thing and
// recording it.
const (
	stepRecorded    step = "recorded"
	stepCgroupMade  step = "cgroup made"
	stepLimited     step = "limited"
	stepPlanned     step = "network planned"
	stepNetworkMade step = "network made"
	stepConnected   step = "connected"
	stepQEMUMade    step = "QEMU made"
	stepJoined      step = "joined"
	stepBooted      step = "booted"
	stepSaving      step = "saving" // of a task that asks for warm starts
	stepSaved       step = "saved"
)

// reached tells a test how far a start has come.
func (l *launch) reached(s step) {
	if l.d.onStep != nil {
		l.d.onStep(s)
	}
}
