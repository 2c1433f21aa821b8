// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// registry is an image in an OCI registry.
type registry struct {
	reference name.Reference
	puller    *remote.Puller
	patience  patience
}

// registries are the sources of a reference, the first one to be asked first:
// the operator's mirrors, then the registry itself.
func (s *Store) registries(reference string) ([]*registry, error) {
	parsed, err := name.ParseReference(reference)
	if err != nil {
		return nil, fmt.Errorf("is no OCI reference (and no path: paths begin with local/, alloc/, ./ or /): %w", err)
	}
	keychain, err := s.keychain()
	if err != nil {
		return nil, err
	}
	host := parsed.Context().RegistryStr()
	var sources []*registry
	for _, host := range append(slices.Clone(s.options.Mirrors[dockerName(host)]), host) {
		there, err := s.at(parsed, host)
		if err != nil {
			return nil, err
		}
		puller, err := remote.NewPuller(
			remote.WithAuthFromKeychain(keychain), remote.WithTransport(s.transport),
			remote.WithUserAgent("nomad-driver-unikernel"),
			remote.WithRetryBackoff(remote.Backoff{Steps: 1}), // retried here, with progress
		)
		if err != nil {
			return nil, err
		}
		sources = append(sources, &registry{there, puller, s.patience})
	}
	return sources, nil
}

// dockerName is Docker Hub's name as people write it.
func dockerName(host string) string {
	if host == name.DefaultRegistry {
		return "docker.io"
	}
	return host
}

// at is a reference at another host.
func (s *Store) at(reference name.Reference, host string) (name.Reference, error) {
	var options []name.Option
	if s.options.insecure(host) {
		options = append(options, name.Insecure)
	}
	full := host + "/" + reference.Context().RepositoryStr()
	if digest, ok := reference.(name.Digest); ok {
		return name.NewDigest(full+"@"+digest.DigestStr(), options...)
	}
	return name.NewTag(full+":"+reference.Identifier(), options...)
}

func (r *registry) String() string { return r.reference.Name() }

func (r *registry) root(ctx context.Context) (document, error) {
	return r.get(ctx, r.reference)
}

func (r *registry) manifest(ctx context.Context, want v1.Descriptor) (document, error) {
	return r.get(ctx, r.reference.Context().Digest(want.Digest.String()))
}

// get fetches a document; go-containerregistry bounds its size and checks its
// digest where the reference has one.
func (r *registry) get(ctx context.Context, reference name.Reference) (document, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.patience.stall, errStalled)
	defer cancel()
	described, err := r.puller.Get(ctx, reference)
	if err != nil {
		return document{}, stalled(ctx, err)
	}
	return document{described.Manifest, described.MediaType, described.Digest}, nil
}

// stalled says so where a request ended for that reason.
func stalled(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errStalled) {
		return errStalled
	}
	return err
}

// signatures are in cosign's tag and among the referrers.
func (r *registry) signatures(ctx context.Context, of v1.Hash) ([]document, error) {
	repository := r.reference.Context()
	var found []document
	tagged, err := r.get(ctx, repository.Tag(signatureTag(of)))
	switch {
	case err == nil:
		found = append(found, tagged)
	case !isMissing(err):
		return nil, err
	}
	referring, err := r.referrers(ctx, repository.Digest(of.String()))
	if err != nil {
		return nil, err
	}
	for _, entry := range referring[:min(len(referring), mostSigned)] {
		doc, err := r.manifest(ctx, entry)
		if err != nil {
			return nil, err
		}
		found = append(found, doc)
	}
	return found, nil
}

// referrers lists the manifests that refer to another and may hold signatures;
// none where the registry knows no referrers.
func (r *registry) referrers(ctx context.Context, of name.Digest) ([]v1.Descriptor, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.patience.stall, errStalled)
	defer cancel()
	index, err := remote.Referrers(of, remote.WithContext(ctx), remote.Reuse(r.puller))
	if err != nil {
		return nil, stalled(ctx, err)
	}
	listed, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(listed.Manifests, func(entry v1.Descriptor) bool {
		return entry.ArtifactType != "" && !holdsSignatures(entry.ArtifactType)
	}), nil
}

// isMissing tells whether a registry does not have what it was asked for.
func isMissing(err error) bool {
	var answer *transport.Error
	return errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound
}

func (r *registry) blob(ctx context.Context, want v1.Descriptor) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	waiting := time.AfterFunc(r.patience.stall, func() { cancel(errStalled) })
	defer waiting.Stop()
	content, err := r.open(ctx, want)
	if err != nil {
		err = stalled(ctx, err)
		cancel(nil)
		return nil, err
	}
	return r.patience.watch(ctx, cancel, content), nil
}

func (r *registry) open(ctx context.Context, want v1.Descriptor) (io.ReadCloser, error) {
	layer, err := r.puller.Layer(ctx, r.reference.Context().Digest(want.Digest.String()))
	if err != nil {
		return nil, err
	}
	return layer.Compressed()
}

// keychain finds credentials where docker keeps them, or in the operator's file.
func (s *Store) keychain() (authn.Keychain, error) {
	if s.options.AuthFile == "" {
		return authn.DefaultKeychain, nil
	}
	file, err := os.Open(s.options.AuthFile)
	if err != nil {
		return nil, fmt.Errorf("auth_file: %w", err)
	}
	defer file.Close()
	loaded, err := config.LoadFromReader(file)
	if err != nil {
		return nil, fmt.Errorf("auth_file %q is no docker config.json: %w", s.options.AuthFile, err)
	}
	return fileKeychain{loaded}, nil
}

// fileKeychain finds credentials in a docker config.json.
type fileKeychain struct{ file *configfile.ConfigFile }

// Resolve finds the credentials for a repository, or for its registry.
func (k fileKeychain) Resolve(target authn.Resource) (authn.Authenticator, error) {
	for _, key := range []string{target.String(), target.RegistryStr()} {
		if key == name.DefaultRegistry {
			key = authn.DefaultAuthKey
		}
		found, err := k.file.GetAuthConfig(key)
		if err != nil {
			return nil, fmt.Errorf("auth_file: credentials for %s: %w", key, err)
		}
		found.ServerAddress = ""
		if found == (types.AuthConfig{}) {
			continue
		}
		return authn.FromConfig(authn.AuthConfig{
			Username: found.Username, Password: found.Password, Auth: found.Auth,
			IdentityToken: found.IdentityToken, RegistryToken: found.RegistryToken,
		}), nil
	}
	return authn.Anonymous, nil
}

var errLargeDocument = fmt.Errorf("its index or manifest has more than %d MiB", mostDocument/mib)

var errPlainHTTP = errors.New("the registry would be asked without TLS, which the operator allows by insecure_registries only")

// guarded lets only allowed hosts be asked without TLS, or with a certificate
// that nobody vouches for: also where a registry sends elsewhere.
type guarded struct {
	strict, lax http.RoundTripper
	insecure    func(host string) bool
}

// RoundTrip sends a request, and bounds what an index or manifest may have
// (go-containerregistry allows 100 MiB).
func (g guarded) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := g.send(request)
	if err == nil && (strings.Contains(request.URL.Path, "/manifests/") || strings.Contains(request.URL.Path, "/referrers/")) {
		response.Body = struct {
			io.Reader
			io.Closer
		}{&bounded{response.Body, mostDocument, errLargeDocument}, response.Body}
	}
	return response, err
}

func (g guarded) send(request *http.Request) (*http.Response, error) {
	if g.insecure(request.URL.Host) {
		return g.lax.RoundTrip(request)
	}
	if request.URL.Scheme != "https" {
		return nil, fmt.Errorf("%s: %w", request.URL.Host, errPlainHTTP)
	}
	return g.strict.RoundTrip(request)
}

func newTransport(options Options) http.RoundTripper {
	const wait = 30 * time.Second
	strict := http.DefaultTransport.(*http.Transport).Clone()
	strict.DialContext = (&net.Dialer{Timeout: wait, KeepAlive: wait}).DialContext
	strict.ResponseHeaderTimeout = wait
	lax := strict.Clone()
	lax.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // the operator's own choice
	return guarded{strict, lax, options.insecure}
}

// insecure tells whether a host may be asked without TLS. This machine itself
// always may, as with docker.
func (o Options) insecure(host string) bool {
	bare := host
	if split, _, err := net.SplitHostPort(host); err == nil {
		bare = split
	}
	if slices.Contains(o.InsecureRegistries, host) || slices.Contains(o.InsecureRegistries, bare) {
		return true
	}
	if bare == "localhost" {
		return true
	}
	ip := net.ParseIP(strings.Trim(bare, "[]"))
	return ip != nil && ip.IsLoopback()
}
