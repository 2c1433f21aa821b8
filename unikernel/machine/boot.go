// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"os"
	"strings"
	"sync"
)

// bootID names this boot of the host: processes of another are gone, and their
// numbers and start times come again. It is empty where the kernel does not tell.
var bootID = sync.OnceValue(func() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
})

// Outdated tells that the host was booted anew since the machine was started,
// so that nothing of it runs.
func (s State) Outdated() bool { return s.Boot != "" && s.Boot != bootID() }
