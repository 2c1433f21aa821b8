// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Package harness runs what the end-to-end tests and the demo need: a Nomad
// agent with the driver, a Docker daemon, jobs, and a look at what they leave
// behind. It returns errors and knows nothing of tests.
package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Layout tells where in a clone the built things lie.
type Layout struct {
	Root string // the clone
}

// FindLayout looks for the clone that holds the working directory.
func FindLayout() (Layout, error) {
	dir, err := os.Getwd()
	if err != nil {
		return Layout{}, err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "GNUmakefile")); err == nil {
			return Layout{Root: dir}, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return Layout{}, errors.New("not inside a clone of nomad-driver-unikernel: no GNUmakefile in this folder or above")
		}
		dir = parent
	}
}

// Path joins names under the clone.
func (l Layout) Path(names ...string) string {
	return filepath.Join(append([]string{l.Root}, names...)...)
}

// Build joins names under the clone's build folder.
func (l Layout) Build(names ...string) string {
	return l.Path(append([]string{"build"}, names...)...)
}

// Program is the path of a built program, or an error that says how to build it.
func (l Layout) Program(name string) (string, error) {
	path := l.Build("bin", name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is not built, run `make build build/bin/nomad build/bin/consul`: %w", name, err)
	}
	return path, nil
}
