// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	// MaxWaiting bounds what waits for a reader that does not read, in bytes.
	// The oldest beyond it is dropped, and a line in the log says so.
	MaxWaiting = 4 << 20

	// chunk is read and written at once, in bytes.
	chunk = 64 << 10
	// writeTimeout bounds one write into a sink before the spool's length is
	// looked at again.
	writeTimeout = time.Second
	// quiet is the least time between two looks at the spool: a guest prints
	// byte by byte, and each byte is an event.
	quiet = 20 * time.Millisecond
)

// Sink is where a guest's output ends up. A Write that returns an error is
// tried again later, with what it did not take.
type Sink interface {
	io.WriteCloser
	// SetWriteDeadline bounds writes; sinks that never wait do nothing.
	SetWriteDeadline(time.Time) error
}

// Pump moves a guest's output from its spool into a sink, in a goroutine that
// ends by Finish.
type Pump struct {
	spool  *Spool
	sink   Sink
	events <-chan struct{}

	finish chan context.Context
	done   chan struct{}

	dropped int64  // bytes that no note tells of yet
	note    string // what is left to write of the last note
}

// Start begins to pump. An event tells that the spool has grown; the sink and
// the spool are the pump's from now on.
func Start(spool *Spool, sink Sink, events <-chan struct{}) *Pump {
	p := &Pump{
		spool:  spool,
		sink:   sink,
		events: events,
		finish: make(chan context.Context, 1),
		done:   make(chan struct{}),
	}
	go p.run()
	return p
}

// Finish moves what is left, as far as ctx lets it, and closes spool and sink.
// Nobody prints any more.
func (p *Pump) Finish(ctx context.Context) {
	p.finish <- ctx
	<-p.done
}

func (p *Pump) run() {
	defer close(p.done)
	defer p.sink.Close()
	defer p.spool.Close()
	for {
		refused := p.move(time.Now().Add(writeTimeout)) != nil
		if refused {
			p.shed()
		}
		if ctx := p.await(refused); ctx != nil {
			p.moveRest(ctx)
			return
		}
	}
}

// await returns when there may be more to move, or the context of a Finish.
func (p *Pump) await(refused bool) context.Context {
	pause := time.NewTimer(quiet)
	defer pause.Stop()
	select {
	case ctx := <-p.finish:
		return ctx
	case <-pause.C:
	}
	events := p.events
	retry := make(<-chan time.Time)
	if refused {
		timer := time.NewTimer(writeTimeout)
		defer timer.Stop()
		retry, events = timer.C, nil
	}
	select {
	case ctx := <-p.finish:
		return ctx
	case <-events:
	case <-retry:
	}
	return nil
}

// move moves all that waits, until the sink refuses or the deadline passes.
func (p *Pump) move(deadline time.Time) error {
	// Not kept between moves: most guests print little, and there are many.
	var buffer []byte
	for {
		if waiting, err := p.spool.Waiting(); err != nil || waiting <= 0 {
			return err
		}
		_ = p.sink.SetWriteDeadline(deadline)
		if err := p.sayDropped(); err != nil {
			return err
		}
		if buffer == nil {
			buffer = make([]byte, chunk)
		}
		n, err := p.spool.read(buffer)
		if err != nil {
			return err
		}
		n, err = p.sink.Write(buffer[:n])
		if err := errors.Join(err, p.spool.take(int64(n))); err != nil {
			return err
		}
	}
}

// sayDropped writes into the sink how much is missing at this place.
func (p *Pump) sayDropped() error {
	if p.note == "" && p.dropped > 0 {
		p.note = fmt.Sprintf("\n[nomad-driver-unikernel: %d bytes of output were dropped here, as nothing took them]\n", p.dropped)
		p.dropped = 0
	}
	if p.note == "" {
		return nil
	}
	n, err := io.WriteString(p.sink, p.note)
	p.note = p.note[n:]
	return err
}

// moveRest moves what is left at the end. A sink that takes none of it within
// ctx loses it.
func (p *Pump) moveRest(ctx context.Context) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(writeTimeout)
	}
	_ = p.move(deadline)
}

// shed drops the oldest of what waits beyond MaxWaiting.
func (p *Pump) shed() {
	waiting, err := p.spool.Waiting()
	if err != nil || waiting <= MaxWaiting {
		return
	}
	drop := waiting - MaxWaiting/2 // so that it is not done for each byte
	if p.spool.take(drop) == nil {
		p.dropped += drop
	}
}
