// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/shoenig/test/must"
)

// Packages, made as the tools make them.

// file is an entry of a layer.
type file struct {
	name    string
	content []byte
	kind    byte   // 0: a regular file
	link    string // where a link leads
}

func tarOf(t testing.TB, files ...file) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		if f.kind == 0 {
			f.kind = tar.TypeReg
		}
		must.NoError(t, w.WriteHeader(&tar.Header{Name: f.name, Typeflag: f.kind, Linkname: f.link, Size: int64(len(f.content)), Mode: 0o755}))
		_, err := w.Write(f.content)
		must.NoError(t, err)
	}
	must.NoError(t, w.Close())
	return out.Bytes()
}

func layerOf(t testing.TB, files ...file) mutate.Addendum {
	t.Helper()
	return mutate.Addendum{Layer: static.NewLayer(tarOf(t, files...), types.OCIUncompressedLayer), MediaType: types.OCIUncompressedLayer}
}

// imageWith is an image of these layers.
func imageWith(t testing.TB, config v1.ConfigFile, layers ...mutate.Addendum) v1.Image {
	t.Helper()
	base := mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1)
	image, err := mutate.ConfigFile(base, &config)
	must.NoError(t, err)
	image, err = mutate.Append(image, layers...)
	must.NoError(t, err)
	return image
}

// kraftkit is a Unikraft package: a plain tar for each file, under an absolute
// name, annotated.
func kraftkit(t testing.TB, os, arch string, kernel, initrd []byte) v1.Image {
	t.Helper()
	layer := layerOf(t, file{name: "/unikraft/bin/kernel", content: kernel})
	layer.Annotations = map[string]string{kraftKernel: "/unikraft/bin/kernel"}
	layers := []mutate.Addendum{layer, layerOf(t, file{name: "/unikraft/bin/kernel.dbg", content: []byte("symbols")})}
	if initrd != nil {
		layer := layerOf(t, file{name: "/unikraft/bin/initrd", content: initrd})
		layer.Annotations = map[string]string{kraftInitrd: "/unikraft/bin/initrd"}
		layers = append(layers, layer)
	}
	return imageWith(t, v1.ConfigFile{
		OS: os, Architecture: arch, OSVersion: "0.17.0",
		OSFeatures: []string{"CONFIG_LIBUKBOOT=y", "CONFIG_LIBUKLIBPARAM=y"},
		Config:     v1.Config{Cmd: []string{"--port", "80"}, Env: []string{"PATH=/bin", "LOG=info"}},
	}, layers...)
}

// indexOf is an index of images, each with its platform.
func indexOf(t testing.TB, images ...v1.Image) v1.ImageIndex {
	t.Helper()
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, image := range images {
		config, err := image.ConfigFile()
		must.NoError(t, err)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{
				OS: config.OS, Architecture: config.Architecture, OSVersion: config.OSVersion, OSFeatures: config.OSFeatures,
			}},
		})
	}
	return index
}

// urunced is an ordinary image that urunc runs, described by labels, by
// annotations or by its urunc.json, in base64 or plain.
func urunced(t testing.TB, where string, encode bool, keys map[string]string, files ...file) v1.Image {
	t.Helper()
	written := map[string]string{}
	for key, value := range keys {
		if encode {
			value = base64.StdEncoding.EncodeToString([]byte(value))
		}
		written[uruncPrefix+key] = value
	}
	config := v1.ConfigFile{OS: "linux", Architecture: "arm64", Config: v1.Config{Env: []string{"PATH=/bin", "A=1"}}}
	layers := []mutate.Addendum{layerOf(t, files...)}
	switch where {
	case "labels":
		config.Config.Labels = written
	case "file":
		text, err := json.Marshal(written)
		must.NoError(t, err)
		layers = append(layers, layerOf(t, file{name: "urunc.json", content: text}))
	}
	image := imageWith(t, config, layers...)
	if where == "annotations" {
		image = mutate.Annotations(image, written).(v1.Image)
	}
	return image
}
