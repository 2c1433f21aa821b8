// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"net"
	"sync"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/machine/qmp"
)

// talkQMP uses a connection to a machine's monitor; ended is closed when its
// guest ends.
func talkQMP(conn net.Conn, ended chan struct{}) *qmp.Client {
	var once sync.Once
	return qmp.New(conn, func(e qmp.Event) {
		if e.Event == "SHUTDOWN" {
			once.Do(func() { close(ended) })
		}
	})
}
