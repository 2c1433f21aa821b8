// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"bytes"
	"net"
	"regexp"
	"sync"
	"time"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// What is kept of a console, whatever the guest prints.
const (
	maxLine  = 4096 // bytes; a longer line is read as several
	tailSize = 20   // lines
)

// console reads along on a machine's console socket, for the signs of the
// guest's end and for its last lines. QEMU itself writes the log.
type console struct {
	conn net.Conn
	done chan struct{} // closed when the socket has ended

	ready   chan struct{} // closed when a line matched pattern
	pattern *regexp.Regexp

	printed   chan struct{} // closed when the first byte came
	printedAt time.Time     // when it came; set before printed is closed

	mu    sync.Mutex
	signs guest.Signs
	tail  []string
	line  []byte // begun, without its end

	viewing sync.Mutex // guards viewers
	viewers map[*viewer]struct{}
	typing  sync.Mutex // held while input is written
}

// readConsole takes over conn. It ends when QEMU, or close, ends conn. pattern
// may be nil.
func readConsole(conn net.Conn, signs guest.Signs, pattern *regexp.Regexp) *console {
	c := &console{
		conn:    conn,
		signs:   signs,
		pattern: pattern,
		done:    make(chan struct{}),
		ready:   make(chan struct{}),
		printed: make(chan struct{}),
		viewers: make(map[*viewer]struct{}),
	}
	go c.read()
	return c
}

func (c *console) close() {
	c.conn.Close()
	<-c.done
}

func (c *console) read() {
	defer close(c.done)
	defer c.conn.Close()
	buffer := make([]byte, maxLine)
	for {
		n, err := c.conn.Read(buffer)
		if n > 0 && c.printedAt.IsZero() {
			c.printedAt = time.Now()
			close(c.printed)
		}
		c.take(buffer[:n])
		c.pass(buffer[:n])
		if err != nil {
			c.endLine()
			return
		}
	}
}

func (c *console) take(data []byte) {
	for len(data) > 0 {
		part, _, ended := bytes.Cut(data, []byte{'\n'})
		if room := maxLine - len(c.line); len(part) > room {
			part, ended = part[:room], false
		}
		c.line = append(c.line, part...)
		data = data[len(part):]
		if ended {
			data = data[1:]
		}
		if ended || len(c.line) == maxLine {
			c.endLine()
		}
	}
}

func (c *console) endLine() {
	line := string(bytes.TrimRight(c.line, "\r"))
	c.line = c.line[:0]
	if line == "" {
		return
	}
	c.record(line)
	if c.pattern != nil && c.pattern.MatchString(line) {
		close(c.ready)
		c.pattern = nil
	}
}

func (c *console) record(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.signs.Line(line)
	if len(c.tail) == tailSize {
		c.tail = append(c.tail[:0], c.tail[1:]...)
	}
	c.tail = append(c.tail, line)
}

// readAgain reads lines for signs of which some were read before: signs are the
// same ones then.
func (c *console) readAgain(lines []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, line := range lines {
		c.signs.Line(line)
	}
}

// end tells what the console said of the guest's end.
func (c *console) end() (guest.End, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.signs.End()
}

// lastLines returns at most n of the last lines.
func (c *console) lastLines(n int) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	tail := c.tail[max(0, len(c.tail)-n):]
	return append([]string(nil), tail...)
}
