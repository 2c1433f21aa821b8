// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// stateFile keeps an open site, so that another run can close it: one that was
// asked to, or the next one after a run that was killed.
func stateFile(layout Layout, name string) string { return layout.Build(name, "site.json") }

func (s *Site) save() error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(s.State), 0o755); err != nil {
		return err
	}
	return os.WriteFile(s.State, data, 0o644)
}

// lockName is an abstract socket: it needs no file and goes with its holder.
const lockName = "@nomad-driver-unikernel-site"

// lockSites waits until no other run has a site open on this machine: two would
// share Docker's bridge, and each would take the other's things for leftovers.
// The lock holds until it is closed or this process ends.
func lockSites(ctx context.Context, progress func(string)) (io.Closer, error) {
	var lock net.Listener
	told := false
	err := retry(ctx, time.Second, func() error {
		var err error
		lock, err = net.Listen("unix", lockName)
		if errors.Is(err, syscall.EADDRINUSE) && !told {
			progress("Waiting for the end of another run on this machine")
			told = true
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("waiting for other runs: %w", err)
	}
	return lock, nil
}

// CloseLeftover closes the site of that name that an earlier run left open, if
// there is one.
func CloseLeftover(ctx context.Context, layout Layout, name string, progress func(string)) error {
	lock, err := lockSites(ctx, progress)
	if err != nil {
		return err
	}
	return errors.Join(closeLeftover(layout, name), lock.Close())
}

func closeLeftover(layout Layout, name string) error {
	file := stateFile(layout, name)
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var s Site
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("reading %s: %w", file, err)
	}
	if err := s.connect(); err != nil {
		return err
	}
	if s.Nomad != nil && s.Nomad.Node != nil && !s.Nomad.Node.alive() {
		// Its tasks may run all the same, and only an agent stops them.
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err = s.Nomad.StartNode(ctx)
	}
	return errors.Join(err, s.Close())
}

// connect makes the clients that a file cannot keep.
func (s *Site) connect() error {
	var err error
	if s.Docker != nil {
		if err = s.Docker.reconnect(); err != nil {
			return err
		}
	}
	if s.Nomad != nil {
		s.Nomad.changed = s.save
		err = s.Nomad.connect()
	}
	if s.Fleet != nil {
		err = errors.Join(err, s.Fleet.reconnect(s.save))
	}
	return err
}
