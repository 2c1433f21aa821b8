// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// Site is an edge site of one node: Docker with the examples' images, and an
// agent with the driver.
type Site struct {
	Layout   Layout
	Docker   *Docker
	Nomad    *Cluster
	Consul   *Process // nil: none was started
	Fleet    *Fleet   // nil: none was started
	Registry *Process // nil: none was started
	Before   Machine  // what was there before
	State    string   // file that keeps this, until the site is closed

	lock io.Closer // held while this process has the site open
}

// OpenSite starts a site whose files lie under build/name. Progress is told as
// it goes. Its Docker has the named images of BuildImages; none named: all.
func OpenSite(ctx context.Context, name string, progress func(string), images ...string) (*Site, error) {
	layout, err := FindLayout()
	if err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("a Nomad client, Docker and the driver need root: run this as root")
	}
	lock, err := lockSites(ctx, progress)
	if err != nil {
		return nil, err
	}
	if err := closeLeftover(layout, name); err != nil {
		return nil, fmt.Errorf("cleaning up after an earlier run: %w", err)
	}
	s := &Site{Layout: layout, State: stateFile(layout, name), lock: lock}
	if s.Before, err = LookAtMachine(nobody, s.folders()...); err != nil {
		return nil, err
	}
	progress("Looking for Docker, or starting it")
	if s.Docker, err = StartDocker(ctx, layout.Build(name, "docker")); err != nil {
		return nil, err
	}
	if err := s.save(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	progress("Building the container images")
	if err := BuildImages(ctx, s.Docker, layout, images...); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	progress("Starting a Nomad server and a client")
	if err := os.MkdirAll(s.ScratchImages(), 0o755); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	_, err = StartCluster(ctx, layout, ClusterOptions{
		Dir:        layout.Build(name, "nomad"),
		ImagePaths: []string{s.ImageDir(), s.ScratchImages(), layout.Build("linux")},
		DockerHost: s.Docker.Host,
		Changed: func(c *Cluster) error {
			s.Nomad = c
			return s.save()
		},
	})
	if err != nil {
		s.Nomad = nil // it was stopped
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// ImageDir is the host folder with the unikernel images.
func (s *Site) ImageDir() string { return s.Layout.Build("steps") }

// ScratchImages is another folder that image paths may lie under, for images
// that a test makes.
func (s *Site) ScratchImages() string { return filepath.Join(filepath.Dir(s.State), "images") }

// LookAtMachine tells what is on the machine now, apart from the site's own
// agents.
func (s *Site) LookAtMachine() (Machine, error) {
	return LookAtMachine(s.Nomad.isAgent, s.folders()...)
}

// AwaitNothingNew waits until nothing is left that was not there before, apart
// from the site's own agents, and from the folders that its daemons make for
// their first task and keep until they end.
func (s *Site) AwaitNothingNew(ctx context.Context, before Machine) error {
	expected := s.Nomad.Left.folders()
	if s.Docker.Daemon != nil {
		expected = append(expected, s.Docker.Left.folders()...)
	}
	return AwaitNothingNew(ctx, before.with(expected), s.Nomad.isAgent, s.folders()...)
}

// folders are those that only this site's processes use.
func (s *Site) folders() []string {
	return []string{filepath.Dir(s.State)}
}

// Close stops all jobs, the agent and Docker, and fails if anything is left.
// It works as long as it needs, also when the caller was interrupted.
func (s *Site) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	errs := []error{s.StopFleet(ctx)}
	if s.Nomad != nil {
		errs = append(errs, s.Nomad.PurgeAll(ctx), s.Nomad.Stop(ctx))
	}
	errs = append(errs, s.StopConsul(ctx), s.StopRegistry(ctx))
	if s.Docker != nil {
		errs = append(errs, s.Docker.Stop(ctx))
	}
	settle, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	errs = append(errs, AwaitNothingNew(settle, s.Before, nobody, s.folders()...))
	if err := os.Remove(s.State); !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// Rendered is a job as nomad-hybrid writes it.
type Rendered struct {
	Job    []byte
	Report string
}

// Render has nomad-hybrid rewrite a job file.
func (s *Site) Render(ctx context.Context, path string, vars map[string]string) (*Rendered, error) {
	program, err := s.Layout.Program("nomad-hybrid")
	if err != nil {
		return nil, err
	}
	args := []string{"render", "-no-color"}
	for _, name := range sortedKeys(vars) {
		args = append(args, "-var", name+"="+vars[name])
	}
	var out, report bytes.Buffer
	cmd := exec.CommandContext(ctx, program, append(args, path)...)
	cmd.Stdout, cmd.Stderr = &out, &report
	cmd.Env = append(os.Environ(), "NOMAD_ADDR="+s.Nomad.Address, "DOCKER_HOST="+s.Docker.Host)
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("nomad-hybrid render %s: %w\n%s", path, err, &report)
	}
	return &Rendered{Job: out.Bytes(), Report: report.String()}, nil
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
