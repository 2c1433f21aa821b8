// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// Options are a store's settings. The zero value works.
type Options struct {
	CacheDir   string // empty: DefaultCacheDir; made when first needed
	MaxSizeMiB int64  // the cache is kept under this; 0: 2048
	MaxFileMiB int64  // the largest kernel or initrd, uncompressed; 0: 512

	Offline            bool     // never ask a registry
	InsecureRegistries []string // hosts (host or host:port) that may be asked without TLS
	AuthFile           string   // a docker config.json; empty: where docker looks

	Logger hclog.Logger // nil: silent
}

const (
	defaultMaxSizeMiB = 2048
	defaultMaxFileMiB = 512
	mib               = 1 << 20

	tmpDir = "tmp" // in the cache: what is being written
)

// DefaultCacheDir is the cache's folder where none is set: the system's for
// root, else the user's own.
func DefaultCacheDir() string {
	const name = "nomad-driver-unikernel"
	if os.Geteuid() == 0 {
		return filepath.Join("/var/cache", name)
	}
	if dir, err := os.UserCacheDir(); err == nil {
		return filepath.Join(dir, name)
	}
	return filepath.Join(os.TempDir(), name)
}

// Store opens images.
type Store struct {
	options Options
	log     hclog.Logger
}

// NewStore checks the options and makes a store. It touches no disk.
func NewStore(options Options) (*Store, error) {
	if options.MaxSizeMiB < 0 || options.MaxFileMiB < 0 {
		return nil, fmt.Errorf("image store: sizes of %d and %d MiB: none may be negative", options.MaxSizeMiB, options.MaxFileMiB)
	}
	if options.CacheDir == "" {
		options.CacheDir = DefaultCacheDir()
	}
	if !filepath.IsAbs(options.CacheDir) {
		return nil, fmt.Errorf("cache dir %q: must be an absolute path", options.CacheDir)
	}
	if options.MaxSizeMiB == 0 {
		options.MaxSizeMiB = defaultMaxSizeMiB
	}
	if options.MaxFileMiB == 0 {
		options.MaxFileMiB = defaultMaxFileMiB
	}
	if options.Logger == nil {
		options.Logger = hclog.NewNullLogger()
	}
	return &Store{options: options, log: options.Logger.Named("image")}, nil
}

// Open resolves a request to an image whose files are open and were checked.
// The caller closes it. progress, if given, is told of long steps in words
// for people.
func (s *Store) Open(ctx context.Context, request Request, progress func(string)) (*Image, error) {
	if request.Image == "" {
		return nil, fmt.Errorf("image: none given: name a path such as local/kernel, or an OCI reference")
	}
	if progress == nil {
		progress = func(string) {}
	}
	image, err := s.open(ctx, request, progress)
	if err != nil {
		return nil, err
	}
	if err := s.complete(image, request); err != nil {
		image.Close()
		return nil, err
	}
	return image, nil
}

// open finds the image's files and what the reference tells of them.
func (s *Store) open(ctx context.Context, request Request, _ func(string)) (*Image, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	switch kindOf(request.Image) {
	case pathReference:
		kernel, err := s.openFile(request, "image", request.Image)
		if err != nil {
			return nil, err
		}
		return &Image{Kernel: kernel, Source: request.Image}, nil
	default:
		return nil, fmt.Errorf("image %q: OCI references are not supported yet", request.Image)
	}
}

// complete replaces the initrd where the job names one, looks into the
// kernel, and checks that all agree.
func (s *Store) complete(image *Image, request Request) error {
	kernel, err := s.settle(image.Kernel, "image", request.Image)
	if err != nil {
		return err
	}
	image.Kernel = kernel
	if err := image.know(request); err != nil {
		return fmt.Errorf("image %q: %w", image.Source, err)
	}
	return s.completeInitrd(image, request)
}

func (s *Store) completeInitrd(image *Image, request Request) error {
	if request.Initrd != "" {
		initrd, err := s.openFile(request, "initrd", request.Initrd)
		if err != nil {
			return err
		}
		if image.Initrd != nil {
			image.Initrd.Close()
		}
		image.Initrd = initrd
	}
	if image.Initrd == nil {
		return nil
	}
	// Linux unpacks its initrd itself, and compressed it takes less guest RAM.
	settle := s.settle
	if image.Family == guest.Linux {
		settle = s.readable
	}
	initrd, err := settle(image.Initrd, "initrd", request.Initrd)
	if err != nil {
		return err
	}
	image.Initrd = initrd
	return nil
}

// know looks into the kernel and joins what it tells with what the reference
// and the job say.
func (i *Image) know(request Request) error {
	info, err := i.Kernel.Stat()
	if err != nil {
		return err
	}
	facts, err := Detect(i.Kernel, info.Size())
	if err != nil {
		return err
	}
	if err := facts.agree(request, i.Arch); err != nil {
		return err
	}
	i.Arch, i.Format, i.Devices = facts.Arch, facts.Format, facts.Devices
	i.Family = firstOf(request.Family, i.Family, facts.Family)
	i.Release = firstOf(request.Release, i.Release, facts.Release)
	if i.Features == nil {
		i.Features = facts.Features
	}
	return nil
}

// firstOf returns the first value that was told.
func firstOf[T ~string](values ...T) T {
	for _, value := range values {
		if value != "" {
			return value
		}
	}
	return ""
}
