// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package harness

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// Registry is Debian's docker-registry on loopback, which asks for a name and
// a password.
type Registry struct {
	Host     string // and port
	User     string
	Password string
	AuthFile string // a docker config.json with both
}

const registryConfig = `version: 0.1
log: { level: warn }
storage: { filesystem: { rootdirectory: %q } }
http: { addr: %q }
auth: { htpasswd: { realm: e2e, path: %q } }
`

// StartRegistry starts a registry for the site, and waits until it answers.
func (s *Site) StartRegistry(ctx context.Context) (*Registry, error) {
	program, err := s.Layout.Program("docker-registry")
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(filepath.Dir(s.State), "registry")
	r := &Registry{Host: loopback(ports[0]), User: "edge", Password: "of the site", AuthFile: filepath.Join(dir, "config.json")}
	if err := r.prepare(dir); err != nil {
		return nil, fmt.Errorf("preparing the registry's folder %s: %w", dir, err)
	}
	s.Registry, err = spawn(filepath.Join(dir, "log"), daemonEnv(os.TempDir(), dir), program, "serve", filepath.Join(dir, "config.yml"))
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.save(), r.answers(ctx, s.Registry)); err != nil {
		return nil, errors.Join(err, s.StopRegistry(ctx))
	}
	return r, nil
}

// StopRegistry ends the site's registry, if one was started.
func (s *Site) StopRegistry(ctx context.Context) error {
	if s.Registry == nil {
		return nil
	}
	if err := end(ctx, s.Registry, syscall.SIGINT); err != nil {
		return err
	}
	s.Registry = nil
	return s.save()
}

func (r *Registry) prepare(dir string) error {
	data := filepath.Join(dir, "data")
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(data, 0o755)); err != nil {
		return err
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(r.Password), bcrypt.MinCost)
	if err != nil {
		return err
	}
	users := filepath.Join(dir, "htpasswd")
	login := base64.StdEncoding.EncodeToString([]byte(r.User + ":" + r.Password))
	return errors.Join(
		os.WriteFile(users, []byte(r.User+":"+string(hash)+"\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "config.yml"), fmt.Appendf(nil, registryConfig, data, r.Host, users), 0o600),
		os.WriteFile(r.AuthFile, fmt.Appendf(nil, `{"auths": {%q: {"auth": %q}}}`, r.Host, login), 0o600),
	)
}

// answers waits until the registry asks who is there.
func (r *Registry) answers(ctx context.Context, process *Process) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return retry(ctx, 50*time.Millisecond, func() error {
		if !process.alive() {
			cancel()
			return fmt.Errorf("the registry ended at once; its log %s ends in:\n%s", process.Log, process.tail())
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.Host+"/v2/", nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		if err := res.Body.Close(); err != nil {
			return err
		}
		if res.StatusCode != http.StatusUnauthorized {
			return fmt.Errorf("the registry answers %s to whom it does not know", res.Status)
		}
		return nil
	})
}
