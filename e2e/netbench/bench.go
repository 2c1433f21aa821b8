// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

// way is a way to the application.
type way struct{ name, title string }

var ways = []way{
	{"docker-host", "container, the host's own network"},
	{"docker-bridge", "container, Docker's bridge"},
	{"nomad-bridge", "container, Nomad's bridge"},
	{"unikernel-bridge", "unikernel, Nomad's bridge (tap)"},
	{"unikernel-host", "unikernel, host mode (user-mode network)"},
}

// The groups of paths.nomad.hcl, as -var takes them.
const (
	containers = `{
		docker-host   = { mode = "host", docker = "host", to = -1 }
		docker-bridge = { mode = "host", docker = "", to = 8080 }
		nomad-bridge  = { mode = "bridge", docker = "", to = 8080 }
	}`
	unikernels = `{ unikernel-bridge = "bridge", unikernel-host = "host" }`
)

const (
	largeImage = "steps-large:local"
	pauseImage = "pause:local"
	users      = 20_000 // of the data set, which make /average a page of about a MB
)

// figure is what a number is of.
type figure struct{ way, load, value string }

// bench is one run: one node, and the application in each way.
type bench struct {
	site    *harness.Site
	fleet   *harness.Fleet
	figures map[figure][]float64 // a value for each round
	load    string               // of the machine, before
}

func (b *bench) start(ctx context.Context) error {
	say("Starting a node with a network of its own")
	var err error
	b.fleet, err = b.site.StartFleet(ctx, harness.PlaceOptions{Name: "node", Docker: true, Firewall: true, InfraImage: pauseImage})
	if err != nil {
		return err
	}
	initrd, err := b.makeData(ctx)
	if err != nil {
		return fmt.Errorf("making the data set: %w", err)
	}
	job, err := harness.ParseJobFile(b.site.Layout.Path("e2e", "netbench", "paths.nomad.hcl"), map[string]string{
		"image": filepath.Join(b.site.ImageDir(), "steps-"+runtime.GOARCH), "initrd": initrd,
		"containers": containers, "unikernels": unikernels,
	})
	if err != nil {
		return err
	}
	say("Starting the application in each way")
	return b.fleet.RunService(ctx, job)
}

// makeData makes a large data set: an initrd, whose path it returns, and a
// container image.
func (b *bench) makeData(ctx context.Context) (initrd string, err error) {
	dir := b.site.ScratchImages()
	data := filepath.Join(dir, "steps.csv")
	if err := writeData(data); err != nil {
		return "", err
	}
	initrd = filepath.Join(dir, "large.cpio")
	pack := exec.CommandContext(ctx, "cpio", "--quiet", "-o", "-H", "newc", "-F", initrd)
	pack.Dir, pack.Stdin = dir, strings.NewReader("steps.csv\n")
	if said, err := pack.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cpio: %w: %s", err, said)
	}
	docker := b.fleet.Docker[0]
	return initrd, errors.Join(
		docker.Build(ctx, largeImage, map[string]string{
			"Dockerfile":  b.site.Layout.Path("examples", "steps", "Dockerfile"),
			"steps-linux": b.site.Layout.Build("steps", "steps-linux-"+runtime.GOARCH),
			"steps.csv":   data,
		}),
		docker.Build(ctx, pauseImage, map[string]string{
			"Dockerfile": b.site.Layout.Path("e2e", "proxy", "Dockerfile"),
			"proxy":      b.site.Layout.Build("bin", "proxy"),
		}),
	)
}

func writeData(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	out := csv.NewWriter(file)
	errs := []error{out.Write([]string{"Id", "ActivityDate", "TotalSteps"})}
	for user := range users {
		errs = append(errs, out.Write([]string{strconv.Itoa(1_000_000_000 + user), "4/12/2016", strconv.Itoa(user)}))
	}
	out.Flush()
	return errors.Join(append(errs, out.Error(), file.Close())...)
}

// at is where a way leads to.
func (b *bench) at(ctx context.Context, w way) (*api.ServiceRegistration, error) {
	found, err := b.fleet.Instances(ctx, "path-"+w.name, 1)
	if err != nil {
		return nil, err
	}
	return found[0], nil
}
