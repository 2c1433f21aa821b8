// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"fmt"
	"path"
	"strings"
)

// referenceKind is what an image reference names.
type referenceKind int

const (
	registryReference referenceKind = iota // an OCI reference
	pathReference                          // a kernel file
	layoutReference                        // oci-layout:PATH[:TAG]
)

const layoutPrefix = "oci-layout:"

// pathPrefixes begin a reference that is a path. Everything else that is not
// an OCI layout names an image in a registry.
var pathPrefixes = []string{"/", "./", "../", "local/", "alloc/", "secrets/"}

func kindOf(reference string) referenceKind {
	if strings.HasPrefix(reference, layoutPrefix) {
		return layoutReference
	}
	for _, prefix := range pathPrefixes {
		if strings.HasPrefix(reference, prefix) {
			return pathReference
		}
	}
	return registryReference
}

// wish is what a job wants of a package: where it is, and which files of it.
type wish struct {
	name   string // the reference without the files
	kernel string // in the image, without a leading slash; empty: as the image tells
	initrd string // the same
}

// inImage begins the path of a file in an image.
const inImage = "#"

// wishOf splits the files in the image off a reference to it.
func wishOf(request Request) (wish, error) {
	name, kernel, named := strings.Cut(request.Image, inImage)
	w := wish{name: name}
	if named {
		cleaned, err := cleanInside(kernel)
		if err != nil {
			return wish{}, fmt.Errorf("image %q: %w", request.Image, err)
		}
		w.kernel = cleaned
	}
	if initrd, ok := strings.CutPrefix(request.Initrd, inImage); ok {
		cleaned, err := cleanInside(initrd)
		if err != nil {
			return wish{}, fmt.Errorf("initrd %q: %w", request.Initrd, err)
		}
		w.initrd = cleaned
	}
	return w, nil
}

// cleanInside makes the path of a file in an image comparable.
func cleanInside(name string) (string, error) {
	cleaned, ok := insidePath(name)
	if !ok || cleaned == "." {
		return "", fmt.Errorf("%q is no path of a file in an image: write it as in #/boot/kernel", name)
	}
	return cleaned, nil
}

// insidePath cleans a path in an image, relative to its root; false where it
// climbs.
func insidePath(name string) (string, bool) {
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", false
		}
	}
	return path.Clean(strings.TrimLeft(name, "/")), !strings.ContainsRune(name, 0)
}

// splitLayout splits PATH[:TAG] of an OCI layout reference.
func splitLayout(reference string) (path, tag string) {
	reference = strings.TrimPrefix(reference, layoutPrefix)
	colon := strings.LastIndexByte(reference, ':')
	if colon < 0 || strings.ContainsRune(reference[colon:], '/') {
		return reference, ""
	}
	return reference[:colon], reference[colon+1:]
}
