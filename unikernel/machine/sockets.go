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

// sockets are the listening ends that QEMU inherits. They are made here, not
// by QEMU: a connection made before QEMU runs waits in the backlog, so nobody
// polls for a socket to appear, and QEMU needs no right to the directory.
type sockets struct {
	qmp, console listener
}

type listener struct{ file *os.File }

func listenAll(dir string) (*sockets, error) {
	monitor, err := listen(dir, qmpSocket)
	if err != nil {
		return nil, err
	}
	console, err := listen(dir, consoleSocket)
	if err != nil {
		monitor.file.Close()
		return nil, err
	}
	return &sockets{qmp: monitor, console: console}, nil
}

// close closes this process's copies; QEMU has its own.
func (s *sockets) close() {
	s.qmp.file.Close()
	s.console.file.Close()
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
		l.file, err = socket.File()
		return err
	})
	if err != nil {
		return l, fmt.Errorf("listening on socket %s: %w", filepath.Join(dir, name), err)
	}
	return l, nil
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
