// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoenig/test/must"
	"github.com/shoenig/test/wait"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// consolePair is a console and the end that QEMU has of it.
func consolePair(t *testing.T) (*Machine, net.Conn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "console")
	socket, err := net.Listen("unix", path)
	must.NoError(t, err)
	defer socket.Close()
	conn, err := net.Dial("unix", path)
	must.NoError(t, err)
	qemu, err := socket.Accept()
	must.NoError(t, err)
	t.Cleanup(func() { qemu.Close() })
	kind, err := guest.For(guest.Unikraft, "", guest.ARM64)
	must.NoError(t, err)
	return &Machine{console: readConsole(conn, kind.Signs(), nil)}, qemu
}

// attach attaches to a machine until the test's end.
func attach(t *testing.T, ctx context.Context, m *Machine) (in *io.PipeWriter, out *io.PipeReader, ended <-chan error) {
	t.Helper()
	inReader, inWriter := io.Pipe()
	outReader, outWriter := io.Pipe()
	result := make(chan error, 1)
	go func() {
		err := m.Attach(ctx, inReader, outWriter)
		outWriter.Close()
		result <- err
	}()
	awaitViewers(t, m.console)
	return inWriter, outReader, result
}

func awaitViewers(t *testing.T, c *console) {
	t.Helper()
	must.Wait(t, wait.InitialSuccess(wait.Timeout(10*time.Second), wait.Gap(time.Millisecond), wait.BoolFunc(func() bool {
		c.viewing.Lock()
		defer c.viewing.Unlock()
		return len(c.viewers) > 0
	})))
}

func expect(t *testing.T, from io.Reader, text string) {
	t.Helper()
	got := make([]byte, len(text))
	_, err := io.ReadFull(from, got)
	must.NoError(t, err)
	must.Eq(t, text, string(got))
}

func TestAttach_BothWays(t *testing.T) {
	m, qemu := consolePair(t)
	in, out, ended := attach(t, t.Context(), m)
	_, err := io.WriteString(qemu, "hello\n")
	must.NoError(t, err)
	expect(t, out, "hello\n")
	_, err = io.WriteString(in, "typed\n")
	must.NoError(t, err)
	expect(t, qemu, "typed\n")

	must.NoError(t, in.Close()) // the client has no more to say and goes on looking
	_, err = io.WriteString(qemu, "bye\n")
	must.NoError(t, err)
	must.NoError(t, qemu.Close())
	expect(t, out, "bye\n")
	must.NoError(t, <-ended)
}

func TestAttach_ClientLeaves(t *testing.T) {
	m, qemu := consolePair(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, _, ended := attach(t, ctx, m)
	cancel()
	must.ErrorIs(t, <-ended, context.Canceled)
	must.MapEmpty(t, m.console.viewers)
	_, err := io.WriteString(qemu, "nobody looks\n")
	must.NoError(t, err)
}

// A guest that reads nothing does not keep a client that leaves.
func TestAttach_GuestReadsNothing(t *testing.T) {
	m, _ := consolePair(t)
	ctx, cancel := context.WithCancel(t.Context())
	in, _, ended := attach(t, ctx, m)
	go func() {
		for {
			if _, err := in.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}()
	cancel()
	must.ErrorIs(t, <-ended, context.Canceled)
}

// A client that does not look misses output; the console goes on.
func TestAttach_SlowClient(t *testing.T) {
	m, qemu := consolePair(t)
	_, out, ended := attach(t, t.Context(), m)
	line := strings.Repeat("x", maxLine-1) + "\n"
	for range 2 * maxBehind {
		_, err := io.WriteString(qemu, line)
		must.NoError(t, err)
	}
	must.NoError(t, qemu.Close())
	<-m.console.done
	all, err := io.ReadAll(out)
	must.NoError(t, err)
	must.NoError(t, <-ended)
	must.StrContains(t, string(all), "bytes of output were not shown here")
	must.Less(t, 2*maxBehind*maxLine, len(all))
}

func TestAttach_ClientGone(t *testing.T) {
	m, qemu := consolePair(t)
	_, out, ended := attach(t, t.Context(), m)
	must.NoError(t, out.Close())
	_, err := io.WriteString(qemu, "hello\n")
	must.NoError(t, err)
	must.ErrorIs(t, <-ended, io.ErrClosedPipe)
}

func TestAttach_EndedMachine(t *testing.T) {
	kind, err := guest.For(guest.Unikraft, "", guest.ARM64)
	must.NoError(t, err)
	m := lost(State{Dir: t.TempDir()}, Watch{Signs: kind.Signs()})
	must.ErrorContains(t, m.Attach(t.Context(), os.Stdin, io.Discard), "ended")
}
