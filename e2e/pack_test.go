// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"github.com/shoenig/test/must"
)

// The steps unikernel, packed as the tools of this field pack their own.

func tarOf(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for path, content := range files {
		must.NoError(t, w.WriteHeader(&tar.Header{Name: path, Typeflag: tar.TypeReg, Size: int64(len(content)), Mode: 0o755}))
		_, err := w.Write(content)
		must.NoError(t, err)
	}
	must.NoError(t, w.Close())
	return out.Bytes()
}

// layer is a plain tar of files, as kraftkit makes it.
func layer(t *testing.T, files map[string][]byte) mutate.Addendum {
	t.Helper()
	return mutate.Addendum{Layer: static.NewLayer(tarOf(t, files), types.OCIUncompressedLayer), MediaType: types.OCIUncompressedLayer}
}

func imageOf(t *testing.T, config v1.ConfigFile, layers ...mutate.Addendum) v1.Image {
	t.Helper()
	base := mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1)
	image, err := mutate.ConfigFile(base, &config)
	must.NoError(t, err)
	image, err = mutate.Append(image, layers...)
	must.NoError(t, err)
	return image
}

func built(t *testing.T, file string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(site.ImageDir(), file))
	must.NoError(t, err)
	return content
}

// kraftkit packs the steps unikernel as `kraft pkg` does: the monitor for the
// operating system, and a layer for each file. Its first layer is the kernel.
func kraftkit(t *testing.T, monitor, arch string, args ...string) v1.Image {
	t.Helper()
	config := kraftConfig(arch)
	config.OS, config.Config.Cmd = monitor, args
	return imageOf(t, config, kraftKernel(t, arch), kraftInitrd(t))
}

// kraftConfig is the configuration of a package that lists these build options.
func kraftConfig(arch string, features ...string) v1.ConfigFile {
	return v1.ConfigFile{OS: "qemu", Architecture: arch, OSVersion: "0.17.0", OSFeatures: features}
}

func kraftKernel(t *testing.T, arch string) mutate.Addendum {
	t.Helper()
	kernel := layer(t, map[string][]byte{"/unikraft/bin/kernel": built(t, "steps-"+arch)})
	kernel.Annotations = map[string]string{"org.unikraft.kernel.image": "/unikraft/bin/kernel"}
	return kernel
}

func kraftInitrd(t *testing.T) mutate.Addendum {
	t.Helper()
	initrd := layer(t, map[string][]byte{"/unikraft/bin/initrd": built(t, "steps.cpio")})
	initrd.Annotations = map[string]string{"org.unikraft.kernel.initrd": "/unikraft/bin/initrd"}
	return initrd
}

// urunc packs it as urunc's tools do: an ordinary image, annotated in base64.
func urunc(t *testing.T, arch string, args ...string) v1.Image {
	t.Helper()
	image := imageOf(t, v1.ConfigFile{OS: "linux", Architecture: arch, Config: v1.Config{Cmd: args}}, layer(t, map[string][]byte{
		"unikernel/kernel": built(t, "steps-"+arch),
		"unikernel/initrd": built(t, "steps.cpio"),
	}))
	keys := map[string]string{}
	for key, value := range map[string]string{
		"unikernelType": "unikraft", "unikernelVersion": "0.17.0", "hypervisor": "qemu",
		"binary": "/unikernel/kernel", "initrd": "/unikernel/initrd",
	} {
		keys["com.urunc.unikernel."+key] = base64.StdEncoding.EncodeToString([]byte(value))
	}
	return mutate.Annotations(image, keys).(v1.Image)
}

// indexOf joins images into one reference, each with its platform.
func indexOf(t *testing.T, images ...v1.Image) v1.ImageIndex {
	t.Helper()
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, image := range images {
		config, err := image.ConfigFile()
		must.NoError(t, err)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: config.OS, Architecture: config.Architecture, OSVersion: config.OSVersion},
		}})
	}
	return index
}

// ordinary is a container image that carries the unikernel beside other files,
// and starts it.
func ordinary(t *testing.T, arch string, args ...string) v1.Image {
	t.Helper()
	files := tarOf(t, map[string][]byte{
		"etc/hostname": []byte("container"), "boot/kernel": built(t, "steps-"+arch), "boot/data.cpio": built(t, "steps.cpio"),
	})
	return imageOf(t, v1.ConfigFile{
		OS: "linux", Architecture: arch, Config: v1.Config{Entrypoint: []string{"/boot/kernel"}, Cmd: args, Env: []string{"PATH=/bin"}},
	}, mutate.Addendum{Layer: static.NewLayer(gzipped(t, files), types.OCILayer), MediaType: types.OCILayer})
}

// compressed is a Unikraft package whose kernel and layers are compressed.
func compressed(t *testing.T, arch string, args ...string) v1.Image {
	t.Helper()
	config := kraftConfig(arch)
	config.Config.Cmd = args
	files := tarOf(t, map[string][]byte{
		"/unikraft/bin/kernel": gzipped(t, built(t, "steps-"+arch)), "/unikraft/bin/initrd": zstandard(t, built(t, "steps.cpio")),
	})
	return imageOf(t, config, mutate.Addendum{Layer: static.NewLayer(zstandard(t, files), types.OCILayerZStd), MediaType: types.OCILayerZStd})
}

func gzipped(t *testing.T, content []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(content)
	must.NoError(t, err)
	must.NoError(t, w.Close())
	return out.Bytes()
}

func zstandard(t *testing.T, content []byte) []byte {
	t.Helper()
	encoder, err := zstd.NewWriter(nil)
	must.NoError(t, err)
	return encoder.EncodeAll(content, nil)
}
