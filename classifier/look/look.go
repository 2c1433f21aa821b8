// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Package look looks into images without running them: what a container image
// is made of, and what a unikernel image is and needs. It reads from Docker's
// daemon, from registries, from OCI layouts and from archives.
package look

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier"
)

// Looker looks into images and remembers what it saw. It is safe for use by
// several goroutines; each reference is resolved once and each image read once.
type Looker struct {
	// Timeout bounds the look at one image; 0: a minute.
	Timeout time.Duration
	// DockerSocket is asked before a registry; "": where Docker's own client
	// looks. A socket that is not there is passed over.
	DockerSocket string
	// Options are for registries; by default Docker's credentials are used.
	Options []remote.Option

	mu         sync.Mutex
	containers memory[*classifier.ContainerImage]
	unikernels memory[*classifier.UnikernelImage]
	digests    memory[*classifier.ContainerImage]
	read       int // images read, for a test
}

var _ classifier.Images = (*Looker)(nil)

// memory remembers answers, errors too. Its zero value is empty.
type memory[T any] map[string]*answer[T]

type answer[T any] struct {
	once  sync.Once
	value T
	err   error
}

// ask returns the remembered answer or asks for it, once even for many
// callers at a time.
func ask[T any](mu *sync.Mutex, m *memory[T], key string, get func() (T, error)) (T, error) {
	mu.Lock()
	if *m == nil {
		*m = memory[T]{}
	}
	a := (*m)[key]
	if a == nil {
		a = &answer[T]{}
		(*m)[key] = a
	}
	mu.Unlock()
	a.once.Do(func() { a.value, a.err = get() })
	return a.value, a.err
}

func (l *Looker) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	timeout := l.Timeout
	if timeout == 0 {
		timeout = time.Minute
	}
	return context.WithTimeout(ctx, timeout)
}

// Container looks into a container image.
func (l *Looker) Container(ctx context.Context, ref string) (*classifier.ContainerImage, error) {
	return ask(&l.mu, &l.containers, ref, func() (*classifier.ContainerImage, error) {
		ctx, cancel := l.bounded(ctx)
		defer cancel()
		found, err := l.open(ctx, ref)
		if err != nil {
			return nil, err
		}
		defer found.close()
		image, arch, err := found.container()
		if err != nil {
			return nil, err
		}
		digest, err := image.ConfigName() // the same content, however it was packed
		if err != nil {
			return nil, err
		}
		facts, err := ask(&l.mu, &l.digests, digest.String(), func() (*classifier.ContainerImage, error) {
			l.mu.Lock()
			l.read++
			l.mu.Unlock()
			return readContainer(ctx, image)
		})
		if err != nil {
			return nil, err
		}
		named := *facts
		named.Ref, named.Digest, named.Arch = ref, digest.String(), arch
		return &named, nil
	})
}

// found is an image, or an index of several.
type found struct {
	image v1.Image
	index v1.ImageIndex
	close func()
}

const layoutPrefix = "oci-layout:"

// open finds an image: in a layout, in an archive, in Docker, in a registry.
func (l *Looker) open(ctx context.Context, ref string) (*found, error) {
	if path, ok := strings.CutPrefix(ref, layoutPrefix); ok {
		return openLayout(path)
	}
	if info, err := os.Stat(ref); err == nil && info.Mode().IsRegular() {
		image, err := tarball.ImageFromPath(ref, nil)
		if err != nil {
			return nil, fmt.Errorf("%s: not an archive as of `docker save`: %w", ref, err)
		}
		return &found{image: image, close: func() {}}, nil
	}
	for _, scheme := range []string{"docker://", "https://", "http://"} {
		ref = strings.TrimPrefix(ref, scheme)
	}
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return nil, fmt.Errorf("%q is no image reference: %w", ref, err)
	}
	image, done, err := l.fromDocker(ctx, ref)
	if err == nil {
		return &found{image: image, close: done}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return l.fromRegistry(ctx, parsed)
}

// openLayout opens PATH[:TAG].
func openLayout(ref string) (*found, error) {
	path, tag := ref, ""
	if _, err := os.Stat(ref); err != nil {
		if i := strings.LastIndex(ref, ":"); i > strings.LastIndex(ref, "/") {
			path, tag = ref[:i], ref[i+1:]
		}
	}
	index, err := layout.ImageIndexFromPath(path)
	if err != nil {
		return nil, fmt.Errorf("%s: no OCI layout: %w", path, err)
	}
	if tag == "" {
		return &found{index: index, close: func() {}}, nil
	}
	tagged, err := partial.FindManifests(index, func(d v1.Descriptor) bool {
		return d.Annotations["org.opencontainers.image.ref.name"] == tag
	})
	if err != nil || len(tagged) == 0 {
		return nil, errors.Join(fmt.Errorf("%s: the layout has no tag %q", path, tag), err)
	}
	if tagged[0].MediaType.IsIndex() {
		inner, err := index.ImageIndex(tagged[0].Digest)
		return &found{index: inner, close: func() {}}, err
	}
	image, err := index.Image(tagged[0].Digest)
	return &found{image: image, close: func() {}}, err
}

// container returns the image for Linux, of the first architecture that edge
// nodes have, and the architectures there are.
func (f *found) container() (v1.Image, []string, error) {
	if f.image != nil {
		config, err := f.image.ConfigFile()
		if err != nil {
			return nil, nil, err
		}
		return f.image, []string{config.Architecture}, nil
	}
	manifest, err := f.index.IndexManifest()
	if err != nil {
		return nil, nil, err
	}
	var best *v1.Descriptor
	var arch []string
	for i, d := range manifest.Manifests {
		if d.Platform == nil {
			if d.MediaType.IsIndex() { // a layout without a tag holds one of many
				inner, err := f.index.ImageIndex(d.Digest)
				if err != nil {
					return nil, nil, err
				}
				return (&found{index: inner}).container()
			}
		} else if d.Platform.OS != "linux" {
			continue
		} else {
			arch = append(arch, d.Platform.Architecture)
		}
		if best == nil || (d.Platform != nil && d.Platform.Architecture == "arm64") {
			best = &manifest.Manifests[i]
		}
	}
	if best == nil {
		return nil, nil, errors.New("the index holds no image for linux")
	}
	image, err := f.index.Image(best.Digest)
	return image, arch, err
}
