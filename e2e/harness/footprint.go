// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package harness

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Folders that daemons make outside their own and leave when they end.
var (
	dockerFootprint = []string{"/sys/fs/cgroup/docker", "/sys/fs/cgroup/*/docker", "/run/docker", "/run/containerd"}
	nomadFootprint  = []string{"/sys/fs/cgroup/nomad.slice", "/sys/fs/cgroup/*/nomad", driverFolder, "/run/cni/nomad", "/run/cni"}
)

// driverFolder holds the driver's sockets. A run that leaves something in it
// has a fault, so it goes only when it is empty.
const driverFolder = "/run/nomad-driver-unikernel"

// Footprint remembers which of some folders were there before a daemon ran.
type Footprint struct {
	Patterns []string
	Before   []string
}

func lookFor(patterns []string) Footprint {
	return Footprint{Patterns: patterns, Before: glob(patterns)}
}

// folders are those that are there now, whoever made them.
func (f Footprint) folders() []string { return glob(f.Patterns) }

// erase removes the folders that were not there before. A cgroup that holds
// processes cannot be removed, so nothing that still runs is harmed.
func (f Footprint) erase() error {
	var errs []error
	for _, dir := range glob(f.Patterns) {
		if slices.Contains(f.Before, dir) {
			continue
		}
		switch {
		case dir == driverFolder:
			errs = append(errs, os.Remove(dir))
		case strings.HasPrefix(dir, "/sys/fs/cgroup/"):
			errs = append(errs, removeCgroups(dir))
		default:
			errs = append(errs, unmountUnder(dir), os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}

func glob(patterns []string) []string {
	var all []string
	for _, pattern := range patterns {
		found, _ := filepath.Glob(pattern) // the patterns are well formed
		all = append(all, found...)
	}
	return all
}

// removeCgroups removes a cgroup and those in it, innermost first.
func removeCgroups(root string) error {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	errs := []error{err}
	for _, dir := range slices.Backward(dirs) {
		errs = append(errs, unix.Rmdir(dir))
	}
	return errors.Join(errs...)
}

// unmountUnder unmounts what is mounted below a folder, the last first.
func unmountUnder(dir string) error {
	points, err := mountPoints()
	errs := []error{err}
	for _, point := range slices.Backward(points) {
		if strings.HasPrefix(point, dir+"/") {
			errs = append(errs, unix.Unmount(point, unix.MNT_DETACH))
		}
	}
	return errors.Join(errs...)
}
