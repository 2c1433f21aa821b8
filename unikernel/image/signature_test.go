// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	ocilayout "github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/shoenig/test/must"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/dsse"
	"github.com/sigstore/sigstore/pkg/signature/payload"
)

// signer signs as cosign does.
type signer struct {
	testing.TB
	signature.Signer
	public string // PEM
}

func newSigner(t testing.TB) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must.NoError(t, err)
	return signerOf(t, key)
}

func signerOf(t testing.TB, key crypto.Signer) signer {
	t.Helper()
	made, err := signature.LoadSigner(key, crypto.SHA256)
	must.NoError(t, err)
	public, err := cryptoutils.MarshalPublicKeyToPEM(key.Public())
	must.NoError(t, err)
	return signer{t, made, string(public)}
}

// signed is what a signature of a digest proves.
func (s signer) signed(digest v1.Hash) proof {
	s.Helper()
	reference, err := name.NewDigest("registry.example/any@" + digest.String())
	must.NoError(s, err)
	text, err := payload.Cosign{Image: reference}.MarshalJSON()
	must.NoError(s, err)
	signed, err := s.SignMessage(bytes.NewReader(text))
	must.NoError(s, err)
	return proof{Signature: signed, Signed: text}
}

// simple is a manifest with a signature of a digest; edit may falsify what was
// signed.
func (s signer) simple(digest v1.Hash, edit func([]byte) []byte) v1.Image {
	s.Helper()
	made := s.signed(digest)
	if edit != nil {
		made.Signed = edit(made.Signed)
	}
	return imageWith(s, v1.ConfigFile{}, mutate.Addendum{
		Layer:       static.NewLayer(made.Signed, simpleSigning),
		MediaType:   simpleSigning,
		Annotations: map[string]string{simpleSignature: base64.StdEncoding.EncodeToString(made.Signature)},
	})
}

// bundle is a manifest with a bundle about a digest, that refers to it.
func (s signer) bundle(subject v1.Descriptor, predicate string) v1.Image {
	s.Helper()
	statement, err := json.Marshal(map[string]any{
		"_type": "https://in-toto.io/Statement/v1", "predicateType": predicate,
		"subject": []any{map[string]any{"digest": map[string]string{"sha256": subject.Digest.Hex}}},
	})
	must.NoError(s, err)
	envelope, err := dsse.WrapSigner(s.Signer, inTotoStatement).SignMessage(bytes.NewReader(statement))
	must.NoError(s, err)
	const kind = sigstoreBundle + ".v0.3+json"
	text, err := json.Marshal(map[string]any{"mediaType": kind, "dsseEnvelope": json.RawMessage(envelope)})
	must.NoError(s, err)
	image := imageWith(s, v1.ConfigFile{}, mutate.Addendum{Layer: static.NewLayer(text, kind), MediaType: kind})
	return mutate.Subject(mutate.ConfigMediaType(image, kind), subject).(v1.Image)
}

// attach puts a signature where cosign looks for it.
func (h *hub) attach(repository string, of v1.Hash, signature v1.Image) {
	h.Helper()
	must.NoError(h, remote.Write(h.reference(repository+":"+signatureTag(of)), signature))
}

func digestOf(t testing.TB, what partial.Describable) v1.Hash {
	t.Helper()
	digest, err := what.Digest()
	must.NoError(t, err)
	return digest
}

func TestVerify(t *testing.T) {
	right, wrong := newSigner(t), newSigner(t)
	ofRSA, err := rsa.GenerateKey(rand.Reader, 2048)
	must.NoError(t, err)
	_, ofEd25519, err := ed25519.GenerateKey(rand.Reader)
	must.NoError(t, err)
	rsaSigner, edSigner := signerOf(t, ofRSA), signerOf(t, ofEd25519)
	other := digestOf(t, kraftkit(t, "qemu", "arm64", append(arm, 1), nil))
	tampered := func(text []byte) []byte {
		return bytes.Replace(text, []byte(`"optional":null`), []byte(`"optional":{}`), 1)
	}

	for _, c := range []struct {
		name string
		key  signer
		sign func(h *hub, image v1.Image, index v1.ImageIndex)
		says string // empty: it runs
	}{
		{"index signed", right, func(h *hub, _ v1.Image, index v1.ImageIndex) {
			h.attach("a", digestOf(t, index), right.simple(digestOf(t, index), nil))
		}, ""},
		{"image signed", right, func(h *hub, image v1.Image, _ v1.ImageIndex) {
			h.attach("a", digestOf(t, image), right.simple(digestOf(t, image), nil))
		}, ""},
		{"RSA", rsaSigner, func(h *hub, _ v1.Image, index v1.ImageIndex) {
			h.attach("a", digestOf(t, index), rsaSigner.simple(digestOf(t, index), nil))
		}, ""},
		{"Ed25519", edSigner, func(h *hub, _ v1.Image, index v1.ImageIndex) {
			h.attach("a", digestOf(t, index), edSigner.simple(digestOf(t, index), nil))
		}, ""},
		{"bundle among referrers", right, func(h *hub, _ v1.Image, index v1.ImageIndex) {
			must.NoError(t, remote.Write(h.reference("a:bundle"), right.bundle(subjectOf(t, index), cosignSigned)))
		}, ""},
		{"a wrong one before the right one", right, func(h *hub, image v1.Image, index v1.ImageIndex) {
			h.attach("a", digestOf(t, index), wrong.simple(digestOf(t, index), nil))
			h.attach("a", digestOf(t, image), right.simple(digestOf(t, image), nil))
		}, ""},

		{"no signature", right, func(*hub, v1.Image, v1.ImageIndex) {}, "has no signature"},
		{"wrong key", right, func(h *hub, _ v1.Image, index v1.ImageIndex) {
			h.attach("a", digestOf(t, index), wrong.simple(digestOf(t, index), nil))
		}, "by none of the keys"},
		{"signature of another image", right, func(h *hub, _ v1.Image, index v1.ImageIndex) {
			h.attach("a", digestOf(t, index), right.simple(other, nil))
		}, "for another image (" + other.String()},
		{"tampered payload", right, func(h *hub, _ v1.Image, index v1.ImageIndex) {
			h.attach("a", digestOf(t, index), right.simple(digestOf(t, index), tampered))
		}, "by none of the keys"},
		{"bundle by a wrong key", right, func(h *hub, _ v1.Image, index v1.ImageIndex) {
			must.NoError(t, remote.Write(h.reference("a:bundle"), wrong.bundle(subjectOf(t, index), cosignSigned)))
		}, "by none of the keys"},
		{"bundle of another statement", right, func(h *hub, _ v1.Image, index v1.ImageIndex) {
			must.NoError(t, remote.Write(h.reference("a:bundle"), right.bundle(subjectOf(t, index), "https://slsa.dev/provenance/v1")))
		}, "https://slsa.dev/provenance/v1"},
		{"registry fails when asked for signatures", right, func(h *hub, _ v1.Image, index v1.ImageIndex) {
			h.answer(func(w http.ResponseWriter, r *http.Request) bool {
				fails := strings.Contains(r.URL.Path, ".sig")
				if fails {
					w.WriteHeader(http.StatusInternalServerError)
				}
				return fails
			})
		}, "look for its signature"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHub(t)
			image := kraftkit(t, "qemu", "arm64", arm, nil)
			index := indexOf(t, image, kraftkit(t, "qemu", "x86_64", x86, nil))
			reference := h.push("a:1", index)
			s := newSite(t, Options{Verify: []Rule{{Image: h.host + "/*", Keys: []string{c.key.public}}}})
			s.request.Image = reference
			c.sign(h, image, index)
			if c.says == "" {
				must.Eq(t, arm, content(t, s.open(s.request).Kernel))
				return
			}
			must.StrContains(t, s.refused(s.request), c.says)
			must.SliceEmpty(t, cached(t, s))
			s.nothingLeft()
		})
	}
}

func subjectOf(t testing.TB, what partial.Describable) v1.Descriptor {
	t.Helper()
	size, err := what.Size()
	must.NoError(t, err)
	kind, err := what.MediaType()
	must.NoError(t, err)
	return v1.Descriptor{Digest: digestOf(t, what), Size: size, MediaType: kind}
}

func cached(t *testing.T, s site) []os.DirEntry {
	t.Helper()
	images, err := os.ReadDir(filepath.Join(s.root, "cache", "images"))
	must.NoError(t, err)
	return images
}

// What is in the cache is verified again, without the registry, by the rules
// of the day.
func TestVerify_Cache(t *testing.T) {
	h, right, wrong := newHub(t), newSigner(t), newSigner(t)
	index := indexOf(t, kraftkit(t, "qemu", "arm64", arm, nil))
	reference := h.push("a:1", index)
	dir := t.TempDir()
	with := func(offline bool, rules ...Rule) site {
		s := newSite(t, Options{CacheDir: dir, Offline: offline, Verify: rules})
		s.request.Image = reference
		return s
	}
	rule := func(key signer) Rule { return Rule{Image: "**", Keys: []string{key.public}} }

	with(false).open(with(false).request) // before there were rules
	unsigned := with(true, rule(right))
	must.StrContains(t, unsigned.refused(unsigned.request), "in the cache: has no signature")

	h.attach("a", digestOf(t, index), right.simple(digestOf(t, index), nil))
	h.blobs.Store(0)
	signed := with(false, rule(right))
	signed.open(signed.request)
	must.Eq(t, 1, h.blobs.Load(), must.Sprint("the signature, and nothing of the image again"))

	offline := with(true, rule(right))
	h.all.Store(0)
	offline.open(offline.request)
	must.Eq(t, 0, h.all.Load())

	// A key that was taken away counts no more.
	changed := with(true, rule(wrong))
	must.StrContains(t, changed.refused(changed.request), "by none of the keys")
	changed = with(false, rule(wrong))
	must.StrContains(t, changed.refused(changed.request), "by none of the keys")
}

// What no rule fits is refused, and files are no way around the rules.
func TestVerify_Rules(t *testing.T) {
	h, key := newHub(t), newSigner(t)
	image := h.push("acme/steps:1", kraftkit(t, "qemu", "arm64", arm, nil))
	s := newSite(t, Options{Verify: []Rule{
		{Image: "**/acme/signed", Keys: []string{key.public}},
		{Image: "**/acme/*", Unsigned: true},
		{Image: "local/*", Unsigned: true},
		{Image: "alloc/*", Keys: []string{key.public}},
	}})
	s.put("task/local/k", arm, 0o644)
	s.put("task/secrets/k", arm, 0o644)
	s.put("alloc/k", arm, 0o644)
	for reference, says := range map[string]string{
		image:                         "",
		h.host + "/other/steps:1":     "no verify rule",
		h.host + "/acme/deeper/steps": "no verify rule",
		"local/k":                     "",
		"local/../secrets/k":          "no verify rule",
		"./local/k":                   "",
		"secrets/k":                   "no verify rule",
		"alloc/k":                     "a file carries no signature",
		"oci-layout:local/layout":     "no verify rule",
		s.root + "/images/k":          "no verify rule",
	} {
		s.request.Image = reference
		if says == "" {
			s.open(s.request)
			continue
		}
		must.StrContains(t, s.refused(s.request), says, must.Sprint(reference))
	}
	s.request.Image, s.request.Initrd = image, "secrets/k"
	must.StrContains(t, s.refused(s.request), "initrd")
	s.request.Initrd = "local/k"
	s.open(s.request)
}

// A layout brings its signatures under cosign's tag.
func TestVerify_Layout(t *testing.T) {
	key := newSigner(t)
	s := newSite(t, Options{Verify: []Rule{{Image: "oci-layout:local/**", Keys: []string{key.public}}}})
	image := kraftkit(t, "qemu", "arm64", arm, nil)
	made, err := ocilayout.Write(filepath.Join(s.root, "task/local/steps"), mutate.IndexMediaType(empty.Index, types.OCIImageIndex))
	must.NoError(t, err)
	must.NoError(t, made.AppendImage(image))
	s.request.Image = "oci-layout:local/steps"
	must.StrContains(t, s.refused(s.request), "has no signature")
	must.NoError(t, made.AppendImage(key.simple(digestOf(t, image), nil), ocilayout.WithAnnotations(map[string]string{
		refNameAnnotation: signatureTag(digestOf(t, image)),
	})))
	must.Eq(t, arm, content(t, s.open(s.request).Kernel))
}

func TestVerify_BadRules(t *testing.T) {
	key := newSigner(t)
	noise := filepath.Join(t.TempDir(), "noise")
	must.NoError(t, os.WriteFile(noise, []byte("noise"), 0o600))
	for says, rule := range map[string]Rule{
		"image: none given":            {Keys: []string{key.public}},
		"keys: none given":             {Image: "**"},
		"give one of the two":          {Image: "**", Keys: []string{key.public}, Unsigned: true},
		"write an absolute path":       {Image: "**", Keys: []string{"cosign.pub"}},
		"no such file":                 {Image: "**", Keys: []string{"/absent/cosign.pub"}},
		noise + " is no public key":    {Image: "**", Keys: []string{noise}},
		"configuration is no public k": {Image: "**", Keys: []string{"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"}},
	} {
		_, err := NewStore(Options{Verify: []Rule{rule}})
		must.ErrorContains(t, err, says)
	}
}
