// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package harness

import (
	"context"
	"errors"
	"runtime"
)

// BuildImages makes the container images of the examples from what the
// makefile built. It needs no registry.
func BuildImages(ctx context.Context, docker *Docker, layout Layout) error {
	vision := map[string]string{}
	for _, name := range []string{"Dockerfile", "vision", "facefinder", "sample.jpg", "LICENSE"} {
		vision[name] = layout.Build("vision", name)
	}
	steps := map[string]string{
		"Dockerfile":  layout.Path("examples", "steps", "Dockerfile"),
		"steps-linux": layout.Build("steps", "steps-linux-"+runtime.GOARCH),
		"steps.csv":   layout.Path("examples", "steps", "data", "steps.csv"),
	}
	return errors.Join(
		docker.Build(ctx, "vision:local", vision),
		docker.Build(ctx, "steps:local", steps),
	)
}
