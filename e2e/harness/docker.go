// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package harness

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/build"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
	"github.com/vishvananda/netlink"
)

// Docker is the daemon that the containers run on: the machine's own where one
// runs, else one that the harness starts and stops.
type Docker struct {
	Host   string         // endpoint, such as unix:///run/docker.sock
	Client *client.Client `json:"-"`

	Daemon  *Process  // nil: the machine's own
	Scratch string    // folder of its sockets
	HadLink bool      // docker0 was there before, or goes with a namespace
	Left    Footprint // what it leaves when it ends
	Images  []string  // tags to remove from the machine's own daemon
}

// StartDocker finds or starts a Docker daemon. What its own daemon stores, it
// stores under dir, to be quick the next time.
func StartDocker(ctx context.Context, dir string) (*Docker, error) {
	if d, err := dialDocker(ctx, os.Getenv(client.EnvOverrideHost)); err == nil {
		return d, nil
	}
	return startDockerIn(ctx, "", dir, false)
}

// startDockerIn starts a daemon in the network namespace at a path; empty: in
// our own. It changes the firewall there where it may.
func startDockerIn(ctx context.Context, namespace, dir string, firewall bool) (*Docker, error) {
	dockerd, err := exec.LookPath("dockerd")
	if err != nil {
		return nil, fmt.Errorf("no Docker daemon answers and none is installed, run `make deps`: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	// Paths of sockets may have 107 bytes at most: not in a deep folder.
	scratch, err := os.MkdirTemp("", "ndu-docker-")
	if err != nil {
		return nil, err
	}
	d := &Docker{Scratch: scratch, Host: "unix://" + filepath.Join(scratch, "docker.sock"), HadLink: namespace != "" || hasLink("docker0"), Left: lookFor(dockerFootprint)}
	argv := []string{
		dockerd,
		"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(scratch, "exec"),
		"--pidfile", filepath.Join(scratch, "pid"), "--host", d.Host,
	}
	if !firewall {
		// Published ports are served by Docker's proxies, and the machine's own
		// rules stay as they are.
		argv = append(argv, "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--ip-forward=false")
	}
	d.Daemon, err = spawnIn(namespace, filepath.Join(dir, "dockerd.log"), daemonEnv(scratch, dir), argv...)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(scratch))
	}
	if err := d.await(ctx); err != nil {
		return nil, errors.Join(err, d.Stop(ctx))
	}
	return d, nil
}

// dialDocker connects to a daemon that runs already.
func dialDocker(ctx context.Context, host string) (*Docker, error) {
	if host == "" {
		host = client.DefaultDockerHost
	}
	c, err := client.NewClientWithOpts(client.WithHost(host), client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, fmt.Errorf("Docker endpoint %q: %w", host, err)
	}
	if _, err := c.Ping(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &Docker{Host: host, Client: c}, nil
}

// reconnect makes the client that a file cannot keep.
func (d *Docker) reconnect() error {
	var err error
	d.Client, err = client.NewClientWithOpts(client.WithHost(d.Host), client.WithAPIVersionNegotiation())
	return err
}

func (d *Docker) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return retry(ctx, 100*time.Millisecond, func() error {
		if !d.Daemon.alive() {
			cancel()
			return fmt.Errorf("dockerd ended at once; its log %s ends in:\n%s", d.Daemon.Log, d.Daemon.tail())
		}
		dialed, err := dialDocker(ctx, d.Host)
		if err == nil {
			d.Client = dialed.Client
		}
		return err
	})
}

// Build makes an image from files: names in the build context, Dockerfile
// among them, and where each lies.
func (d *Docker) Build(ctx context.Context, tag string, files map[string]string) error {
	archive, err := archiveOf(files)
	if err != nil {
		return fmt.Errorf("reading the files of image %s: %w", tag, err)
	}
	answer, err := d.Client.ImageBuild(ctx, archive, build.ImageBuildOptions{
		Tags: []string{tag}, Version: build.BuilderV1, Remove: true, ForceRemove: true,
	})
	if err != nil {
		return fmt.Errorf("building image %s: %w", tag, err)
	}
	defer func() { _ = answer.Body.Close() }()
	if err := buildError(answer.Body); err != nil {
		return fmt.Errorf("building image %s: %w", tag, err)
	}
	d.Images = append(d.Images, tag)
	return nil
}

func archiveOf(files map[string]string) (io.Reader, error) {
	var out bytes.Buffer
	archive := tar.NewWriter(&out)
	for name, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(data))}); err != nil {
			return nil, err
		}
		if _, err := archive.Write(data); err != nil {
			return nil, err
		}
	}
	return &out, archive.Close()
}

// buildError reads a build's messages to their end, which awaits it.
func buildError(messages io.Reader) error {
	for decoder := json.NewDecoder(messages); ; {
		var message struct{ Error string }
		if err := decoder.Decode(&message); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if message.Error != "" {
			return errors.New(message.Error)
		}
	}
}

// ImageSize is the size of an image in bytes.
func (d *Docker) ImageSize(ctx context.Context, tag string) (int64, error) {
	info, err := d.Client.ImageInspect(ctx, tag)
	if err != nil {
		return 0, fmt.Errorf("looking at image %s: %w", tag, err)
	}
	return info.Size, nil
}

// Stop takes back what StartDocker and Build did: an own daemon ends, and with
// it its bridge and sockets; from the machine's own daemon the images go.
func (d *Docker) Stop(ctx context.Context) error {
	if d.Daemon == nil {
		return errors.Join(d.removeImages(ctx), d.Client.Close())
	}
	var errs []error
	if d.Client != nil {
		errs = append(errs, d.Client.Close())
	}
	errs = append(errs, d.Daemon.end(ctx, syscall.SIGTERM), unmountUnder(d.Scratch)) // it keeps the namespace of containers that had the host's
	if !d.HadLink {
		errs = append(errs, removeLink("docker0"))
	}
	return errors.Join(append(errs, d.Left.erase(), os.RemoveAll(d.Scratch))...)
}

func (d *Docker) removeImages(ctx context.Context) error {
	var errs []error
	for _, tag := range d.Images {
		_, err := d.Client.ImageRemove(ctx, tag, image.RemoveOptions{})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// siteEnv is a variable by which a daemon and the processes that it starts are
// known to be of a site: its value is the daemon's folder.
const siteEnv = "UNIKERNEL_SITE="

// daemonEnv is the environment of the daemons that the harness starts: nothing
// of the caller's, such as proxies or cloud credentials, changes what they do.
func daemonEnv(tmp, dir string) []string {
	return []string{
		siteEnv + dir + "/",
		"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin",
		"HOME=" + os.Getenv("HOME"),
		"TMPDIR=" + tmp,
	}
}

func hasLink(name string) bool {
	_, err := netlink.LinkByName(name)
	return err == nil
}

func removeLink(name string) error {
	link, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return err
	}
	return netlink.LinkDel(link)
}
