// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"sync"
	"testing"

	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/machine/qmp"
)

// dialQMP connects to a machine's monitor; ended is closed when its guest ends.
func dialQMP(t *testing.T, s State, ended chan struct{}) *qmp.Client {
	t.Helper()
	conn, err := dial(t.Context(), s.Dir, qmpSocket)
	must.NoError(t, err)
	var once sync.Once
	return qmp.New(conn, func(e qmp.Event) {
		if e.Event == "SHUTDOWN" {
			once.Do(func() { close(ended) })
		}
	})
}
