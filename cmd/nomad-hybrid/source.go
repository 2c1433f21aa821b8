// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	getter "github.com/hashicorp/go-getter"
)

// maxJobSize bounds what is read as a job; Nomad's own limit for a submission
// is far below it.
const maxJobSize = 32 << 20

// readJob reads a job from a path, from a URL that Nomad would take, or from
// standard input, and says what it is called in messages.
func (c *command) readJob(job string) (src []byte, name string, err error) {
	if job == "-" {
		src, err = readAll(c.in)
		return src, "stdin", err
	}
	f, err := os.Open(job)
	if errors.Is(err, fs.ErrNotExist) && isRemote(job) {
		src, err = c.download(job)
		return src, filepath.Base(job), err
	}
	if err != nil {
		return nil, "", fmt.Errorf("read the job: %w; give a path, a URL, or - for standard input", err)
	}
	defer f.Close()
	if src, err = readAll(f); err != nil {
		return nil, "", fmt.Errorf("read the job: %s: %w", job, err)
	}
	return src, job, nil
}

func readAll(r io.Reader) ([]byte, error) {
	src, err := io.ReadAll(io.LimitReader(r, maxJobSize+1))
	if err != nil {
		return nil, err
	}
	if len(src) > maxJobSize {
		return nil, fmt.Errorf("larger than %d MiB: no job", maxJobSize>>20)
	}
	return src, nil
}

// isRemote tells whether go-getter, which Nomad reads jobs with, takes a
// string for something else than a file.
func isRemote(job string) bool {
	detected, err := getter.Detect(job, ".", getter.Detectors)
	if err != nil {
		return false
	}
	return len(detected) < 5 || detected[:5] != "file:"
}

// download gets a job as `nomad job run` does.
func (c *command) download(url string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "nomad-hybrid-")
	if err != nil {
		return nil, fmt.Errorf("get the job: %w", err)
	}
	defer os.RemoveAll(dir)
	pwd, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("get the job: %w", err)
	}
	dst := filepath.Join(dir, "job")
	client := &getter.Client{Ctx: c.ctx, Src: url, Pwd: pwd, Dst: dst, DisableSymlinks: true}
	if err := client.Get(); err != nil {
		return nil, fmt.Errorf("get the job from %s: %w", url, err)
	}
	f, err := os.Open(dst)
	if err != nil {
		return nil, fmt.Errorf("get the job from %s: %w", url, err)
	}
	defer f.Close()
	return readAll(f)
}
