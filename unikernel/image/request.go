// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import "github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"

// Request is what a job says of its image.
type Request struct {
	Image   string       // the reference: a path, oci-layout:PATH[:TAG], or an OCI reference
	Initrd  string       // replaces the image's own; empty: the image's
	Family  guest.Family // empty: as the image tells
	Release string       // empty: as the image tells
	Arch    guest.Arch   // empty: the image's, else Host
	Host    guest.Arch   // the node's own architecture

	TaskDir    string   // holds local/ (relative paths are under it)
	AllocDir   string   // the allocation's shared directory, named alloc/ in paths
	ImagePaths []string // host folders that absolute paths may lie under
}
