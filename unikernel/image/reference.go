// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import "strings"

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
