// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/hashicorp/go-hclog"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/image/cache"
)

// Options are a store's settings. The zero value works.
type Options struct {
	CacheDir   string // empty: DefaultCacheDir; made when first needed
	MaxSizeMiB int64  // the cache is kept under this; 0: 2048
	MaxFileMiB int64  // the largest kernel or initrd, uncompressed; 0: 512

	Offline            bool     // never ask a registry
	InsecureRegistries []string // hosts (host or host:port) that may be asked without TLS
	AuthFile           string   // a docker config.json; empty: where docker looks

	// Mirrors are hosts to ask before a registry, by the registry's host.
	Mirrors map[string][]string

	// Verify says which images must be signed, and by whom. Empty: none need.
	Verify []Rule

	Logger hclog.Logger // nil: silent
}

const (
	defaultMaxSizeMiB = cache.DefaultMaxMiB
	defaultMaxFileMiB = 512
	mib               = 1 << 20
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
	options   Options
	log       hclog.Logger
	transport http.RoundTripper
	patience  patience
	rules     []rule

	mu     sync.Mutex
	stored *cache.Cache // nil until it is needed
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
		return nil, fmt.Errorf("cache: dir %q: must be an absolute path", options.CacheDir)
	}
	for _, mirrors := range options.Mirrors {
		for _, host := range mirrors {
			if _, err := name.NewRegistry(host, name.StrictValidation); err != nil || !strings.ContainsAny(host, ".:") {
				return nil, fmt.Errorf("cache: mirror %q: write a host with its domain or port, such as mirror.example:5000", host)
			}
		}
	}
	rules, err := newRules(options.Verify)
	if err != nil {
		return nil, err
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
	return &Store{
		options: options, log: options.Logger.Named("image"),
		transport: newTransport(options), patience: usualPatience, rules: rules,
	}, nil
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
func (s *Store) open(ctx context.Context, request Request, progress func(string)) (*Image, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	kind := kindOf(request.Image)
	if kind == pathReference {
		return s.openKernel(request)
	}
	want, err := wishOf(request)
	if err != nil {
		return nil, err
	}
	open := s.openRegistry
	if kind == layoutReference {
		open = s.openLayoutImage
	}
	image, err := open(ctx, request, want, progress)
	if err != nil {
		return nil, fmt.Errorf("image %q: %w", request.Image, err)
	}
	return image, nil
}

// openKernel opens a kernel that is a file of its own.
func (s *Store) openKernel(request Request) (*Image, error) {
	if strings.HasPrefix(request.Initrd, inImage) {
		return nil, fmt.Errorf("initrd %q: image %q is a file and has no others in it: name a path", request.Initrd, request.Image)
	}
	kernel, err := s.openFile(request, "image", request.Image)
	if err != nil {
		return nil, err
	}
	return &Image{Kernel: kernel, Source: request.Image}, nil
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
	if request.Initrd != "" && !strings.HasPrefix(request.Initrd, inImage) {
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
	initrd, err := settle(image.Initrd, "initrd", cmp.Or(request.Initrd, image.Source))
	if err != nil {
		return err
	}
	image.Initrd = initrd
	return nil
}

// know looks into the kernel, checks that it agrees with what the reference and
// the job say, and joins the three.
func (i *Image) know(request Request) error {
	facts, err := i.look()
	if err != nil {
		return err
	}
	if err := facts.agree(request, i.Arch); err != nil {
		return err
	}
	i.learn(facts, request)
	return nil
}

func (i *Image) look() (Facts, error) {
	info, err := i.Kernel.Stat()
	if err != nil {
		return Facts{}, err
	}
	return Detect(i.Kernel, info.Size())
}

func (i *Image) learn(facts Facts, request Request) {
	i.Arch, i.Format, i.Devices, i.GICs = facts.Arch, facts.Format, facts.Devices, facts.GICs
	i.Family = cmp.Or(request.Family, facts.better(i.Family))
	i.Release = cmp.Or(request.Release, facts.Release, i.Release)
	if i.Features == nil {
		i.Features = facts.Features
	}
}
