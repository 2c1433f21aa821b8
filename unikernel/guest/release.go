// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package guest

import (
	"fmt"
	"strconv"
	"strings"
)

// release is a kernel's release: its numbers, and the commit where the build
// was made from a work tree instead of a released archive ("0.17.0~eaf6fda").
type release struct {
	major, minor, patch int
	commit              string
}

// newest stands for a release that nothing told.
var newest = release{major: 1 << 30}

// parseRelease reads "0.17.0", "v0.17", "0.17.0~eaf6fda1"; empty is newest.
func parseRelease(text string) (release, error) {
	if text == "" {
		return newest, nil
	}
	numbers, commit, _ := strings.Cut(strings.TrimPrefix(text, "v"), "~")
	parts := strings.Split(numbers, ".")
	if len(parts) > 3 {
		return release{}, badRelease(text)
	}
	var n [3]int
	for i, part := range parts {
		number, err := strconv.ParseUint(part, 10, 16)
		if err != nil {
			return release{}, badRelease(text)
		}
		n[i] = int(number)
	}
	return release{n[0], n[1], n[2], commit}, nil
}

func badRelease(text string) error {
	return fmt.Errorf("guest release %q cannot be read: use one such as 0.17.0, or leave it empty", text)
}

// before tells whether r is older than the given release. A build from a work
// tree counts as the release it is named after.
func (r release) before(major, minor, patch int) bool {
	if r.major != major {
		return r.major < major
	}
	if r.minor != minor {
		return r.minor < minor
	}
	return r.patch < patch
}
