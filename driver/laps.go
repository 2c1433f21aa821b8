// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"time"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/machine"
)

// laps are how long the steps of a start took, for the log. They are what
// `make bench` reads.
type laps struct {
	begun, last time.Time
	pairs       []any // name and milliseconds, as the logger takes them
}

func startLaps() laps {
	now := time.Now()
	return laps{begun: now, last: now}
}

// lap ends a step.
func (l *laps) lap(name string) {
	now := time.Now()
	l.pairs = append(l.pairs, name+"_ms", milliseconds(now.Sub(l.last)))
	l.last = now
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}

// logStart tells how long a start took, and later when the guest's console
// said its first word. Its goroutine ends with that word, or with the machine.
func (d *Driver) logStart(taskID string, l laps, m *machine.Machine) {
	log := d.log.With("task_id", taskID)
	log.Debug("guest started", append(l.pairs, "total_ms", milliseconds(time.Since(l.begun)))...)
	go func() {
		select {
		case <-m.Printed():
			log.Debug("guest printed", "total_ms", milliseconds(m.PrintedAt().Sub(l.begun)))
		case <-m.Done():
		}
	}()
}
