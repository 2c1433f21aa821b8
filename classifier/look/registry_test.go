// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package look

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/shoenig/test/must"
)

// TestCredentials: a registry is asked with what `docker login` has stored, and
// where that does not do the error says so.
func TestCredentials(t *testing.T) {
	const user, password = "edge", "of the site"
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="site"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	ref, err := name.ParseReference(host + "/a:1")
	must.NoError(t, err)
	img := pack(t, v1.Config{Entrypoint: []string{"/app"}}, file{"/app", staticELF(t)})
	must.NoError(t, remote.Write(ref, img, remote.WithAuth(&authn.Basic{Username: user, Password: password})))

	login := func(user, password string) string {
		both := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
		return fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, host, both)
	}
	tests := []struct{ name, config, image, want string }{
		{"right", login(user, password), "a:1", ""},
		{"right, but no such image", login(user, password), "b:1", "neither in Docker nor in its registry"},
		{"wrong", login(user, "guessed"), "a:1", host + " refuses the name and password stored for it, or has no such image; `docker login " + host + "` stores others"},
		{"none", `{}`, "a:1", host + " asks for a name and password, or has no such image; `docker login " + host + "` stores them"},
		{"unreadable", `{"auths": [`, "a:1", "the credentials for " + host + " cannot be read"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			t.Setenv("DOCKER_CONFIG", dir)
			must.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(tc.config), 0o600))
			_, err := (&Looker{DockerSocket: "/nonexistent"}).Container(context.Background(), host+"/"+tc.image)
			if tc.want == "" {
				must.NoError(t, err)
				return
			}
			must.ErrorContains(t, err, tc.want)
		})
	}
}

// TestNoAnswer: a registry that is away is told from one that lacks an image.
func TestNoAnswer(t *testing.T) {
	server := httptest.NewServer(nil)
	server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	l := &Looker{DockerSocket: "/nonexistent"}
	_, err := l.Container(context.Background(), host+"/a:1")
	must.ErrorContains(t, err, "not in Docker, and "+host+" gives no answer")
	_, err = l.Unikernel(context.Background(), host+"/a:1")
	must.Error(t, err, must.Sprint("not known to be missing"))
}
