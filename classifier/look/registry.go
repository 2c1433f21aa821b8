// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package look

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// fromRegistry gets an image from its registry, with Docker's credentials.
func (l *Looker) fromRegistry(ctx context.Context, ref name.Reference) (*found, error) {
	options := append([]remote.Option{
		remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain),
	}, l.Options...)
	desc, err := remote.Get(ref, options...)
	if err != nil {
		return nil, explain(ref, err)
	}
	if desc.MediaType.IsIndex() {
		index, err := desc.ImageIndex()
		return &found{index: index, close: func() {}}, err
	}
	image, err := desc.Image()
	return &found{image: image, close: func() {}}, err
}

// explain says what to do about a registry that does not hand out an image.
func explain(ref name.Reference, err error) error {
	host, login := ref.Context().RegistryStr(), "docker login "+ref.Context().RegistryStr()
	if host == name.DefaultRegistry {
		host, login = "Docker Hub", "docker login"
	}
	login = "`" + login + "`"
	credentials, unreadable := authn.DefaultKeychain.Resolve(ref.Context())
	var answer *transport.Error
	switch {
	case unreadable != nil:
		return fmt.Errorf("not in Docker, and the credentials for %s cannot be read; %s writes them: %w", host, login, unreadable)
	case !errors.As(err, &answer):
		return fmt.Errorf("not in Docker, and %s gives no answer: %w", host, err)
	case answer.StatusCode == http.StatusNotFound:
		return fmt.Errorf("neither in Docker nor in its registry: %w", err)
	case answer.StatusCode != http.StatusUnauthorized && answer.StatusCode != http.StatusForbidden:
		return fmt.Errorf("not in Docker, and %s fails: %w", host, err)
	case credentials == authn.Anonymous:
		return fmt.Errorf("not in Docker, and %s asks for a name and password, or has no such image; %s stores them", host, login)
	}
	return fmt.Errorf("not in Docker, and %s refuses the name and password stored for it, or has no such image; %s stores others", host, login)
}
