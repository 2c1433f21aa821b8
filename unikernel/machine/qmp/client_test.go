// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/shoenig/test/must"
)

const greeting = `{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}, "capabilities": ["oob"]}}`

// serve plays a QEMU that misbehaves as real ones cannot be made to: it
// greets, accepts the handshake, then answers each command by answer.
func serve(t *testing.T, answer func(id uint64, name string) string) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		fmt.Fprintln(theirs, greeting)
		lines := bufio.NewScanner(theirs)
		for lines.Scan() {
			var c command
			if json.Unmarshal(lines.Bytes(), &c) != nil {
				return
			}
			reply := fmt.Sprintf(`{"return": {}, "id": %d}`, c.ID)
			if c.Execute != "qmp_capabilities" {
				reply = answer(c.ID, c.Execute)
			}
			if _, err := io.WriteString(theirs, reply+"\n"); err != nil {
				return
			}
		}
	}()
	return ours
}

func ignore(Event) {}

func open(t *testing.T, conn net.Conn, onEvent func(Event)) *Client {
	t.Helper()
	c := New(conn, onEvent)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestClient_Execute(t *testing.T) {
	c := open(t, serve(t, func(id uint64, name string) string {
		return fmt.Sprintf(`{"return": {"status": %q}, "id": %d}`, name, id)
	}), ignore)
	for _, name := range []string{"first", "second"} {
		var result struct{ Status string }
		must.NoError(t, c.Execute(t.Context(), name, nil, &result))
		must.Eq(t, name, result.Status)
	}
}

func TestClient_QEMURefuses(t *testing.T) {
	c := open(t, serve(t, func(id uint64, _ string) string {
		return fmt.Sprintf(`{"error": {"class": "GenericError", "desc": "no such thing"}, "id": %d}`, id)
	}), ignore)
	err := c.Execute(t.Context(), "frobnicate", nil, nil)
	var refusal *Error
	must.True(t, errors.As(err, &refusal))
	must.EqError(t, err, "QMP frobnicate: no such thing")
}

func TestClient_EventsAndLongLines(t *testing.T) {
	events := make(chan string, 8)
	long := strings.Repeat("x", 100<<10)
	c := open(t, serve(t, func(id uint64, _ string) string {
		return fmt.Sprintf(`{"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}
{"event": "LONG", "data": {"x": %q}, "timestamp": {"seconds": 1, "microseconds": 2}}
{"return": {}, "id": 999}
{"return": {"long": %q}, "id": %d}`, long, long, id)
	}), func(e Event) { events <- e.Event })
	var result struct{ Long string }
	must.NoError(t, c.Execute(t.Context(), "x", nil, &result))
	must.Eq(t, long, result.Long)
	must.Eq(t, "STOP", <-events)
	must.Eq(t, "LONG", <-events)
}

func TestClient_SilentQEMU(t *testing.T) {
	ours, theirs := net.Pipe()
	t.Cleanup(func() { theirs.Close() })
	c := open(t, ours, ignore)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	must.ErrorIs(t, c.Execute(ctx, "cont", nil, nil), context.DeadlineExceeded)
}

func TestClient_Nonsense(t *testing.T) {
	cases := map[string]string{
		"no JSON":          "qemu: what?",
		"reply to nothing": `{"return": {}}`,
		"endless line":     strings.Repeat("x", maxMessage+1),
		"wrong type":       `{"event": 7}`,
	}
	for name, line := range cases {
		t.Run(name, func(t *testing.T) {
			c := open(t, serve(t, func(uint64, string) string { return line }), ignore)
			must.ErrorIs(t, c.Execute(t.Context(), "x", nil, nil), ErrClosed)
			<-c.Done()
			must.ErrorIs(t, c.Execute(t.Context(), "x", nil, nil), ErrClosed)
		})
	}
}

// A QEMU that found the connection made before its monitor may greet twice: it
// finds one handshake superfluous, and a command in between too early.
func TestClient_GreetedTwice(t *testing.T) {
	ours, theirs := net.Pipe()
	said := make(chan string, 10)
	go func() {
		lines := bufio.NewScanner(theirs)
		for lines.Scan() {
			said <- lines.Text()
		}
	}()
	say := func(line string) {
		_, err := io.WriteString(theirs, line+"\n")
		must.NoError(t, err)
	}
	c := open(t, ours, ignore)
	say(greeting)
	must.StrContains(t, <-said, "qmp_capabilities")
	say(`{"return": {}, "id": 0}`)
	result := make(chan error, 1)
	go func() { result <- c.Execute(t.Context(), "cont", nil, nil) }()
	must.StrContains(t, <-said, "cont")
	say(greeting)
	must.StrContains(t, <-said, "qmp_capabilities")
	say(`{"id": 1, "error": {"class": "CommandNotFound", "desc": "Expecting capabilities negotiation with 'qmp_capabilities'"}}`)
	say(`{"id": 0, "error": {"class": "CommandNotFound", "desc": "Capabilities negotiation is already complete, command ignored"}}`)
	must.StrContains(t, <-said, "cont")
	say(`{"return": {}, "id": 2}`)
	must.NoError(t, <-result)
}

func TestClient_HangsUp(t *testing.T) {
	ours, theirs := net.Pipe()
	c := open(t, ours, ignore)
	must.NoError(t, theirs.Close())
	must.ErrorIs(t, c.Execute(t.Context(), "x", nil, nil), ErrClosed)
}

// FuzzClient: whatever QEMU says, the client ends, and hands out no reply that
// is not one.
func FuzzClient(f *testing.F) {
	f.Add([]byte(greeting + "\n" + `{"return": {}, "id": 0}` + "\n" + `{"return": {}, "id": 1}`))
	f.Add([]byte(`{"event": "STOP"}` + "\n" + `{"error": {}, "id": 1}`))
	f.Fuzz(func(t *testing.T, said []byte) {
		ours, theirs := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		c := New(ours, ignore)
		_, _ = theirs.Write(said)
		_ = theirs.Close()
		<-c.Done()
		must.Error(t, c.Execute(t.Context(), "x", nil, nil))
	})
}
