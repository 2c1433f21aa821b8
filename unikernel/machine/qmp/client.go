// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Package qmp talks to a running QEMU over its QEMU Machine Protocol socket.
//
// It uses the protocol's types of digitalocean/go-qemu, but not its
// SocketMonitor: that one has no deadlines, breaks on lines over 64 KiB, hangs
// when nobody drains its events, and hands out a buffer that the next message
// overwrites. A driver that must outlive a QEMU that is stopped, silent or
// talking nonsense can afford none of these.
package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"

	"github.com/digitalocean/go-qemu/qmp"
	"golang.org/x/sys/unix"
)

// Event is an asynchronous message of QEMU.
type Event = qmp.Event

// maxMessage bounds one message of QEMU, in bytes.
const maxMessage = 1 << 20

// ErrClosed is wrapped by every error that means the connection has ended.
var ErrClosed = errors.New("the QMP connection is closed")

// Error is QEMU's own refusal of a command.
type Error struct {
	Command string
	Class   string `json:"class"`
	Desc    string `json:"desc"`
}

func (e *Error) Error() string {
	return fmt.Sprintf("QMP %s: %s", e.Command, e.Desc)
}

// Client is a connection to one QEMU. Its methods are safe for concurrent use.
type Client struct {
	conn    net.Conn
	onEvent func(Event)

	ready chan struct{} // closed when QEMU has accepted the handshake
	done  chan struct{} // closed when the connection has ended

	mu      sync.Mutex
	err     error // why the connection ended; set before done is closed
	nextID  uint64
	pending map[uint64]chan message
}

// message is any message of QEMU: a greeting, a reply or an event.
type message struct {
	Greeting json.RawMessage `json:"QMP"`
	ID       *uint64         `json:"id"`
	Return   json.RawMessage `json:"return"`
	Error    *Error          `json:"error"`
	Event
}

type command struct {
	Execute   string `json:"execute"`
	Arguments any    `json:"arguments,omitempty"`
	ID        uint64 `json:"id"`
}

// New takes over conn, a connection to a QMP socket that nobody has read from,
// and starts the handshake. It does not wait for QEMU: commands do. onEvent is
// called for each event, in order, by the one goroutine that reads; it must not
// call the client and not block.
func New(conn net.Conn, onEvent func(Event)) *Client {
	c := &Client{
		conn:    conn,
		onEvent: onEvent,
		ready:   make(chan struct{}),
		done:    make(chan struct{}),
		pending: make(map[uint64]chan message),
	}
	go c.read()
	return c
}

// Done is closed when the connection has ended, by Close or by QEMU.
func (c *Client) Done() <-chan struct{} { return c.done }

// Close ends the connection. QEMU goes on.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	return err
}

// Execute runs a command and decodes its result into result, unless that is
// nil. It returns an *Error where QEMU refuses, and an error that wraps
// ErrClosed where the connection has ended.
func (c *Client) Execute(ctx context.Context, name string, arguments, result any) error {
	err := c.execute(ctx, name, arguments, result, nil)
	if tooEarly(err) {
		err = c.execute(ctx, name, arguments, result, nil)
	}
	return err
}

// Give gives QEMU a file, which its later commands know by a name ("fd:NAME")
// and close after use. The connection must be a Unix socket.
// Source: QEMU, qapi/misc.json, getfd.
func (c *Client) Give(ctx context.Context, name string, file *os.File) error {
	return c.execute(ctx, "getfd", map[string]string{"fdname": name}, nil, file)
}

func (c *Client) execute(ctx context.Context, name string, arguments, result any, file *os.File) error {
	select {
	case <-c.ready:
	case <-c.done:
		return c.closed(name)
	case <-ctx.Done():
		return fmt.Errorf("QMP %s: QEMU does not answer: %w", name, ctx.Err())
	}

	id, reply := c.expect()
	defer c.forget(id)
	if err := c.send(command{Execute: name, Arguments: arguments, ID: id}, file); err != nil {
		return fmt.Errorf("QMP %s: %w (%w)", name, ErrClosed, err)
	}

	select {
	case m := <-reply:
		return decode(name, m, result)
	case <-c.done:
		return c.closed(name)
	case <-ctx.Done():
		return fmt.Errorf("QMP %s: QEMU does not answer: %w", name, ctx.Err())
	}
}

func decode(name string, m message, result any) error {
	if m.Error != nil {
		m.Error.Command = name
		return m.Error
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(m.Return, result); err != nil {
		return fmt.Errorf("QMP %s: reply %.100q: %w", name, m.Return, err)
	}
	return nil
}

func (c *Client) expect() (uint64, <-chan message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nextID++
	reply := make(chan message, 1)
	c.pending[c.nextID] = reply
	return c.nextID, reply
}

func (c *Client) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, id)
}

func (c *Client) send(cmd command, file *os.File) error {
	line, err := json.Marshal(cmd)
	if err != nil {
		return fmt.Errorf("encoding arguments: %w", err)
	}
	// A QEMU that reads nothing fills the socket only after hundreds of
	// commands, far more than this driver has under way.
	line = append(line, '\n')
	if file == nil {
		_, err = c.conn.Write(line)
		return err
	}
	socket, ok := c.conn.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("a %T passes no files", c.conn)
	}
	_, _, err = socket.WriteMsgUnix(line, unix.UnixRights(int(file.Fd())), nil)
	runtime.KeepAlive(file)
	return err
}

func (c *Client) closed(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Errorf("QMP %s: %w (%w)", name, ErrClosed, c.err)
}

// read owns the receiving side until the connection ends.
func (c *Client) read() {
	err := c.readMessages()
	c.conn.Close()
	c.mu.Lock()
	c.err = err
	c.mu.Unlock()
	close(c.done)
}

func (c *Client) readMessages() error {
	lines := bufio.NewScanner(c.conn)
	lines.Buffer(nil, maxMessage)
	for lines.Scan() {
		var m message
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			return fmt.Errorf("QEMU sent %.100q, which is no QMP: %w", lines.Bytes(), err)
		}
		if err := c.handle(m); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return errors.New("QEMU hung up")
}

// handshake is the id of the one command that New sends by itself; Execute
// counts from 1.
const handshake = 0

func (c *Client) handle(m message) error {
	switch {
	case m.Greeting != nil:
		return c.send(command{Execute: "qmp_capabilities", ID: handshake}, nil)
	case m.Event.Event != "":
		c.onEvent(m.Event)
	case m.ID == nil:
		return errors.New("QEMU sent a reply that no command asked for")
	case *m.ID == handshake:
		return c.accepted(m)
	default:
		c.deliver(m)
	}
	return nil
}

// accepted takes the answer to a handshake. A QEMU that finds a connection made
// before its monitor was may greet twice, and then finds one of the two
// handshakes superfluous.
func (c *Client) accepted(m message) error {
	if m.Error != nil && m.Error.Class != commandNotFound {
		m.Error.Command = "qmp_capabilities"
		return m.Error
	}
	select {
	case <-c.ready:
	default:
		close(c.ready)
	}
	return nil
}

// commandNotFound is how QEMU refuses a command at the wrong side of the
// handshake. Source: QEMU, monitor/qmp.c and qapi/qmp-dispatch.c.
const commandNotFound = "CommandNotFound"

// tooEarly tells that a command came between a second greeting and the
// handshake that answers it. That has been sent by now: the greeting came
// before the refusal.
func tooEarly(err error) bool {
	var refused *Error
	return errors.As(err, &refused) && refused.Class == commandNotFound &&
		strings.HasPrefix(refused.Desc, "Expecting capabilities negotiation")
}

// deliver hands a reply to the call that waits for it. A reply that comes
// after its call gave up is dropped.
func (c *Client) deliver(m message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	reply, ok := c.pending[*m.ID]
	if !ok {
		return
	}
	delete(c.pending, *m.ID)
	reply <- m
}
