// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package e2e

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/shoenig/test/must"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/payload"
)

// key signs images as cosign does.
type key struct {
	signature.Signer
	public string // path of the public one
}

func newKey(t *testing.T) key {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must.NoError(t, err)
	signer, err := signature.LoadSigner(private, crypto.SHA256)
	must.NoError(t, err)
	pem, err := cryptoutils.MarshalPublicKeyToPEM(private.Public())
	must.NoError(t, err)
	path := filepath.Join(t.TempDir(), "cosign.pub")
	must.NoError(t, os.WriteFile(path, pem, 0o644))
	return key{signer, path}
}

// An image runs where its signature is right, and not before it has one.
func imagesSigned(t *testing.T, h *hub, key key) {
	ctx := limit(t, time.Minute)
	image := kraftkit(t, "qemu", "arm64", imageArgs...)
	reference := h.push("signed/steps:1", image)
	digest, err := image.Digest()
	must.NoError(t, err)
	signed, err := name.NewDigest(h.host + "/signed/steps@" + digest.String())
	must.NoError(t, err)
	text, err := payload.Cosign{Image: signed}.MarshalJSON()
	must.NoError(t, err)
	proof, err := key.SignMessage(bytes.NewReader(text))
	must.NoError(t, err)
	const kind = "application/vnd.dev.cosign.simplesigning.v1+json"
	h.push("signed/steps:"+strings.ReplaceAll(digest.String(), ":", "-")+".sig", imageOf(t, v1.ConfigFile{}, mutate.Addendum{
		Layer: static.NewLayer(text, kind), MediaType: kind,
		Annotations: map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(proof)},
	}))
	imageRuns(t, ctx, 1, imageArgs, map[string]string{"image": reference})
}
