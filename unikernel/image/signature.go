// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/sigstore/sigstore/pkg/signature/dsse"
	"github.com/sigstore/sigstore/pkg/signature/payload"
)

// cosign attaches signatures to an image in two forms, and finds them in two
// places (cosign's specs/SIGNATURE_SPEC.md and specs/BUNDLE_SPEC.md):
//
//   - simple signing: a layer is the payload that was signed, its annotation
//     the signature;
//   - a bundle: a layer is a sigstore bundle, whose DSSE envelope holds an
//     in-toto statement about the image;
//
// in the tag sha256-HEX.sig of the repository, or as referrers of the image.
const (
	simpleSigning   = "application/vnd.dev.cosign.simplesigning.v1+json"
	simpleSignature = "dev.cosignproject.cosign/signature"
	sigstoreBundle  = "application/vnd.dev.sigstore.bundle" // and a version
	inTotoStatement = "application/vnd.in-toto+json"
	cosignSigned    = "https://sigstore.dev/cosign/sign/v1"
	cosignArtifact  = "application/vnd.dev.cosign.artifact.sig.v1+json"
)

func signatureTag(of v1.Hash) string { return of.Algorithm + "-" + of.Hex + ".sig" }

var signatureTagText = regexp.MustCompile(`^sha256-[0-9a-f]{64}\.sig$`)

func isSignatureTag(name string) bool { return signatureTagText.MatchString(name) }

// holdsSignatures tells a type of artifact that is worth looking at.
func holdsSignatures(artifact string) bool {
	return artifact == cosignArtifact || artifact == simpleSigning || strings.HasPrefix(artifact, sigstoreBundle)
}

// Bounds on the signatures of an image: whoever may write to its repository
// may attach as many as he likes.
const (
	mostSigned     = 32 // manifests with signatures
	mostSignatures = 64 // in each of them
)

// proof is a signature that vouches for an image. It is kept in the cache and
// verified anew at each use, so that a key taken away counts at once, and the
// cache need not be believed.
type proof struct {
	// Signature is of Signed. Empty: Signed is a DSSE envelope with its own.
	Signature []byte `json:",omitempty"`
	Signed    []byte
	// Chain leads from what was signed to the image: indexes, each of which
	// names the next one by its digest, the last one the image.
	Chain [][]byte `json:",omitempty"`
}

var (
	errUnsigned  = errors.New("has no signature, and a verify rule of the plugin's configuration wants one (cosign sign --key … makes it)")
	errWrongKey  = errors.New("its signature is by none of the keys that the verify rule names")
	errOtherText = errors.New("its signature is for another image")
)

// vouches checks that one of the keys signed the image of a digest.
func (p proof) vouches(keys []publicKey, image v1.Hash) error {
	signed, err := p.signedDigest(keys)
	if err != nil {
		return err
	}
	for i, text := range p.Chain {
		doc, err := newDocument(text, "")
		if err != nil {
			return err
		}
		if signed != doc.digest.String() {
			return fmt.Errorf("%w (%s)", errOtherText, signed)
		}
		next := image
		if i+1 < len(p.Chain) {
			after, err := newDocument(p.Chain[i+1], "")
			if err != nil {
				return err
			}
			next = after.digest
		}
		if err := names(text, next); err != nil {
			return err
		}
		signed = next.String()
	}
	if signed != image.String() {
		return fmt.Errorf("%w (%s)", errOtherText, signed)
	}
	return nil
}

// names checks that an index names a digest.
func names(text []byte, digest v1.Hash) error {
	var index v1.IndexManifest
	if err := json.Unmarshal(text, &index); err != nil {
		return err
	}
	for _, entry := range index.Manifests {
		if entry.Digest == digest {
			return nil
		}
	}
	return fmt.Errorf("%w: the index that was signed does not name it", errOtherText)
}

// signedDigest is the digest that was signed, if one of the keys did so.
func (p proof) signedDigest(keys []publicKey) (string, error) {
	if len(p.Signature) > 0 {
		return p.simpleDigest(keys)
	}
	return p.envelopeDigest(keys)
}

func (p proof) simpleDigest(keys []publicKey) (string, error) {
	if !slices.ContainsFunc(keys, func(key publicKey) bool {
		return key.VerifySignature(bytes.NewReader(p.Signature), bytes.NewReader(p.Signed)) == nil
	}) {
		return "", errWrongKey
	}
	var signed payload.SimpleContainerImage
	if err := json.Unmarshal(p.Signed, &signed); err != nil {
		return "", fmt.Errorf("what was signed cannot be read: %w", err)
	}
	if signed.Critical.Type != payload.CosignSignatureType {
		return "", fmt.Errorf("what was signed is a %q and no %s", signed.Critical.Type, payload.CosignSignatureType)
	}
	return signed.Critical.Image.DockerManifestDigest, nil
}

func (p proof) envelopeDigest(keys []publicKey) (string, error) {
	if !slices.ContainsFunc(keys, func(key publicKey) bool {
		return dsse.WrapVerifier(key).VerifySignature(bytes.NewReader(p.Signed), nil) == nil
	}) {
		return "", errWrongKey
	}
	var envelope struct {
		PayloadType string `json:"payloadType"`
		Payload     []byte `json:"payload"`
	}
	var statement struct {
		PredicateType string `json:"predicateType"`
		Subject       []struct {
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
	}
	err := json.Unmarshal(p.Signed, &envelope)
	if err == nil {
		err = json.Unmarshal(envelope.Payload, &statement)
	}
	if err != nil {
		return "", fmt.Errorf("what was signed cannot be read: %w", err)
	}
	// The same key may sign other statements: what an image was built from
	// does not say that it may run.
	if envelope.PayloadType != inTotoStatement || statement.PredicateType != cosignSigned || len(statement.Subject) != 1 {
		return "", fmt.Errorf("what was signed is a %s about %d images and no %s about one", statement.PredicateType, len(statement.Subject), cosignSigned)
	}
	return "sha256:" + statement.Subject[0].Digest["sha256"], nil
}

// prove finds a signature that vouches for an image: of the image itself, or of
// an index that led to it. known is the proof that served the last time.
func (p *pull) prove(ctx context.Context, image chosen, keys []publicKey, known []byte) ([]byte, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	if checkProof(known, keys, image.digest) == nil {
		return known, nil
	}
	why := errUnsigned
	for at := range len(image.parents) + 1 {
		of, chain := image.digest, image.parents[at:]
		if len(chain) > 0 {
			of = chain[0].digest
		}
		found, err := p.signatures(ctx, of)
		if err != nil {
			return nil, fmt.Errorf("look for its signature: %w", err)
		}
		for _, proof := range found {
			for _, parent := range chain {
				proof.Chain = append(proof.Chain, parent.data)
			}
			if err := proof.vouches(keys, image.digest); err != nil {
				why = err
				continue
			}
			return json.Marshal(proof)
		}
	}
	return nil, refusal{why}
}

// refusal is an image that a verify rule keeps from running. No other source
// is asked for it: one that is behind could have an older signature.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// checkProof verifies a proof that was kept.
func checkProof(kept []byte, keys []publicKey, image v1.Hash) error {
	if len(keys) == 0 {
		return nil
	}
	if len(kept) == 0 {
		return errUnsigned
	}
	var p proof
	if err := json.Unmarshal(kept, &p); err != nil {
		return fmt.Errorf("the signature in the cache cannot be read: %w", err)
	}
	return p.vouches(keys, image)
}

// signatures gathers what is attached to a manifest.
func (p *pull) signatures(ctx context.Context, of v1.Hash) ([]proof, error) {
	var attached []document
	err := p.store.patience.retry(ctx, p.progress, func() (err error) {
		attached, err = p.from.signatures(ctx, of)
		return err
	})
	if err != nil {
		return nil, err
	}
	var found []proof
	for _, doc := range attached[:min(len(attached), mostSigned)] {
		var manifest v1.Manifest
		if err := json.Unmarshal(doc.data, &manifest); err != nil {
			return nil, fmt.Errorf("manifest %s: %w", doc.digest, err)
		}
		for _, layer := range manifest.Layers[:min(len(manifest.Layers), mostSignatures)] {
			one, err := p.signature(ctx, layer)
			if err != nil {
				return nil, err
			}
			if one.Signed != nil {
				found = append(found, one)
			}
		}
	}
	return found, nil
}

// signature reads a layer that holds one; an empty proof if it holds none.
func (p *pull) signature(ctx context.Context, layer v1.Descriptor) (proof, error) {
	bundled := strings.HasPrefix(string(layer.MediaType), sigstoreBundle)
	if layer.MediaType != simpleSigning && !bundled {
		return proof{}, nil
	}
	var text []byte
	err := p.store.patience.retry(ctx, p.progress, func() (err error) {
		text, err = readBlob(ctx, p.from, layer)
		return err
	})
	if err != nil {
		return proof{}, fmt.Errorf("signature %s: %w", layer.Digest, err)
	}
	if !bundled {
		signature, _ := base64.StdEncoding.DecodeString(layer.Annotations[simpleSignature]) // noise vouches for nothing
		return proof{Signature: signature, Signed: text}, nil
	}
	var bundle struct {
		Envelope json.RawMessage `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(text, &bundle); err != nil {
		return proof{}, fmt.Errorf("signature %s: %w", layer.Digest, err)
	}
	return proof{Signed: bundle.Envelope}, nil
}
