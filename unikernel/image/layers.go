// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// search looks for files in an image's layers, from the top one down: the
// first one found counts, unless a layer above removed it. Nothing is written
// under the names in a layer, so none can climb out of anywhere.
type search struct {
	wanted map[string]string // by role: the path, as cleanInside makes it
	take   func(role string, content io.Reader) error
	drop   func(role string) // what take took, when its layer turns out wrong
	budget int64             // bytes that layers may still unpack to

	found   map[string]bool // by role
	removed []string        // paths that lower layers have no say on
}

// mostUnpacked bounds what all layers of an image may unpack to.
const mostUnpacked = 8 << 30

func newSearch(wanted map[string]string, take func(string, io.Reader) error, drop func(string)) *search {
	return &search{wanted: wanted, take: take, drop: drop, budget: mostUnpacked, found: map[string]bool{}}
}

// done tells whether lower layers can add nothing.
func (s *search) done() bool {
	for role, name := range s.wanted {
		if !s.found[role] && !s.isRemoved(name) {
			return false
		}
	}
	return true
}

// missing lists the roles that were not found.
func (s *search) missing() []string {
	var roles []string
	for _, role := range slices.Sorted(maps.Keys(s.wanted)) {
		if !s.found[role] {
			roles = append(roles, role)
		}
	}
	return roles
}

// layer looks through one layer. A layer that fails leaves no trace, so it can
// be tried again.
func (s *search) layer(ctx context.Context, from source, want v1.Descriptor, meter func(io.Reader) io.Reader) error {
	content, err := from.blob(ctx, want)
	if err != nil {
		return err
	}
	defer content.Close()
	checked, err := verify(meter(content), want)
	if err != nil {
		return err
	}
	found, removed, err := s.scan(checked)
	if err == nil {
		err = checked.drain()
	}
	if err != nil {
		for role := range found {
			s.drop(role)
		}
		return fmt.Errorf("layer %s: %w", want.Digest, err)
	}
	maps.Copy(s.found, found)
	s.removed = append(s.removed, removed...)
	return nil
}

// scan reads a layer's tar archive.
func (s *search) scan(layer io.Reader) (found map[string]bool, removed []string, err error) {
	found = map[string]bool{}
	plain, err := unpacked(layer)
	if err != nil {
		return found, nil, err
	}
	defer plain.Close()
	bounded := &io.LimitedReader{R: plain, N: s.budget}
	archive := tar.NewReader(bounded)
	for range mostTarEntries {
		header, err := archive.Next()
		if bounded.N <= 0 {
			return found, nil, errors.New("unpacks to more than an image may have")
		}
		if errors.Is(err, io.EOF) {
			s.budget = bounded.N
			return found, removed, nil
		}
		if err != nil {
			return found, nil, fmt.Errorf("its tar archive: %w", damaged(err))
		}
		gone, err := s.entry(header, archive, found)
		if err != nil {
			return found, nil, err
		}
		if gone != "" {
			removed = append(removed, gone)
		}
	}
	return found, nil, fmt.Errorf("has over %d entries", mostTarEntries)
}

// Whiteouts, from OCI's image-spec, layer.md.
const (
	whiteout       = ".wh."
	opaqueWhiteout = ".wh..wh..opq"
)

// entry looks at one entry. It returns the path that it removes from lower
// layers, if it does.
func (s *search) entry(header *tar.Header, content io.Reader, found map[string]bool) (string, error) {
	name, ok := insidePath(header.Name)
	if !ok {
		return "", fmt.Errorf("has an entry %q that climbs out of the image: refused", header.Name)
	}
	dir, base := path.Split(name)
	if base == opaqueWhiteout {
		return s.ifWanted(path.Clean(dir)), nil
	}
	if hidden, ok := strings.CutPrefix(base, whiteout); ok {
		return s.ifWanted(path.Join(dir, hidden)), nil
	}
	for role, wanted := range s.wanted {
		if wanted != name || s.found[role] || s.isRemoved(name) {
			continue
		}
		if err := bootFile(header); err != nil {
			return "", err
		}
		found[role] = true
		if err := s.take(role, content); err != nil {
			return "", fmt.Errorf("/%s: %w", name, damaged(err))
		}
		break
	}
	return "", nil
}

// bootFile refuses an entry that has the wanted name and is no file.
func bootFile(header *tar.Header) error {
	switch header.Typeflag {
	case tar.TypeReg:
		return nil
	case tar.TypeSymlink, tar.TypeLink:
		return fmt.Errorf("/%s is a link to %q: name that file instead", path.Clean(header.Name), header.Linkname)
	case tar.TypeDir:
		return fmt.Errorf("/%s is a folder: name the file in it", path.Clean(header.Name))
	}
	return fmt.Errorf("/%s is not a regular file", path.Clean(header.Name))
}

// ifWanted returns a removed path if it matters: a layer can remove more of
// them than there is memory.
func (s *search) ifWanted(removed string) string {
	for _, name := range s.wanted {
		if within(name, removed) {
			return removed
		}
	}
	return ""
}

// within tells whether a path is another one, or under it.
func within(name, folder string) bool {
	return name == folder || folder == "." || strings.HasPrefix(name, folder+"/")
}

// isRemoved tells whether a layer above removed a path, or a folder it is in.
func (s *search) isRemoved(name string) bool {
	return slices.ContainsFunc(s.removed, func(removed string) bool {
		return within(name, removed)
	})
}

// unpacked undoes a stream's compression, which its own start tells: media
// types are often wrong. Closing it leaves the stream open.
func unpacked(stream io.Reader) (io.ReadCloser, error) {
	buffered := bufio.NewReader(stream)
	head, err := buffered.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	for _, unpack := range unpackers {
		if bytes.HasPrefix(head, unpack.magic) {
			plain, err := unpack.open(buffered)
			if err != nil {
				return nil, fmt.Errorf("unpack %s: %w", unpack.name, damaged(err))
			}
			return plain, nil
		}
	}
	return io.NopCloser(buffered), nil
}
