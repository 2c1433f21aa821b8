// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"
)

// Site is an edge site of one node: Docker with the examples' images, and an
// agent with the driver.
type Site struct {
	Layout Layout
	Docker *Docker
	Agent  *Agent

	before Machine
}

// OpenSite starts a site whose files lie under build/name. Progress is told as
// it goes.
func OpenSite(ctx context.Context, name string, progress func(string)) (*Site, error) {
	layout, err := FindLayout()
	if err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("a Nomad client, Docker and the driver need root: run this as root")
	}
	s := &Site{Layout: layout}
	if s.before, err = LookAtMachine(layout); err != nil {
		return nil, err
	}
	progress("Looking for Docker, or starting it")
	if s.Docker, err = StartDocker(ctx, layout.Build("docker")); err != nil {
		return nil, err
	}
	progress("Building the container images")
	if err := BuildImages(ctx, s.Docker, layout); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	progress("Starting a Nomad agent")
	s.Agent, err = StartAgent(ctx, layout, AgentOptions{
		Dir:        layout.Build(name, "agent"),
		ImagePaths: []string{s.ImageDir()},
		DockerHost: s.Docker.Host,
	})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// ImageDir is the host folder with the unikernel images.
func (s *Site) ImageDir() string { return s.Layout.Build("steps") }

// Close stops all jobs, the agent and Docker, and fails if anything is left.
// It works as long as it needs, also when the caller was interrupted.
func (s *Site) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	var errs []error
	if s.Agent != nil {
		errs = append(errs, s.Agent.PurgeAll(ctx), s.Agent.Stop(ctx))
	}
	if s.Docker != nil {
		errs = append(errs, s.Docker.Stop(ctx))
	}
	settle, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	return errors.Join(append(errs, AwaitNothingNew(settle, s.Layout, s.before))...)
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
	cmd.Env = append(os.Environ(), "NOMAD_ADDR="+s.Agent.Address)
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
