// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package guest

import (
	"slices"
	"strconv"
	"strings"
)

// features are the options an image was built with, as "CONFIG_X=y"; nil where
// nothing told.
type features []string

// told tells whether the options are known at all.
func (f features) told() bool {
	return len(f) > 0
}

// has tells whether the option is known to be built in.
func (f features) has(option string) bool {
	return slices.Contains(f, "CONFIG_"+option+"=y")
}

// lacks tells whether the option is known not to be built in.
func (f features) lacks(option string) bool {
	return f.told() && !f.has(option)
}

// number is the option's value, or the fallback where it is not told.
func (f features) number(option string, fallback int) int {
	for _, feature := range f {
		value, found := strings.CutPrefix(feature, "CONFIG_"+option+"=")
		if !found {
			continue
		}
		if n, err := strconv.Atoi(strings.Trim(value, `"`)); err == nil && n > 0 {
			return n
		}
	}
	return fallback
}
