// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// findAgain holds the process of a machine, also of one whose starter died
// before it could record more than the directory. It returns errGone where
// there is none.
func findAgain(s State) (*process, error) {
	if s.PID != 0 {
		return find(s)
	}
	if s.Dir == "" {
		return nil, errGone
	}
	pid, err := whoLogsIn(s.Dir)
	if err != nil {
		return nil, err
	}
	return hold(pid, nil)
}

// whoLogsIn finds the QEMU whose standard output is the log in dir. Another
// process never has it: QEMU may start none.
func whoLogsIn(dir string) (int, error) {
	outputs, err := filepath.Glob("/proc/[0-9]*/fd/1")
	if err != nil {
		return 0, fmt.Errorf("looking for the QEMU of %s: %w", dir, err)
	}
	for _, output := range outputs {
		target, err := os.Readlink(output)
		if err != nil || target != filepath.Join(dir, logFile) {
			continue // it has gone, or is another's
		}
		return strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(output))))
	}
	return 0, errGone
}
