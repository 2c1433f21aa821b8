// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/containernetworking/plugins/pkg/ns"
	"golang.org/x/sys/unix"
)

// ErrNetnsGone is returned where a path does not, or no longer, hold a network namespace.
var ErrNetnsGone = errors.New("no network namespace")

// needs is what explains a missing privilege.
const needs = "bridge mode needs root, or CAP_NET_ADMIN and CAP_SYS_ADMIN; host mode needs neither"

// withNetns calls f in the network namespace at path. No other call, also of
// another process, is in the same namespace meanwhile. What f opens (sockets,
// taps, files in /proc/sys/net) belongs to that namespace and may outlive the call.
func withNetns(ctx context.Context, path string, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	netns, err := openNetns(path)
	if err != nil {
		return err
	}
	defer func() { _ = netns.Close() }()
	if err := unix.Flock(int(netns.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock network namespace %s: %w", path, err)
	}
	entered := false
	err = netns.Do(func(ns.NetNS) error {
		entered = true
		return f()
	})
	if err != nil && !entered {
		return fmt.Errorf("%w (%s)", err, needs)
	}
	return err
}

// openNetns opens the namespace at path. Where one was unmounted, an empty file remains.
func openNetns(path string) (ns.NetNS, error) {
	netns, err := ns.GetNS(path)
	var missing ns.NSPathNotExistErr
	var other ns.NSPathNotNSErr
	if errors.As(err, &missing) || errors.As(err, &other) {
		return nil, fmt.Errorf("%w at %s: %w", ErrNetnsGone, path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w (%s)", err, needs)
	}
	return netns, nil
}

// explainPermission adds what would help where a privilege is missing.
func explainPermission(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w (%s)", err, needs)
	}
	return err
}
