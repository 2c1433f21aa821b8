// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/image/cache"
)

// openRegistry opens an image from the cache or a registry, as the pull
// policy says.
func (s *Store) openRegistry(ctx context.Context, request Request, want wish, progress func(string)) (*Image, error) {
	sources, err := s.registries(want.name)
	if err != nil {
		return nil, err
	}
	keys, err := s.keysFor(repositoryName(sources[len(sources)-1].reference))
	if err != nil {
		return nil, err
	}
	stored, err := s.openCache()
	if err != nil {
		return nil, err
	}
	origin := sources[len(sources)-1]
	remembered := strings.Join([]string{origin.String(), string(request.Arch), string(request.Host), want.kernel, want.initrd}, " ")
	policy := s.policy(request.Pull, origin.reference, want.name)
	if policy != PullAlways {
		image, err := s.fromCache(stored, remembered, keys)
		if !errors.Is(err, fs.ErrNotExist) {
			return image, err
		}
		if signed := (refusal{}); policy == PullNever && errors.As(err, &signed) {
			return nil, signed
		}
	}
	if policy == PullNever {
		return nil, errors.New("is not in the cache, and no registry is asked (pull = \"never\", or the plugin's offline = true)")
	}
	for i, from := range sources {
		p := &pull{s, stored, from, want, request, keys, progress}
		image, err := p.image(ctx, remembered)
		if err == nil {
			return image, nil
		}
		if signed := (refusal{}); ctx.Err() != nil || i == len(sources)-1 || errors.As(err, &signed) {
			return nil, hintCopy(explain(err), stored, remembered)
		}
		progress(fmt.Sprintf("mirror %s: %s", from, err))
	}
	return nil, errors.New("has no registry") // not reached: there is always the origin
}

// hintCopy adds to an error that an older copy would do.
func hintCopy(err error, stored *cache.Cache, remembered string) error {
	older, none := stored.Resolved(remembered)
	if none != nil || !Temporary(err) {
		return err
	}
	return fmt.Errorf("%w (what it led to on %s is in the cache: pull = \"missing\" uses that)", err, older.Resolved.Format(time.DateTime))
}

// policy decides when a registry is asked.
func (s *Store) policy(asked Pull, reference name.Reference, written string) Pull {
	if s.options.Offline {
		return PullNever
	}
	if _, byDigest := reference.(name.Digest); byDigest && asked == PullAlways {
		return PullMissing // a digest never leads elsewhere
	}
	if asked != PullAuto {
		return asked
	}
	if reference.Identifier() == "latest" {
		return PullAlways
	}
	return PullMissing
}

// image resolves, fetches and opens.
func (p *pull) image(ctx context.Context, remembered string) (*Image, error) {
	found, err := p.resolve(ctx)
	if err != nil {
		return nil, err
	}
	known, _ := p.cache.Resolved(remembered) // none is as good as an old one
	proof, err := p.prove(ctx, found, p.keys, known.Proof)
	if err != nil {
		return nil, err
	}
	entry, err := p.fetch(ctx, found)
	if err != nil {
		return nil, err
	}
	if remembered != "" {
		if err := p.cache.Resolve(remembered, found.key, proof); err != nil {
			p.store.log.Warn("remembering what a reference leads to", "reference", remembered, "error", err)
		}
	}
	if removed, err := p.cache.Collect(0); err != nil || len(removed) > 0 {
		p.store.log.Debug("image cache", "removed", len(removed), "error", err)
	}
	return imageOf(entry, p.from.String()+"@"+found.digest.String())
}

// fromCache opens what a reference led to when it was last asked for. What is
// there without a signature that counts now is as good as missing.
func (s *Store) fromCache(stored *cache.Cache, remembered string, keys []publicKey) (*Image, error) {
	reference, err := stored.Resolved(remembered)
	if err != nil {
		return nil, err
	}
	entry, err := s.cached(stored, reference.Key)
	if err != nil {
		return nil, err
	}
	digest, err := v1.NewHash(entry.Digest)
	if err == nil {
		err = checkProof(reference.Proof, keys, digest)
	}
	if err != nil {
		return nil, errors.Join(fs.ErrNotExist, refusal{fmt.Errorf("in the cache: %w", err)}, entry.Close())
	}
	return imageOf(entry, entry.Source+"@"+entry.Digest)
}

// imageOf makes an image of what the cache has.
func imageOf(entry *cache.Entry, source string) (*Image, error) {
	defer entry.Close()
	var known packaged
	if err := json.Unmarshal(entry.Image, &known); err != nil {
		return nil, fmt.Errorf("what the cache says of it: %w", err)
	}
	image := &Image{
		Kernel: entry.Take(kernelRole), Initrd: entry.Take(initrdRole), Block: entry.Take(blockRole),
		Source: source,
	}
	known.apply(image)
	return image, nil
}

// openLayoutImage opens an image from an OCI layout on disk. It goes through
// the cache like others, so that tasks share its files; the layout is looked
// at each time.
func (s *Store) openLayoutImage(ctx context.Context, request Request, want wish, progress func(string)) (*Image, error) {
	keys, err := s.keysFor(layoutName(want.name))
	if err != nil {
		return nil, err
	}
	from, err := s.openLayout(request, want.name)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	stored, err := s.openCache()
	if err != nil {
		return nil, err
	}
	p := &pull{s, stored, from, want, request, keys, progress}
	return p.image(ctx, "")
}

// openCache opens the cache when it is first needed.
func (s *Store) openCache() (*cache.Cache, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stored == nil {
		stored, err := cache.Open(s.options.CacheDir, s.options.MaxSizeMiB)
		if err != nil {
			return nil, err
		}
		s.stored = stored
	}
	return s.stored, nil
}
