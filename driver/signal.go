// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// signalTimeout bounds QEMU's answer to a signal.
const signalTimeout = 5 * time.Second

// SignalTask does what a signal means to a machine. A guest has no signals of
// its own.
func (d *Driver) SignalTask(taskID, signal string) error {
	t, err := d.tasks.get(taskID)
	if err != nil {
		return err
	}
	if !t.running() {
		return fmt.Errorf("task %s has ended", taskID)
	}
	ctx, cancel := context.WithTimeout(d.ctx, signalTimeout)
	defer cancel()
	switch strings.ToUpper(signal) {
	case "SIGTERM", "SIGINT", "SIGQUIT":
		t.machine.Stop(ctx)
		return nil
	case "SIGKILL":
		t.machine.Kill()
		return nil
	case "SIGSTOP", "SIGTSTP":
		return t.machine.Pause(ctx)
	case "SIGCONT":
		return t.machine.Resume(ctx)
	}
	return fmt.Errorf("signal %q means nothing to a unikernel: "+
		"SIGTERM, SIGINT and SIGQUIT stop it, SIGKILL ends it at once, SIGSTOP pauses it and SIGCONT lets it go on", signal)
}
