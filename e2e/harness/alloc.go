// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package harness

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
)

// Allocation is the whole of an allocation.
func (c *Cluster) Allocation(ctx context.Context, id string) (*api.Allocation, error) {
	alloc, _, err := c.Client.Allocations().Info(id, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("reading allocation %s: %w", id, err)
	}
	return alloc, nil
}

// Logs is what a task has printed to a stream, stdout or stderr, so far.
func (c *Cluster) Logs(ctx context.Context, alloc *api.Allocation, task, stream string) (string, error) {
	var out strings.Builder
	frames, failed := c.Client.AllocFS().Logs(alloc, false, task, stream, api.OriginStart, 0, ctx.Done(), (&api.QueryOptions{}).WithContext(ctx))
	for {
		select {
		case frame, open := <-frames:
			if !open {
				return out.String(), ctx.Err()
			}
			out.Write(frame.Data)
		case err := <-failed:
			return out.String(), fmt.Errorf("reading %s of task %s: %w", stream, task, err)
		}
	}
}

// Stats waits until the client has measured every task of an allocation.
func (c *Cluster) Stats(ctx context.Context, alloc *api.Allocation) (*api.AllocResourceUsage, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var usage *api.AllocResourceUsage
	err := retry(ctx, 250*time.Millisecond, func() error {
		var err error
		usage, err = c.Client.Allocations().Stats(alloc, (&api.QueryOptions{}).WithContext(ctx))
		if err == nil && len(usage.Tasks) == 0 {
			err = errors.New("no task was measured")
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("statistics of allocation %s: %w", alloc.ID, err)
	}
	return usage, nil
}
