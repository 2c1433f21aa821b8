// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"crypto"
	"errors"
	"fmt"
	"os"
	"path"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

// Rule says what the images of some names need to run. Where a store has
// rules, the first one whose pattern fits an image counts, and an image that
// none fits is refused. The rules hold for every file that a job names by a
// path, too, its initrd included.
type Rule struct {
	// Image is a pattern of names: HOST/REPOSITORY of a registry, without tag
	// or digest (docker.io/library/NAME for Docker Hub's own);
	// oci-layout:PATH; or a file's path. "*" stands for anything but a slash,
	// "**" for anything.
	Image string
	// Keys are public keys, in PEM or as absolute paths of PEM files. One of
	// them must have signed the image, as cosign signs.
	Keys []string
	// Unsigned says that these images need no signature.
	Unsigned bool
}

// rule is a Rule that was checked.
type rule struct {
	pattern string
	names   *regexp.Regexp
	keys    []publicKey // none: no signature is needed
}

// publicKey verifies signatures.
type publicKey struct {
	name string // for people
	signature.Verifier
}

var errNoRule = errors.New("no verify rule of the plugin's configuration fits it, so it may not run here: ask the operator for one")

func newRules(rules []Rule) ([]rule, error) {
	var checked []rule
	for _, r := range rules {
		one, err := r.check()
		if err != nil {
			return nil, fmt.Errorf("verify %q: %w", r.Image, err)
		}
		checked = append(checked, one)
	}
	return checked, nil
}

func (r Rule) check() (rule, error) {
	switch {
	case r.Image == "":
		return rule{}, errors.New(`image: none given: name the images that the rule is for, such as registry.example/acme/** or **`)
	case r.Unsigned && len(r.Keys) > 0:
		return rule{}, errors.New("keys and unsigned = true: give one of the two")
	case !r.Unsigned && len(r.Keys) == 0:
		return rule{}, errors.New("keys: none given: name public keys, or say unsigned = true")
	}
	checked := rule{pattern: r.Image, names: globPattern(r.Image)}
	for _, key := range r.Keys {
		loaded, err := loadKey(key)
		if err != nil {
			return rule{}, err
		}
		checked.keys = append(checked.keys, loaded)
	}
	return checked, nil
}

// globPattern makes a regular expression of a pattern of names.
func globPattern(glob string) *regexp.Regexp {
	quoted := regexp.QuoteMeta(glob)
	quoted = strings.ReplaceAll(quoted, `\*\*`, `.*`)
	quoted = strings.ReplaceAll(quoted, `\*`, `[^/]*`)
	return regexp.MustCompile(`(?s)\A` + quoted + `\z`)
}

func loadKey(key string) (publicKey, error) {
	text, shown := []byte(key), "the key in the configuration"
	if !strings.HasPrefix(strings.TrimSpace(key), "-----BEGIN") {
		if !path.IsAbs(key) {
			return publicKey{}, fmt.Errorf("key %q: write an absolute path, or the key itself in PEM", key)
		}
		read, err := os.ReadFile(key)
		if err != nil {
			return publicKey{}, fmt.Errorf("key: %w", err)
		}
		text, shown = read, key
	}
	public, err := cryptoutils.UnmarshalPEMToPublicKey(text)
	if err != nil {
		return publicKey{}, fmt.Errorf("%s is no public key in PEM, such as cosign.pub: %w", shown, err)
	}
	verifier, err := signature.LoadVerifier(public, crypto.SHA256)
	if err != nil {
		return publicKey{}, fmt.Errorf("%s: %w", shown, err)
	}
	return publicKey{shown, verifier}, nil
}

// keysFor tells which keys may have signed an image of a name; none: no
// signature is needed.
func (s *Store) keysFor(name string) ([]publicKey, error) {
	if len(s.rules) == 0 {
		return nil, nil
	}
	for _, rule := range s.rules {
		if rule.names.MatchString(name) {
			return rule.keys, nil
		}
	}
	return nil, fmt.Errorf("%w (its name: %s)", errNoRule, name)
}

// ruledPath checks a file that carries no signature of its own.
func (s *Store) ruledPath(path string) error {
	keys, err := s.keysFor(pathName(path))
	if err == nil && len(keys) > 0 {
		err = errors.New("a verify rule of the plugin's configuration wants it signed, and a file carries no signature: give an image from a registry")
	}
	return err
}

// pathName is a path as rules see it: without detours, and not to be taken for
// a repository.
func pathName(written string) string {
	cleaned := path.Clean(written)
	for _, prefix := range pathPrefixes {
		if strings.HasPrefix(cleaned, prefix) {
			return cleaned
		}
	}
	return "./" + cleaned
}

// layoutName is an OCI layout as rules see it.
func layoutName(reference string) string {
	path, _ := splitLayout(reference)
	return layoutPrefix + strings.TrimPrefix(pathName(path), "./")
}

// repositoryName is a repository as rules see it, wherever it is mirrored.
func repositoryName(reference name.Reference) string {
	repository := reference.Context()
	return dockerName(repository.RegistryStr()) + "/" + repository.RepositoryStr()
}
