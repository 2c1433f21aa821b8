// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package look

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/image"
)

// Unikernel looks at a unikernel image: which families and architectures there
// are. A path that only a node has gives nil: nothing is known, nothing wrong.
func (l *Looker) Unikernel(ctx context.Context, ref string) (*classifier.UnikernelImage, error) {
	return ask(&l.mu, &l.unikernels, ref, func() (*classifier.UnikernelImage, error) {
		if isPath(ref) {
			return kernelFile(ref)
		}
		ctx, cancel := l.bounded(ctx)
		defer cancel()
		ref, _, _ := strings.Cut(ref, "#/") // a kernel within a container image
		found, err := l.open(ctx, ref)
		if notThere(err) {
			return &classifier.UnikernelImage{Ref: ref, Missing: true}, nil
		}
		if err != nil {
			return nil, err
		}
		defer found.close()
		return found.unikernel(ref)
	})
}

func isPath(ref string) bool {
	return path.IsAbs(ref) || strings.HasPrefix(ref, "./") || strings.HasPrefix(ref, "local/") || strings.HasPrefix(ref, "alloc/")
}

// notThere tells a registry's "no such image" from one that did not answer.
func notThere(err error) bool {
	var answer *transport.Error
	return errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound
}

// kernelFile looks at a file of this machine. Paths below a task's directory
// are made on the node, so they are not looked for.
func kernelFile(ref string) (*classifier.UnikernelImage, error) {
	if !path.IsAbs(ref) {
		return nil, nil
	}
	file, err := os.Open(ref)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // the node's file, not this machine's
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", ref)
	}
	facts, err := image.Detect(file, info.Size())
	if err != nil {
		return nil, fmt.Errorf("%s %w", ref, err)
	}
	if facts.Format == image.Solo5Tender {
		return nil, fmt.Errorf("%s %w", ref, &image.NotBootable{
			What: "a Solo5 kernel for the hvt or spt tender", Do: "build it for virtio, or MirageOS for unikraft-qemu",
		})
	}
	out := &classifier.UnikernelImage{
		Ref: ref, Family: string(facts.Family), Release: facts.Release, SizeMiB: float64(info.Size()) / (1 << 20),
	}
	out.Features, out.GICs = facts.Features, facts.GICs
	if facts.Arch != "" {
		out.Arch = []string{string(facts.Arch)}
	}
	needs(out)
	return out, nil
}

// needs adds what follows from an image's family and build options: the least
// memory, and what it takes of a job's and what not. What is not known is left
// out.
func needs(out *classifier.UnikernelImage) {
	var features []string
	if slices.Contains(out.Features, "CONFIG_LIBUKBOOT=y") { // else the list is not whole
		features = out.Features
	}
	family := guest.Family(out.Family)
	if family == guest.Mirage || family == guest.Solo5 ||
		family == guest.Unikraft && features != nil && !slices.Contains(features, "CONFIG_LIBPOSIX_ENVIRON_LIBPARAM=y") {
		out.Cannot = append(out.Cannot, classifier.GivesEnvironment)
	}
	for i, arch := range out.Arch {
		kind, err := guest.For(family, out.Release, guest.Arch(arch))
		if err != nil {
			continue
		}
		least := max(int(kind.Devices().MinMemoryMiB), int(math.Ceil(out.SizeMiB)))
		if out.MemoryMiB == 0 || least < out.MemoryMiB {
			out.MemoryMiB = least
		}
		if i > 0 {
			continue // the same for all architectures
		}
		packed, shared := kind.Content(guest.Initrd, features).Can, kind.Content(guest.NineP, features).Can
		if packed == guest.No && shared == guest.No {
			out.Cannot = append(out.Cannot, classifier.GivesFiles)
		}
		if shared == guest.Yes {
			out.Can = append(out.Can, classifier.GivesVolumes)
		}
	}
}

// unikernelOS are what Unikraft's packages give as their platform's OS; QEMU
// boots the first two.
var unikernelOS = []string{"qemu", "kvm", "fc", "xen", "kraftcloud"}

func (f *found) unikernel(ref string) (*classifier.UnikernelImage, error) {
	out := &classifier.UnikernelImage{Ref: ref}
	if f.image != nil {
		err := describeUnikernel(out, f.image)
		needs(out)
		return out, err
	}
	manifest, err := f.index.IndexManifest()
	if err != nil {
		return nil, err
	}
	others := []string{}
	for _, d := range manifest.Manifests {
		if d.Platform == nil && d.MediaType.IsIndex() {
			inner, err := f.index.ImageIndex(d.Digest)
			if err != nil {
				return nil, err
			}
			return (&found{index: inner}).unikernel(ref)
		}
		if d.Platform != nil && slices.Contains(unikernelOS[2:], d.Platform.OS) {
			others = append(others, d.Platform.OS)
			continue
		}
		if !d.MediaType.IsImage() {
			continue
		}
		one, err := f.index.Image(d.Digest)
		if err != nil {
			return nil, err
		}
		if err := describeUnikernel(out, one); err != nil {
			return nil, err
		}
	}
	needs(out)
	if len(out.Arch) == 0 && len(others) > 0 {
		return nil, fmt.Errorf("it is packed for %s only; QEMU needs the platform qemu", strings.Join(slices.Compact(others), ", "))
	}
	return out, nil
}

// describeUnikernel adds what one manifest tells.
func describeUnikernel(out *classifier.UnikernelImage, img v1.Image) error {
	config, err := img.ConfigFile()
	if err != nil {
		return err
	}
	manifest, err := img.Manifest()
	if err != nil {
		return err
	}
	if arch := archName(config.Architecture); arch != "" && !slices.Contains(out.Arch, arch) {
		out.Arch = append(out.Arch, arch)
		slices.Sort(out.Arch)
	}
	switch {
	case slices.Contains(unikernelOS, config.OS):
		out.Family, out.Release = "unikraft", config.OSVersion
		out.Features = config.OSFeatures
	case uruncFamily(manifest.Annotations, config.Config.Labels) != "":
		out.Family = uruncFamily(manifest.Annotations, config.Config.Labels)
	}
	size := int64(0)
	for _, layer := range manifest.Layers {
		size += layer.Size
	}
	out.SizeMiB = max(out.SizeMiB, float64(size)/(1<<20))
	return nil
}

// archName is an architecture as the unikernel driver names it.
func archName(s string) string {
	switch s {
	case "amd64", "x86_64":
		return "x86_64"
	case "arm64", "aarch64":
		return "arm64"
	}
	return ""
}

// uruncFamily is the family that urunc's annotations or labels name, plain or
// in base64 as its own tools write them.
func uruncFamily(places ...map[string]string) string {
	for _, place := range places {
		v := place["com.urunc.unikernel.unikernelType"]
		if v == "" {
			continue
		}
		if plain, err := base64.StdEncoding.DecodeString(v); err == nil && strings.Trim(string(plain), "abcdefghijklmnopqrstuvwxyz0123456789-") == "" {
			return string(plain)
		}
		return v
	}
	return ""
}
