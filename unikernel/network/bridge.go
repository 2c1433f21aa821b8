// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package network

import (
	"context"
	"errors"
)

// Bridge puts a tap into the network namespace at path netns and maps the
// namespace's ports to the guest behind it.
func Bridge(ctx context.Context, netns string, c Config) (*NIC, error) {
	return nil, errors.New("bridge mode is not built yet")
}

func undoBridge(ctx context.Context, s State) error { return nil }
