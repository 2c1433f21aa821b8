// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// layout is an OCI image layout on disk (image-spec, image-layout.md): a
// folder, or a tar file of one.
type layout struct {
	path  string
	tag   string
	files layoutFiles
}

// layoutFiles opens a layout's files by their names in it.
type layoutFiles interface {
	open(name string) (io.ReadCloser, error)
	Close() error
}

// The annotations that name an index's entries: OCI's, and containerd's.
const (
	refNameAnnotation    = "org.opencontainers.image.ref.name"
	containerdAnnotation = "io.containerd.image.name"
)

// openLayout opens oci-layout:PATH[:TAG], under the same rules as other paths.
func (s *Store) openLayout(request Request, reference string) (*layout, error) {
	name, tag := splitLayout(reference)
	where, err := request.place(name)
	if err != nil {
		return nil, err
	}
	files, err := s.openLayoutFiles(where)
	if err != nil {
		return nil, err
	}
	return &layout{name, tag, files}, nil
}

func (s *Store) openLayoutFiles(where place) (layoutFiles, error) {
	root, err := os.OpenRoot(where.root)
	if err != nil {
		return nil, fmt.Errorf("open its folder: %w", err)
	}
	defer root.Close()
	if folder, err := root.OpenRoot(where.name); err == nil {
		return layoutFolder{folder}, nil
	}
	file, err := where.open(os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	settled, err := s.settle(file, "oci-layout", where.name)
	if err != nil {
		file.Close()
		return nil, err
	}
	tarred, err := indexTar(settled)
	if err != nil {
		settled.Close()
		return nil, err
	}
	return tarred, nil
}

// Close closes the layout's files.
func (l *layout) Close() error { return l.files.Close() }

func (l *layout) String() string { return layoutPrefix + l.path }

// root finds the one image that the layout holds, or the one of the tag.
func (l *layout) root(ctx context.Context) (document, error) {
	data, err := l.read("index.json")
	if errors.Is(err, fs.ErrNotExist) {
		return document{}, errors.New("is not an OCI layout, it has no index.json: write one by skopeo copy … oci:PATH, or docker buildx build -o type=oci")
	}
	if err != nil {
		return document{}, err
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(data, &index); err != nil {
		return document{}, fmt.Errorf("index.json: %w", err)
	}
	chosen, err := l.choose(index.Manifests)
	if err != nil {
		return document{}, err
	}
	if len(chosen) == 1 {
		return l.manifest(ctx, chosen[0])
	}
	// One image for several platforms, without an index of its own.
	index.Manifests = chosen
	if data, err = json.Marshal(index); err != nil {
		return document{}, err
	}
	return newDocument(data, types.OCIImageIndex)
}

// choose finds the entries that the tag names.
func (l *layout) choose(all []v1.Descriptor) ([]v1.Descriptor, error) {
	var chosen []v1.Descriptor
	var names []string
	for _, entry := range all {
		if l.tag == "" && isSignatureTag(entryName(entry)) {
			continue
		}
		if name := entryName(entry); !slices.Contains(names, name) {
			names = append(names, name)
		}
		if l.tag == "" || namedAs(entry, l.tag) {
			chosen = append(chosen, entry)
		}
	}
	switch {
	case len(chosen) == 0 && l.tag != "":
		return nil, fmt.Errorf("holds no image tagged %q; it has %q", l.tag, names)
	case len(chosen) == 0:
		return nil, errors.New("holds no image")
	case l.tag == "" && len(names) > 1:
		return nil, fmt.Errorf("holds several images: write one of %q behind a colon", names)
	}
	return chosen, nil
}

func entryName(entry v1.Descriptor) string {
	if name := entry.Annotations[refNameAnnotation]; name != "" {
		return name
	}
	return entry.Annotations[containerdAnnotation]
}

// namedAs tells whether an entry has a tag, alone or behind a full name.
func namedAs(entry v1.Descriptor, tag string) bool {
	for _, key := range []string{refNameAnnotation, containerdAnnotation} {
		name := entry.Annotations[key]
		if name == tag || strings.HasSuffix(name, ":"+tag) {
			return true
		}
	}
	return false
}

func (l *layout) manifest(_ context.Context, want v1.Descriptor) (document, error) {
	data, err := l.read(blobName(want))
	if err != nil {
		return document{}, fmt.Errorf("manifest %s: %w", want.Digest, err)
	}
	doc, err := newDocument(data, want.MediaType)
	if err == nil && doc.digest != want.Digest {
		err = fmt.Errorf("manifest %s: %w: it is %s", want.Digest, errDigest, doc.digest)
	}
	return doc, err
}

// signatures are in an entry that is named as cosign's tag.
func (l *layout) signatures(ctx context.Context, of v1.Hash) ([]document, error) {
	data, err := l.read("index.json")
	if err != nil {
		return nil, err
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	for _, entry := range index.Manifests {
		if namedAs(entry, signatureTag(of)) {
			doc, err := l.manifest(ctx, entry)
			return []document{doc}, err
		}
	}
	return nil, nil
}

func (l *layout) blob(_ context.Context, want v1.Descriptor) (io.ReadCloser, error) {
	return l.files.open(blobName(want))
}

func blobName(want v1.Descriptor) string {
	return path.Join("blobs", want.Digest.Algorithm, want.Digest.Hex)
}

// read reads one of the layout's documents.
func (l *layout) read(name string) ([]byte, error) {
	file, err := l.files.open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, mostDocument+1))
	if err == nil && len(data) > mostDocument {
		err = fmt.Errorf("%s has over %d bytes", name, mostDocument)
	}
	return data, err
}

// layoutFolder is a layout as a folder, which its files may not leave.
type layoutFolder struct{ folder *os.Root }

func (l layoutFolder) open(name string) (io.ReadCloser, error) {
	info, err := l.folder.Stat(name)
	if err != nil {
		return nil, err
	}
	if err := regular(info); err != nil {
		return nil, fmt.Errorf("%s %w", name, err)
	}
	return l.folder.Open(name)
}

func (l layoutFolder) Close() error { return l.folder.Close() }

// layoutTar is a layout in a tar file: where each of its files lies.
type layoutTar struct {
	file  *os.File
	parts map[string]*io.SectionReader
}

// mostTarEntries bounds how many entries of an archive are looked at.
const mostTarEntries = 1 << 20

func indexTar(file *os.File) (*layoutTar, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	whole := io.NewSectionReader(file, 0, info.Size())
	archive := tar.NewReader(whole)
	found := &layoutTar{file, map[string]*io.SectionReader{}}
	for range mostTarEntries {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, fmt.Errorf("is neither a folder nor a tar file of an OCI layout: %w", err)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		// The reader stands where the entry's content begins.
		at, err := whole.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		found.parts[path.Clean(header.Name)] = io.NewSectionReader(file, at, header.Size)
	}
	return nil, fmt.Errorf("has over %d entries", mostTarEntries)
}

func (l *layoutTar) open(name string) (io.ReadCloser, error) {
	part, ok := l.parts[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return io.NopCloser(io.NewSectionReader(part, 0, part.Size())), nil
}

func (l *layoutTar) Close() error { return l.file.Close() }
