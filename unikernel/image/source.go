// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// source is where a package comes from: a registry, or an OCI layout on disk.
// What it hands out is checked against the digests by the caller.
type source interface {
	// String names the source for people.
	String() string
	// root is what the reference names: an index or a manifest.
	root(context.Context) (document, error)
	// manifest is an index or manifest that another one names.
	manifest(context.Context, v1.Descriptor) (document, error)
	// blob is a configuration or layer.
	blob(context.Context, v1.Descriptor) (io.ReadCloser, error)
	// signatures are the manifests, if any, that hold signatures of another.
	signatures(context.Context, v1.Hash) ([]document, error)
}

// document is an index or a manifest.
type document struct {
	data      []byte
	mediaType types.MediaType
	digest    v1.Hash
}

// newDocument takes a document as read, and its media type from where it was
// named or from itself.
func newDocument(data []byte, mediaType types.MediaType) (document, error) {
	digest, _, err := v1.SHA256(bytes.NewReader(data))
	return document{data, mediaType, digest}, err
}

// Bounds on what a source may send. Real indexes and configurations have some
// tens of KiB; a list of a kernel's options makes a configuration of some
// hundreds.
const (
	mostDocument = 4 * mib
	mostLayers   = 128
)

var (
	errDigest = errors.New("the content does not have the digest that names it")
	errSize   = errors.New("the content is larger than its manifest says")
)

// verified reads content and fails where it is not what a descriptor says. Its
// end is io.EOF only if all of it was right.
type verified struct {
	io.Reader
	want v1.Descriptor
	hash hash.Hash
	read int64
}

func verify(content io.Reader, want v1.Descriptor) (*verified, error) {
	digester, err := v1.Hasher(want.Digest.Algorithm)
	if err != nil {
		return nil, fmt.Errorf("digest %s: %w", want.Digest, err)
	}
	return &verified{Reader: content, want: want, hash: digester}, nil
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.Reader.Read(p)
	v.hash.Write(p[:n])
	v.read += int64(n)
	switch {
	case v.read > v.want.Size:
		return 0, fmt.Errorf("%s: %w (%d bytes)", v.want.Digest, errSize, v.want.Size)
	case err == nil || !errors.Is(err, io.EOF):
		return n, err
	case v.read < v.want.Size:
		return n, fmt.Errorf("%s: %d of %d bytes: %w", v.want.Digest, v.read, v.want.Size, io.ErrUnexpectedEOF)
	}
	if got := hex.EncodeToString(v.hash.Sum(nil)); got != v.want.Digest.Hex {
		return n, fmt.Errorf("%s: %w: it is %s:%s", v.want.Digest, errDigest, v.want.Digest.Algorithm, got)
	}
	return n, io.EOF
}

// drain reads what is left, so that all is verified.
func (v *verified) drain() error {
	_, err := io.Copy(io.Discard, v)
	return err
}

// readBlob reads a small blob whole.
func readBlob(ctx context.Context, from source, want v1.Descriptor) ([]byte, error) {
	if want.Size > mostDocument {
		return nil, fmt.Errorf("%s is said to have %d bytes, over the %d that a configuration may have", want.Digest, want.Size, mostDocument)
	}
	content, err := from.blob(ctx, want)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	checked, err := verify(content, want)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(checked)
}
