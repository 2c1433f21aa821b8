// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/image/cache"
)

// pull brings one image into the cache.
type pull struct {
	store    *Store
	cache    *cache.Cache
	from     source
	want     wish
	request  Request
	keys     []publicKey // one of them must have signed the image; none: nobody need
	progress func(string)
}

// chosen is the one manifest that a reference leads to for a request.
type chosen struct {
	manifest v1.Manifest
	digest   v1.Hash
	key      string     // in the cache
	parents  []document // the indexes that led to it, the first one first
}

// resolve asks the source what the reference leads to.
func (p *pull) resolve(ctx context.Context) (chosen, error) {
	root, err := p.document(ctx, p.from.root)
	if err != nil {
		return chosen{}, err
	}
	var parents []document
	for range 2 { // an index of indexes is none that tools make
		if !root.isIndex() {
			return p.chosen(root, parents)
		}
		parents = append(parents, root)
		var index v1.IndexManifest
		if err := json.Unmarshal(root.data, &index); err != nil {
			return chosen{}, fmt.Errorf("its index cannot be read: %w", err)
		}
		entry, err := choosePlatform(index, p.request.Arch, p.request.Host)
		if err != nil {
			return chosen{}, err
		}
		root, err = p.document(ctx, func(ctx context.Context) (document, error) { return p.from.manifest(ctx, entry) })
		if err != nil {
			return chosen{}, err
		}
	}
	if root.isIndex() {
		return chosen{}, errors.New("is an index of indexes: name one of those by its digest")
	}
	return p.chosen(root, parents)
}

func (p *pull) document(ctx context.Context, get func(context.Context) (document, error)) (doc document, err error) {
	err = p.store.patience.retry(ctx, p.progress, func() error {
		doc, err = get(ctx)
		return err
	})
	return doc, err
}

// isIndex tells an index from a manifest, by what it says of itself where its
// media type does not.
func (d document) isIndex() bool {
	if d.mediaType.IsIndex() {
		return true
	}
	var kind struct {
		MediaType types.MediaType
		Manifests []any
	}
	return !d.mediaType.IsImage() && json.Unmarshal(d.data, &kind) == nil && (kind.MediaType.IsIndex() || kind.Manifests != nil)
}

// chosen reads a manifest and checks that an image can be made of it.
func (p *pull) chosen(doc document, parents []document) (chosen, error) {
	if doc.mediaType == types.DockerManifestSchema1 || doc.mediaType == types.DockerManifestSchema1Signed {
		return chosen{}, errors.New("is a Docker image of the first schema, which no tool makes any more: push it again")
	}
	var manifest v1.Manifest
	if err := json.Unmarshal(doc.data, &manifest); err != nil {
		return chosen{}, fmt.Errorf("its manifest cannot be read: %w", err)
	}
	if !manifest.Config.MediaType.IsConfig() || len(manifest.Layers) == 0 {
		return chosen{}, fmt.Errorf("is no image: its manifest is of another kind (%s, configuration %s)", doc.mediaType, manifest.Config.MediaType)
	}
	if len(manifest.Layers) > mostLayers {
		return chosen{}, fmt.Errorf("has %d layers, over the %d that an image may have", len(manifest.Layers), mostLayers)
	}
	key := cache.Key("1", doc.digest.String(), p.want.kernel, p.want.initrd)
	return chosen{manifest, doc.digest, key, parents}, nil
}

// fetch brings a chosen image into the cache, unless it is there. One process
// and one task at a time does so for one image; the others wait for it.
func (p *pull) fetch(ctx context.Context, image chosen) (*cache.Entry, error) {
	if entry, err := p.store.cached(p.cache, image.key); !errors.Is(err, fs.ErrNotExist) {
		return entry, err
	}
	unlock, err := p.cache.Lock(ctx, image.key, func() { p.progress("waiting for another task that is pulling " + p.from.String()) })
	if err != nil {
		return nil, err
	}
	defer unlock()
	if entry, err := p.store.cached(p.cache, image.key); !errors.Is(err, fs.ErrNotExist) {
		return entry, err
	}
	return p.download(ctx, image)
}

// cached opens an image of the cache. A damaged one is cleared, and then
// missing.
func (s *Store) cached(c *cache.Cache, key string) (*cache.Entry, error) {
	entry, err := c.Get(key)
	if !errors.Is(err, cache.ErrDamaged) {
		return entry, err
	}
	s.log.Warn("clearing an image from the cache", "key", key, "error", err)
	return nil, errors.Join(fs.ErrNotExist, err, c.Drop(key))
}

// download writes a chosen image into the cache.
func (p *pull) download(ctx context.Context, image chosen) (*cache.Entry, error) {
	held, err := p.contents(ctx, image.manifest)
	if err != nil {
		return nil, err
	}
	size, err := p.size(held.layers)
	if err != nil {
		return nil, err
	}
	if _, err := p.cache.Collect(size); err != nil {
		p.store.log.Warn("making room in the image cache", "error", err)
	}
	draft, err := p.cache.Draft(image.key)
	if err != nil {
		return nil, err
	}
	defer draft.Abort()
	if err := p.write(ctx, draft, held, size); err != nil {
		return nil, err
	}
	known, err := json.Marshal(held.known)
	if err != nil {
		return nil, err
	}
	return draft.Commit(cache.About{
		Source: p.from.String(), Digest: image.digest.String(), Image: known,
	})
}

// contents tells which files of the image boot, and what it says of them.
func (p *pull) contents(ctx context.Context, manifest v1.Manifest) (contents, error) {
	var config v1.ConfigFile
	err := p.store.patience.retry(ctx, p.progress, func() error {
		text, err := readBlob(ctx, p.from, manifest.Config)
		if err != nil {
			return err
		}
		return json.Unmarshal(text, &config)
	})
	if err != nil {
		return contents{}, fmt.Errorf("its configuration: %w", err)
	}
	held, err := readPackage(manifest, config, p.want)
	if !errors.Is(err, errNoKernel) {
		return held, err
	}
	return p.describedInside(ctx, manifest, config)
}

// describedInside reads an image whose description is a file in it.
func (p *pull) describedInside(ctx context.Context, manifest v1.Manifest, config v1.ConfigFile) (contents, error) {
	var text []byte
	find := newSearch(map[string]string{uruncJSON: uruncJSON}, func(_ string, content io.Reader) (err error) {
		text, err = io.ReadAll(io.LimitReader(content, mostDocument))
		return err
	}, func(string) { text = nil })
	if err := p.search(ctx, find, worthLooking(manifest.Layers), func(r io.Reader) io.Reader { return r }); err != nil {
		return contents{}, err
	}
	if len(find.missing()) > 0 {
		return contents{}, errNoKernel
	}
	keys, err := parseUruncJSON(text)
	if err != nil {
		return contents{}, err
	}
	manifest.Annotations = keys
	return readPackage(manifest, config, p.want)
}

// mostLooked is how much of an image is fetched to learn what it is. urunc's
// tools add their file last, in a layer of its own; without a bound a large
// container image that was named by mistake would be fetched whole.
const mostLooked = 64 * mib

// worthLooking are the upper layers, as far as mostLooked goes.
func worthLooking(layers []v1.Descriptor) []v1.Descriptor {
	var size int64
	for i := len(layers) - 1; i >= 0; i-- {
		if size += layers[i].Size; size > mostLooked || layers[i].Size < 0 {
			return layers[i+1:]
		}
	}
	return layers
}

// size adds up what is to be fetched, and refuses what the cache cannot hold.
func (p *pull) size(layers []v1.Descriptor) (int64, error) {
	limit := p.store.options.MaxSizeMiB * mib
	var size int64
	for _, layer := range layers {
		if layer.Size < 0 || layer.Size > limit-size {
			return 0, fmt.Errorf("its layers have more than the %d MiB of the image cache (the plugin's cache { max_size })", p.store.options.MaxSizeMiB)
		}
		size += layer.Size
	}
	return size, nil
}

// write fetches the layers and writes the files that boot.
func (p *pull) write(ctx context.Context, draft *cache.Draft, held contents, size int64) error {
	p.progress(fmt.Sprintf("pulling %s (%s, %s)", p.from, held.known.Platform, megabytes(size)))
	meter := &meter{total: size, step: size / 4, tell: p.progress}
	find := newSearch(held.files, func(role string, content io.Reader) error {
		return p.store.writeRole(draft, role, content)
	}, draft.Drop)
	if err := p.search(ctx, find, held.layers, meter.count); err != nil {
		return err
	}
	for _, role := range find.missing() {
		if !slices.Contains(held.optional, role) {
			return fmt.Errorf("has no file /%s for the %s in it", held.files[role], role)
		}
	}
	return nil
}

// search looks through layers from the top one down until all is found.
func (p *pull) search(ctx context.Context, find *search, layers []v1.Descriptor, meter func(io.Reader) io.Reader) error {
	for i := len(layers) - 1; i >= 0 && !find.done(); i-- {
		err := p.store.patience.retry(ctx, p.progress, func() error {
			return find.layer(ctx, p.from, layers[i], meter)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// writeRole writes one of an image's files into the cache. Kernels are
// unpacked, so that all tasks share the unpacked one; whether an initrd is
// depends on who boots it.
func (s *Store) writeRole(draft *cache.Draft, role string, content io.Reader) error {
	if role == kernelRole {
		plain, err := unpacked(content)
		if err != nil {
			return err
		}
		defer plain.Close()
		content = plain
	}
	return draft.Write(role, &bounded{content, s.maxFile(), s.errTooLarge()})
}

// meter tells how far a download is, at each step.
type meter struct {
	total, step, read, told int64
	tell                    func(string)
}

// quietUnder is a download too small to speak of its progress.
const quietUnder = 8 * mib

func (m *meter) count(content io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		n, err := content.Read(p)
		m.read += int64(n)
		if m.total >= quietUnder && m.read-m.told >= m.step && m.read < m.total {
			m.told = m.read
			m.tell(fmt.Sprintf("pulled %s of %s", megabytes(m.read), megabytes(m.total)))
		}
		return n, err
	})
}

type readerFunc func([]byte) (int, error)

// Read calls the function.
func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func megabytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/mib) }
