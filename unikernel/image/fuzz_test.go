// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/shoenig/test/must"
)

// Whatever a manifest and a configuration say, the files of the package are
// named by paths inside of it.
func FuzzPackage(f *testing.F) {
	image := kraftkit(f, "qemu", "arm64", arm, []byte("cpio"))
	manifest, err := image.RawManifest()
	must.NoError(f, err)
	config, err := image.RawConfigFile()
	must.NoError(f, err)
	f.Add(manifest, config, "")
	f.Add([]byte(`{"annotations":{"com.urunc.unikernel.unikernelType":"mirage","com.urunc.unikernel.binary":"L2EvLi4vYg=="}}`), []byte(`{"os":"linux"}`), "")
	f.Add([]byte(`{"layers":[{}]}`), []byte(`{"config":{"Entrypoint":["/k"],"Env":["A"]}}`), "k")
	f.Fuzz(func(t *testing.T, manifestText, configText []byte, kernel string) {
		var manifest v1.Manifest
		var config v1.ConfigFile
		if json.Unmarshal(manifestText, &manifest) != nil || json.Unmarshal(configText, &config) != nil {
			return
		}
		want := wish{}
		if cleaned, err := cleanInside(kernel); err == nil {
			want.kernel = cleaned
		}
		held, err := readPackage(manifest, config, want)
		if err != nil {
			return
		}
		for role, name := range held.files {
			if strings.HasPrefix(name, "/") || name == ".." || strings.HasPrefix(name, "../") || strings.Contains(name, "/../") {
				t.Fatalf("%s is at %q", role, name)
			}
		}
	})
}

// A proof that was changed vouches for nothing else than it did.
func FuzzProof(f *testing.F) {
	key := newSigner(f)
	digest := digestOf(f, kraftkit(f, "qemu", "arm64", arm, nil))
	signed := key.signed(digest)
	right, err := json.Marshal(signed)
	must.NoError(f, err)
	checked, err := Rule{Image: "**", Keys: []string{key.public}}.check()
	must.NoError(f, err)
	must.NoError(f, checkProof(right, checked.keys, digest))
	f.Add(right)
	f.Add([]byte(`{"Signed":"e30=","Chain":["e30="]}`))
	f.Fuzz(func(t *testing.T, kept []byte) {
		if checkProof(kept, checked.keys, digest) != nil {
			return
		}
		var found proof
		must.NoError(t, json.Unmarshal(kept, &found))
		if !bytes.Equal(found.Signed, signed.Signed) {
			t.Fatalf("%q was never signed", found.Signed)
		}
	})
}
