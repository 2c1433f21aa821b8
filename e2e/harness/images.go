// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package harness

import (
	"context"
	"errors"
	"runtime"
	"slices"
)

// BuildImages makes the container images of the examples from what the
// makefile built: those that are named, or all. It needs no registry.
func BuildImages(ctx context.Context, docker *Docker, layout Layout, names ...string) error {
	vision := map[string]string{}
	for _, name := range []string{"Dockerfile", "vision", "facefinder", "sample.jpg", "LICENSE"} {
		vision[name] = layout.Build("vision", name)
	}
	steps := map[string]string{
		"Dockerfile":  layout.Path("examples", "steps", "Dockerfile"),
		"steps-linux": layout.Build("steps", "steps-linux-"+runtime.GOARCH),
		"steps.csv":   layout.Path("examples", "steps", "data", "steps.csv"),
	}
	var errs []error
	for name, files := range map[string]map[string]string{"vision:local": vision, "steps:local": steps} {
		if len(names) == 0 || slices.Contains(names, name) {
			errs = append(errs, docker.Build(ctx, name, files))
		}
	}
	return errors.Join(errs...)
}
