// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"context"
	"os"
	"time"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/machine/qmp"
)

// observe records an event of QEMU as it comes. The status that remains after
// an end does not tell a crash from a halt everywhere, so events count.
func (m *Machine) observe(e qmp.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch e.Event {
	case "GUEST_PANICKED":
		m.seen.panicked = true
	case "SHUTDOWN":
		if fromGuest, _ := e.Data["guest"].(bool); !fromGuest {
			return // our own quit, or a signal to QEMU
		}
		m.seen.status = statusShutdown
	case "STOP":
		m.stopped = true // why, only query-status tells
	case "MIGRATION":
		m.noteMigration(e)
		return
	default:
		return
	}
	select {
	case m.poke <- struct{}{}:
	default: // supervise has not seen the last one yet; it will see both
	}
}

// supervise owns a machine from its start to its end.
func (m *Machine) supervise() {
	defer close(m.done)
	for !m.ended() {
		select {
		case <-m.process.running.Done():
		case <-m.poke:
			m.askStatus()
		case <-m.qmp().Done():
			m.reconnect()
		}
	}
	m.conclude()
}

// ended tells whether the guest, or QEMU with it, has ended.
func (m *Machine) ended() bool {
	select {
	case <-m.process.running.Done():
		return true
	default:
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen.status != ""
}

// askStatus asks QEMU why it stands still, where it does.
func (m *Machine) askStatus() {
	m.mu.Lock()
	ask := m.stopped
	m.stopped = false
	m.mu.Unlock()
	if !ask {
		return
	}
	var reply struct {
		Status string `json:"status"`
	}
	// QEMU may be silent for long (stopped, or a machine under load): its
	// end or the loss of the connection ends the wait.
	if m.execute(m.process.running, "query-status", &reply) != nil {
		return
	}
	switch reply.Status {
	case statusShutdown, statusPanicked, statusInternalError, statusIOError:
		m.mu.Lock()
		m.seen.status = reply.Status
		m.mu.Unlock()
	}
}

// reconnect makes a new connection to a monitor that hung up while QEMU runs,
// and asks for the status, as an event may have been lost. It tries until
// QEMU ends.
func (m *Machine) reconnect() {
	select {
	case <-m.process.running.Done():
		return
	case <-time.After(reconnectDelay):
	}
	ctx, cancel := context.WithTimeout(context.Background(), reconnectDelay)
	defer cancel()
	conn, err := dial(ctx, m.state.Dir, qmpSocket)
	if err != nil {
		return
	}
	m.talk(conn)
	m.mu.Lock()
	m.stopped = true
	m.mu.Unlock()
	m.askStatus()
}

// conclude ends QEMU, reads the rest of its console, and judges. It notes what
// it sees before that is gone with QEMU, and once all is seen.
func (m *Machine) conclude() {
	m.note()
	m.endQEMU(context.Background())
	_ = m.qmp().Close()
	<-m.console.done // ends with QEMU, whose last bytes are read before
	m.process.release()
	m.note()

	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen.qemuLog = readLog(m.state.Dir)
	m.result = m.seen.judge()
}

// endQEMU makes QEMU quit, or kills it where it does not.
func (m *Machine) endQEMU(ctx context.Context) {
	if m.quit(ctx) {
		return
	}
	_ = m.process.kill()
	<-m.process.running.Done()
}

func (m *Machine) quit(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, quitTimeout)
	defer cancel()
	// An error is no news: a QEMU that is gone has hung up, and one that does
	// not answer is not gone within the time.
	_ = m.execute(ctx, "quit", nil)
	return m.process.wait(ctx) == nil
}

// Stop ends the machine within ctx: by the power button where the guest answers
// it, then by telling QEMU to quit, then by a kill. It returns when QEMU is gone.
func (m *Machine) Stop(ctx context.Context) {
	if m.isDone() {
		return
	}
	if m.powerButton && m.pressButton(ctx) {
		return
	}
	m.noteStop(stoppedByQuit)
	if !m.quit(ctx) {
		m.noteStop(stoppedLate)
		_ = m.process.kill()
	}
	<-m.done
}

// pressButton asks the guest to end and waits as long as leaves QEMU time to
// quit within ctx. It tells whether the guest has ended.
func (m *Machine) pressButton(ctx context.Context) bool {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-quitTimeout))
		defer cancel()
	}
	if m.execute(ctx, "system_powerdown", nil) != nil {
		return false
	}
	select {
	case <-m.done:
		return true
	case <-ctx.Done():
		return false
	}
}

// Kill ends the machine at once.
func (m *Machine) Kill() {
	if !m.isDone() {
		m.noteStop(stoppedByKill)
		_ = m.process.kill()
	}
	<-m.done
}

// noteStop remembers, before it is done, that the end is our doing.
func (m *Machine) noteStop(s stopped) {
	m.mu.Lock()
	m.seen.stop = s
	m.mu.Unlock()
	m.note()
}

func (m *Machine) isDone() bool {
	select {
	case <-m.done:
		return true
	default:
		return false
	}
}

// Pause halts the guest's processors until Resume.
func (m *Machine) Pause(ctx context.Context) error { return m.execute(ctx, "stop", nil) }

// Resume lets a paused guest go on.
func (m *Machine) Resume(ctx context.Context) error { return m.execute(ctx, "cont", nil) }

// Remove removes what an ended machine left on disk.
func (m *Machine) Remove() error { return os.RemoveAll(m.state.Dir) }
