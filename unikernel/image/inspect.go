// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"context"
	"fmt"
	"os"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// Summary is what is known of an image, for people and for other programs.
// What nothing told is empty.
type Summary struct {
	Source      string            `json:"source"`
	Arch        guest.Arch        `json:"arch"`
	Family      guest.Family      `json:"family,omitempty"`
	Release     string            `json:"release,omitempty"`
	Format      Format            `json:"format"`
	KernelBytes int64             `json:"kernel_bytes"`
	InitrdBytes int64             `json:"initrd_bytes,omitempty"`
	BlockBytes  int64             `json:"block_bytes,omitempty"`
	Args        []string          `json:"args,omitempty"`
	Env         map[string]string `json:"env,omitempty"`
	Devices     []Device          `json:"devices,omitempty"`
	GICs        []int             `json:"gics,omitempty"` // of an arm64 kernel
	Features    []string          `json:"features,omitempty"`
	Takes       []Ability         `json:"takes,omitempty"`
	// Problem is why the driver refuses the image; empty: it does not.
	Problem string `json:"problem,omitempty"`
}

// Ability is how a guest takes one thing that a job gives it.
type Ability struct {
	What string `json:"what"` // "address", "environment", "files by initrd", "files by 9p", "files by block"
	// Can is "yes", "no", or "unknown" where the image does not list the
	// options it was built with.
	Can string `json:"can"`
	How string `json:"how"` // the way it takes it, or what would do
}

// Inspect opens an image, as for a task, and tells what is known of it.
func (s *Store) Inspect(ctx context.Context, request Request, progress func(string)) (*Summary, error) {
	if progress == nil {
		progress = func(string) {}
	}
	image, err := s.open(ctx, request, progress)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	told := image.Arch
	kernel, err := s.settle(image.Kernel, "image", request.Image)
	if err != nil {
		return nil, err
	}
	image.Kernel = kernel
	facts, err := image.look()
	if err != nil {
		return nil, fmt.Errorf("image %q: %w", image.Source, err)
	}
	image.learn(facts, request)
	summary := image.summary()
	if err := facts.agree(request, told); err != nil {
		summary.Problem = err.Error()
	}
	return summary, nil
}

func (i *Image) summary() *Summary {
	return &Summary{
		Source: i.Source, Arch: i.Arch, Family: i.Family, Release: i.Release, Format: i.Format,
		KernelBytes: sizeOf(i.Kernel), InitrdBytes: sizeOf(i.Initrd), BlockBytes: sizeOf(i.Block),
		Args: i.Args, Env: i.Env, Devices: i.Devices, GICs: i.GICs, Features: i.Features, Takes: i.Takes(),
	}
}

func sizeOf(file *os.File) int64 {
	if file == nil {
		return 0
	}
	info, err := file.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}

// Takes tells how the image's family takes what a job gives, and whether this
// image was built to. It looks at Family, Release, Arch and Features only.
func (i *Image) Takes() []Ability {
	return append(i.tellings(), i.contents()...)
}

// tellings are what the guest can be told.
func (i *Image) tellings() []Ability {
	switch i.Family {
	case guest.Unikraft:
		return []Ability{
			i.builtWith("address", "netdev.ip= on its command line", "LIBUKNETDEV_EINFO_LIBPARAM"),
			i.builtWith("environment", "env.vars= on its command line", "LIBPOSIX_ENVIRON_LIBPARAM"),
		}
	case guest.Mirage, guest.Solo5:
		return []Ability{
			{"address", "yes", "--ipv4= and --ipv4-gateway= in its arguments"},
			{"environment", "no", "it has none: use args"},
		}
	case guest.Linux:
		return []Ability{
			{"address", "yes", "ip= on its command line"},
			{"environment", "yes", "KEY=VALUE on its command line, for init"},
		}
	}
	return nil
}

// contents are the ways by which files get into the guest.
func (i *Image) contents() []Ability {
	kind, err := guest.For(i.Family, i.Release, i.Arch)
	if err != nil {
		return nil // said elsewhere: it does not boot
	}
	var all []Ability
	for _, t := range []guest.Transport{guest.Initrd, guest.NineP, guest.Block} {
		content := kind.Content(t, i.Features)
		all = append(all, Ability{"files by " + string(t), content.Can.String(), content.Why})
	}
	return all
}

// builtWith is an ability that needs one of some build options.
func (i *Image) builtWith(what, how string, options ...string) Ability {
	for _, option := range options {
		lacks, known := i.Lacks(option)
		if !known {
			return Ability{what, "unknown", fmt.Sprintf("%s, if it was built with %s", how, option)}
		}
		if !lacks {
			return Ability{what, "yes", how}
		}
	}
	return Ability{what, "no", "it was built without " + options[0]}
}
