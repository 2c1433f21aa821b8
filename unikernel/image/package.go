// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// The files of a package, as they are named in the cache.
const (
	kernelRole = "kernel"
	initrdRole = "initrd"
	blockRole  = "block"
)

// contents is what a package holds: which of its files boot, and what it says
// of them.
type contents struct {
	files    map[string]string // by role: the path in the image
	optional []string          // roles that may be missing
	layers   []v1.Descriptor   // that the files are in, the lowest first
	known    packaged
}

// packaged is what a package tells of its image, kept in the cache beside it.
type packaged struct {
	Platform   string // such as "qemu/arm64"
	Arch       guest.Arch
	Family     guest.Family
	Release    string
	Args       []string
	Env        map[string]string
	Features   []string
	BlockMount string
}

// kraftkit's annotations and the paths it packs files at (its oci package).
const (
	kraftKernel  = "org.unikraft.kernel.image"
	kraftInitrd  = "org.unikraft.kernel.initrd"
	kraftVersion = "org.unikraft.kernel.version"

	kraftKernelPath = "unikraft/bin/kernel"
	kraftInitrdPath = "unikraft/bin/initrd"
)

var errNoKernel = errors.New("is an ordinary container image: name the kernel in it, as in IMAGE#/path/of/kernel, or run it with a container driver")

// read tells what a manifest and its configuration say. errNoKernel means that
// only the image's content can tell.
func readPackage(manifest v1.Manifest, config v1.ConfigFile, want wish) (contents, error) {
	c := contents{
		files:  map[string]string{},
		layers: manifest.Layers,
		known:  packaged{Platform: config.OS + "/" + config.Architecture, Arch: platformArch(config.Architecture)},
	}
	var err error
	switch described, isUrunc := uruncOf(manifest.Annotations, config.Config.Labels); {
	case isUnikraftOS(config.OS):
		c.kraftkit(manifest, config)
	case isUrunc:
		err = c.urunc(described, config)
	case config.OS != "" && config.OS != osLinux:
		err = fmt.Errorf("is built for %s, which QEMU does not boot: build it for qemu (kraft build --plat qemu)", c.known.Platform)
	case want.kernel != "":
		c.plain(config, want.kernel)
	default:
		err = errNoKernel
	}
	if err != nil {
		return contents{}, err
	}
	c.override(want)
	return c, nil
}

// override puts the files that the job names in the place of the image's own.
func (c *contents) override(want wish) {
	for role, name := range map[string]string{kernelRole: want.kernel, initrdRole: want.initrd} {
		if name == "" {
			continue
		}
		c.files[role] = name
		c.optional = slices.DeleteFunc(c.optional, func(optional string) bool { return optional == role })
	}
}

// kraftkit reads a Unikraft package.
func (c *contents) kraftkit(manifest v1.Manifest, config v1.ConfigFile) {
	c.files = map[string]string{kernelRole: kraftKernelPath, initrdRole: kraftInitrdPath}
	c.optional = []string{initrdRole}
	var marked []v1.Descriptor
	for _, layer := range manifest.Layers {
		named := c.annotated(kernelRole, layer.Annotations[kraftKernel])
		if c.annotated(initrdRole, layer.Annotations[kraftInitrd]) || named {
			marked = append(marked, layer)
		}
	}
	c.annotated(kernelRole, manifest.Annotations[kraftKernel])
	c.annotated(initrdRole, manifest.Annotations[kraftInitrd])
	// Where layers are marked, the others (debug symbols, sources) are not
	// worth fetching.
	if slices.ContainsFunc(marked, func(layer v1.Descriptor) bool { return layer.Annotations[kraftKernel] != "" }) {
		c.layers = marked
	}
	c.known.Family = guest.Unikraft
	c.known.Release = unikraftVersion(config.OSVersion, manifest.Annotations[kraftVersion])
	c.known.Features = completeFeatures(config.OSFeatures)
	c.known.Args = config.Config.Cmd
	c.known.Env = environment(config.Config.Env)
}

// annotated takes the path of a file from an annotation that has one.
func (c *contents) annotated(role, name string) bool {
	cleaned, err := cleanInside(name)
	if err != nil {
		return false
	}
	c.files[role] = cleaned
	return true
}

// plain reads an ordinary container image whose kernel the job names. The
// image's command and environment are the guest's only where they start that
// kernel: otherwise they belong to the container.
func (c *contents) plain(config v1.ConfigFile, kernel string) {
	command := slices.Concat(config.Config.Entrypoint, config.Config.Cmd)
	if len(command) > 0 && sameInside(command[0], kernel) {
		c.known.Args = command[1:]
		c.known.Env = environment(config.Config.Env)
		delete(c.known.Env, "PATH") // every image builder sets it, for shells
	}
}

func sameInside(a, b string) bool {
	cleaned, ok := insidePath(a)
	return ok && cleaned == b
}

var versionText = regexp.MustCompile(`^v?[0-9]+\.[0-9]+(\.[0-9]+)?(~[0-9A-Za-z]+)?$`)

// unikraftVersion returns the first text that is a release.
func unikraftVersion(texts ...string) string {
	for _, text := range texts {
		if versionText.MatchString(text) {
			return text
		}
	}
	return ""
}

// completeFeatures returns a list of build options if it is a whole one: some
// packages list only the options that their author chose, and from those the
// lack of an option proves nothing. Every Unikraft kernel has ukboot.
func completeFeatures(features []string) []string {
	if slices.Contains(features, "CONFIG_LIBUKBOOT=y") {
		return features
	}
	return nil
}

// environment reads KEY=VALUE pairs.
func environment(pairs []string) map[string]string {
	env := map[string]string{}
	for _, pair := range pairs {
		if key, value, ok := strings.Cut(pair, "="); ok && key != "" {
			env[key] = value
		}
	}
	if len(env) == 0 {
		return nil
	}
	return env
}

// apply tells an image what its package says.
func (p packaged) apply(i *Image) {
	i.Arch, i.Family, i.Release = p.Arch, p.Family, p.Release
	i.Args, i.Env, i.Features = slices.Clone(p.Args), maps.Clone(p.Env), p.Features
	i.BlockMount = p.BlockMount
}
