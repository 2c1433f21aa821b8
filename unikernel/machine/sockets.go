// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The sockets in a machine's directory.
const (
	qmpSocket     = "qmp"
	consoleSocket = "console"
)

// sockets are what QEMU inherits. The listening ones are made here, not by
// QEMU: a connection made before QEMU runs waits in the backlog, so nobody
// polls for a socket to appear, and QEMU needs no right to the directory.
//
// To its monitor QEMU has two ways: a connection that is there from the start,
// and a socket for a program that finds it again. One way would not do: while
// QEMU starts, two of its threads look at a listening monitor, both see the
// connection come, and the loser waits in accept for the next one, for ever.
type sockets struct {
	qmp, console listener
	first        *os.File // QEMU's end of the connection that is there
}

type listener struct{ file *os.File }

// makeSockets makes them, and returns our end of the connection to the monitor.
func makeSockets(dir string) (*sockets, net.Conn, error) {
	s := new(sockets)
	var err error
	if s.qmp, err = listen(dir, qmpSocket); err != nil {
		return nil, nil, err
	}
	if s.console, err = listen(dir, consoleSocket); err != nil {
		s.close()
		return nil, nil, err
	}
	var own net.Conn
	if own, s.first, err = connection(); err != nil {
		s.close()
		return nil, nil, fmt.Errorf("connecting to QEMU's monitor: %w", err)
	}
	return s, own, nil
}

// close closes this process's copies; QEMU has its own.
func (s *sockets) close() {
	s.qmp.file.Close()
	s.console.file.Close()
	s.first.Close()
}

// connection makes a connection and returns both of its ends.
func connection() (own net.Conn, other *os.File, err error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	mine := os.NewFile(uintptr(ends[0]), "monitor")
	defer mine.Close() // own is a copy
	other = os.NewFile(uintptr(ends[1]), "monitor")
	if own, err = net.FileConn(mine); err != nil {
		other.Close()
		return nil, nil, err
	}
	return own, other, nil
}

func listen(dir, name string) (listener, error) {
	var l listener
	err := shortPath(dir, name, func(path string) error {
		socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			return err
		}
		defer socket.Close()
		socket.SetUnlinkOnClose(false)
		// As its folder lets nobody else in, nobody came before this.
		if err := os.Chmod(path, 0o600); err != nil {
			return err
		}
		l.file, err = nonblocking(socket)
		return err
	})
	if err != nil {
		return l, fmt.Errorf("listening on socket %s: %w", filepath.Join(dir, name), err)
	}
	return l, nil
}

// nonblocking duplicates a listening socket such that it does not block in
// QEMU: two of QEMU's threads may go for one connection, and the one that comes
// late would wait for another for ever, deaf to the monitor. Of a socket that
// does not block when the file is made, Go itself makes one that blocks when it
// is inherited.
func nonblocking(socket *net.UnixListener) (*os.File, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	var file *os.File
	cerr := raw.Control(func(fd uintptr) {
		var own int
		if own, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return
		}
		if err = unix.SetNonblock(own, false); err != nil {
			unix.Close(own)
			return
		}
		file = os.NewFile(uintptr(own), "socket")
		err = unix.SetNonblock(own, true)
	})
	if cerr != nil {
		err = cerr
	}
	if err != nil && file != nil {
		file.Close()
		file = nil
	}
	return file, err
}

func dial(ctx context.Context, dir, name string) (net.Conn, error) {
	var conn net.Conn
	err := shortPath(dir, name, func(path string) error {
		var err error
		conn, err = new(net.Dialer).DialContext(ctx, "unix", path)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("connecting to socket %s: %w", filepath.Join(dir, name), err)
	}
	return conn, nil
}

// shortPath calls use with a path of the file name in dir that is short enough
// for a socket's address (108 bytes), however long dir is.
func shortPath(dir, name string, use func(path string) error) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	return use(fmt.Sprintf("/proc/self/fd/%d/%s", fd, name))
}
