// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package look

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// maxArchive bounds what Docker may hand out for one image.
const maxArchive = 8 << 30

// fromDocker gets an image from Docker's daemon (Engine API, GET
// /images/{name}/get: the archive of `docker save`). fs.ErrNotExist tells that
// there is no daemon or that it has no such image. The library's own daemon
// package would bring Docker's whole client for this one request.
func (l *Looker) fromDocker(ctx context.Context, ref string) (v1.Image, func(), error) {
	socket := l.DockerSocket
	if socket == "" {
		socket = dockerSocket()
	}
	if _, err := os.Stat(socket); err != nil {
		return nil, nil, fs.ErrNotExist
	}
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}}
	get := func(path string) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/images/"+path, nil)
		if err != nil {
			return nil, err
		}
		return client.Do(req)
	}
	name := (&url.URL{Path: ref}).EscapedPath()
	resp, err := get(name + "/json")
	if err != nil {
		return nil, nil, fs.ErrNotExist
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, nil, fs.ErrNotExist
	}
	if resp, err = get(name + "/get"); err != nil {
		return nil, nil, fmt.Errorf("get %s from Docker: %w", ref, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("get %s from Docker: %s", ref, resp.Status)
	}
	return saved(resp.Body, ref)
}

// saved keeps an archive in a file, for as long as the image is looked into.
func saved(body io.Reader, ref string) (v1.Image, func(), error) {
	file, err := os.CreateTemp("", "nomad-hybrid-image-*.tar")
	if err != nil {
		return nil, nil, err
	}
	done := func() { os.Remove(file.Name()) }
	n, err := io.Copy(file, io.LimitReader(body, maxArchive+1))
	if err = errors.Join(err, file.Close()); err == nil && n > maxArchive {
		err = fmt.Errorf("larger than %d GiB", maxArchive>>30)
	}
	var image v1.Image
	if err == nil {
		image, err = tarball.ImageFromPath(file.Name(), nil)
	}
	if err != nil {
		done()
		return nil, nil, fmt.Errorf("get %s from Docker: %w", ref, err)
	}
	return image, done, nil
}

// dockerSocket is where Docker's own client looks, if that is a socket.
func dockerSocket() string {
	if path, ok := strings.CutPrefix(os.Getenv("DOCKER_HOST"), "unix://"); ok {
		return path
	}
	if os.Getenv("DOCKER_HOST") != "" {
		return os.DevNull + "/none" // a daemon elsewhere: not asked
	}
	return "/var/run/docker.sock"
}
