// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"fmt"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// Request is what a job says of its image.
type Request struct {
	// Image is the reference: a path, oci-layout:PATH[:TAG], or an OCI
	// reference. The last two may end in #/PATH, which names the kernel in an
	// ordinary container image.
	Image string
	// Initrd replaces the image's own: a path, or #/PATH for a file in the
	// image. Empty: the image's.
	Initrd  string
	Family  guest.Family // empty: as the image tells
	Release string       // empty: as the image tells
	Arch    guest.Arch   // empty: the image's, else Host
	Host    guest.Arch   // the node's own architecture
	Pull    Pull         // when a registry is asked; empty: see PullAuto

	TaskDir    string   // holds local/ (relative paths are under it)
	AllocDir   string   // the allocation's shared directory, named alloc/ in paths
	ImagePaths []string // host folders that absolute paths may lie under
}

// Pull says when a registry is asked for an image, in Docker's words.
type Pull string

// When a registry is asked.
const (
	// PullAuto is as Nomad's docker driver does: PullAlways for the tag latest
	// (also where no tag is given), PullMissing for all others.
	PullAuto    Pull = ""
	PullAlways  Pull = "always"  // each time; what is in the cache already is not fetched again
	PullMissing Pull = "missing" // only where the reference is not in the cache
	PullNever   Pull = "never"   // not at all
)

// ParsePull takes a pull policy's name.
func ParsePull(name string) (Pull, error) {
	switch pull := Pull(name); pull {
	case PullAuto, PullAlways, PullMissing, PullNever:
		return pull, nil
	}
	return "", fmt.Errorf("unknown pull policy %q: use always, missing or never", name)
}
