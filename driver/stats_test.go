// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"strconv"
	"testing"
	"time"

	"github.com/shoenig/test/must"
)

// A node full of tasks is measured no more often than one with a few.
func TestStatsPace(t *testing.T) {
	for tasks, want := range map[int]time.Duration{0: time.Second, 1: time.Second, 49: time.Second, 50: 2 * time.Second, 200: 5 * time.Second} {
		d := &Driver{tasks: newStore()}
		for i := range tasks {
			d.tasks.tasks[strconv.Itoa(i)] = nil
		}
		must.Eq(t, want, d.statsPace(time.Second), must.Sprint(tasks, " tasks"))
	}
}
