// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/machine/qmp"
)

// The states in which a migration has ended. Source: QEMU, qapi/migration.json,
// MigrationStatus.
const (
	migrationCompleted = "completed"
	migrationFailed    = "failed"
)

// bytesPerSecond is no limit: QEMU's own would hold up a guest that stands
// still meanwhile.
const bytesPerSecond = 16 << 30

// noteMigration keeps how a migration ended, for the one who waits for it.
func (m *Machine) noteMigration(e qmp.Event) {
	status, _ := e.Data["status"].(string)
	if status != migrationCompleted && status != migrationFailed {
		return
	}
	select {
	case m.migrated <- status:
	default: // the last one was not waited for
	}
}

// restore loads a guest's state in place of a boot. A state that QEMU cannot
// load ends QEMU.
func (m *Machine) restore(ctx context.Context, from *os.File) error {
	if err := m.migrate(ctx, "migrate-incoming", from); err != nil {
		return fmt.Errorf("loading the saved guest: %w", err)
	}
	return nil
}

// Save writes the guest's state, as it is now, to where the file stands. The
// guest stands still meanwhile, and goes on whether or not it works. When even
// that fails, the error wraps ErrStuck.
func (m *Machine) Save(ctx context.Context, to *os.File) error {
	if err := m.Pause(ctx); err != nil {
		return fmt.Errorf("saving the guest: %w", err)
	}
	err := m.migrate(ctx, "migrate", to)
	if err != nil {
		err = fmt.Errorf("saving the guest: %w", err)
		_ = m.execute(ctx, "migrate_cancel", nil) // no migration: nothing to cancel
	}
	if rerr := m.goOn(context.WithoutCancel(ctx)); rerr != nil {
		return errors.Join(err, fmt.Errorf("%w: %w", ErrStuck, rerr))
	}
	return err
}

const (
	finalizeTimeout = 10 * time.Second
	finalizePeriod  = 5 * time.Millisecond
)

// goOn lets a guest go on after its state was written. QEMU tells the end of a
// migration a moment before it is done with it, refuses meanwhile, and tells
// nobody of that moment: so it is asked again.
func (m *Machine) goOn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, finalizeTimeout)
	defer cancel()
	for {
		err := m.Resume(ctx)
		var refused *qmp.Error
		if err == nil || !errors.As(err, &refused) {
			return err
		}
		select {
		case <-time.After(finalizePeriod):
		case <-ctx.Done():
			return err
		}
	}
}

// ErrStuck means that a guest stands still and cannot be made to go on.
var ErrStuck = errors.New("the guest does not go on after it was saved")

// stateFile is the name by which QEMU knows the file of a saved guest.
const stateFile = "state"

// migrate moves a guest's state through a file.
func (m *Machine) migrate(ctx context.Context, command string, file *os.File) error {
	q := m.qmp()
	events := map[string]any{"capabilities": []map[string]any{{"capability": "events", "state": true}}}
	if err := q.Execute(ctx, "migrate-set-capabilities", events, nil); err != nil {
		return err
	}
	if err := q.Execute(ctx, "migrate-set-parameters", map[string]int64{"max-bandwidth": bytesPerSecond}, nil); err != nil {
		return err
	}
	if err := q.Give(ctx, stateFile, file); err != nil {
		return err
	}
	if err := q.Execute(ctx, command, map[string]string{"uri": "fd:" + stateFile}, nil); err != nil {
		return err
	}
	select {
	case status := <-m.migrated:
		if status == migrationFailed {
			return fmt.Errorf("QEMU reports that it failed: %s", m.migrationError(ctx))
		}
		return nil
	case <-q.Done():
		return fmt.Errorf("QEMU ended: %w", qmp.ErrClosed)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *Machine) migrationError(ctx context.Context) string {
	var reply struct {
		Why string `json:"error-desc"`
	}
	if m.execute(ctx, "query-migrate", &reply) != nil || reply.Why == "" {
		return "it does not say why"
	}
	return reply.Why
}
