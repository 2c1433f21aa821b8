// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

const (
	// maxBehind bounds how far a viewer may be behind the guest, in reads of
	// the console: what it misses beyond that is counted and said.
	maxBehind = 64
	// typeTimeout bounds one write to a guest that reads nothing before the
	// context is looked at again.
	typeTimeout = time.Second
)

// viewer is somebody who is attached to a console.
type viewer struct {
	chunks chan []byte
	missed int // bytes; guarded by console.viewing
}

// Attach joins somebody to the guest's console: out gets what the guest prints
// from now on, and the guest gets what is read from in. Any number may be
// attached; one that is slow misses output, and holds up nobody. It returns
// nil when the guest has ended, the context's error when that has, or out's
// error. In is closed then.
func (m *Machine) Attach(ctx context.Context, in io.ReadCloser, out io.Writer) error {
	if m.console == nil {
		return errors.New("the guest has ended")
	}
	l := m.console.attach()
	defer m.console.detach(l)

	ctx, cancel := context.WithCancel(ctx)
	typed := make(chan struct{})
	go func() {
		defer close(typed)
		m.console.typeAll(ctx, in)
	}()
	defer func() {
		cancel()
		in.Close()
		<-typed
	}()
	return m.console.show(ctx, l, out)
}

func (c *console) attach() *viewer {
	l := &viewer{chunks: make(chan []byte, maxBehind)}
	c.viewing.Lock()
	defer c.viewing.Unlock()
	c.viewers[l] = struct{}{}
	return l
}

func (c *console) detach(l *viewer) {
	c.viewing.Lock()
	defer c.viewing.Unlock()
	delete(c.viewers, l)
}

// pass gives viewers what the guest printed, without waiting for any.
func (c *console) pass(data []byte) {
	c.viewing.Lock()
	defer c.viewing.Unlock()
	if len(c.viewers) == 0 || len(data) == 0 {
		return
	}
	chunk := append([]byte(nil), data...)
	for l := range c.viewers {
		select {
		case l.chunks <- chunk:
		default:
			l.missed += len(chunk)
		}
	}
}

func (c *console) show(ctx context.Context, l *viewer, out io.Writer) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case chunk := <-l.chunks:
			if err := c.showChunk(l, chunk, out); err != nil {
				return err
			}
		case <-c.done:
			return c.showRest(l, out)
		}
	}
}

// showRest shows what waited when the guest ended.
func (c *console) showRest(l *viewer, out io.Writer) error {
	for {
		select {
		case chunk := <-l.chunks:
			if err := c.showChunk(l, chunk, out); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

func (c *console) showChunk(l *viewer, chunk []byte, out io.Writer) error {
	if _, err := out.Write(chunk); err != nil {
		return fmt.Errorf("showing the console: %w", err)
	}
	c.viewing.Lock()
	missed := l.missed
	if len(l.chunks) > 0 {
		missed = 0 // said where the gap is: behind what waits
	} else {
		l.missed = 0
	}
	c.viewing.Unlock()
	if missed == 0 {
		return nil
	}
	_, err := fmt.Fprintf(out, "\r\n[%d bytes of output were not shown here, as they came too fast]\r\n", missed)
	return err
}

// typeAll gives the guest what is read from in, until that or ctx ends.
func (c *console) typeAll(ctx context.Context, in io.Reader) {
	buffer := make([]byte, 1024)
	for {
		n, err := in.Read(buffer)
		if c.typeIn(ctx, buffer[:n]) != nil || err != nil {
			return
		}
	}
}

// typeIn waits for a guest that does not read, as QEMU keeps only what a
// serial port holds.
func (c *console) typeIn(ctx context.Context, data []byte) error {
	for len(data) > 0 {
		n, err := c.typeSome(data)
		data = data[n:]
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

func (c *console) typeSome(data []byte) (int, error) {
	c.typing.Lock()
	defer c.typing.Unlock()
	if err := c.conn.SetWriteDeadline(time.Now().Add(typeTimeout)); err != nil {
		return 0, err
	}
	return c.conn.Write(data)
}
