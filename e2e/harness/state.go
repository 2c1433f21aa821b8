// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/docker/docker/client"
	"golang.org/x/sys/unix"
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

// lockSite keeps other runs from using the site of that name, until the file
// is closed or this process ends.
func lockSite(layout Layout, name string) (*os.File, error) {
	path := layout.Build(name, "lock")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another run holds %s, wait for its end: %w", path, err), lock.Close())
	}
	return lock, nil
}

// CloseLeftover closes the site of that name that an earlier run left open, if
// there is one.
func CloseLeftover(layout Layout, name string) error {
	lock, err := lockSite(layout, name)
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
		if s.Docker.Client, err = client.NewClientWithOpts(client.WithHost(s.Docker.Host), client.WithAPIVersionNegotiation()); err != nil {
			return err
		}
	}
	if s.Nomad != nil {
		err = s.Nomad.connect()
	}
	return err
}
