// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package look

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier"
)

// Bounds on what one image may cost.
const (
	maxUnpacked = 32 << 30  // bytes of all files
	maxProgram  = 512 << 20 // bytes of an entry point
	maxNames    = 4000      // libraries and packages told
)

// readContainer reads an image's configuration and all its file names.
func readContainer(ctx context.Context, image v1.Image) (*classifier.ContainerImage, error) {
	config, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read its configuration: %w", err)
	}
	layers, err := image.Layers()
	if err != nil {
		return nil, fmt.Errorf("read its layers: %w", err)
	}
	c := config.Config
	facts := &classifier.ContainerImage{
		Layers: len(layers), Entry: slices.Concat(c.Entrypoint, c.Cmd),
		User: c.User, Signal: c.StopSignal,
	}
	for port := range c.ExposedPorts {
		facts.Ports = append(facts.Ports, port)
	}
	slices.Sort(facts.Ports)
	s := newScan(c)
	if err := s.files(ctx, image); err != nil {
		return nil, fmt.Errorf("read its files: %w", err)
	}
	if err := s.programs(ctx, image); err != nil {
		return nil, fmt.Errorf("read its entry point: %w", err)
	}
	s.tell(facts)
	return facts, nil
}

// scan is what is seen while the files go by.
type scan struct {
	argv      []string // what runs, without wrappers
	search    []string // folders of PATH
	bytes     int64
	names     map[string]bool // libraries and packages
	seen      map[string]bool // absolute paths of executables
	links     map[string]string
	managers  []string
	shell     string
	packages  string
	program   program // of argv[0]
	throughSh bool    // a shell script starts it
}

func newScan(c v1.Config) *scan {
	s := &scan{names: map[string]bool{}, seen: map[string]bool{}, links: map[string]string{}}
	s.argv = slices.Concat(c.Entrypoint, c.Cmd)
	s.argv, s.managers = unwrapArgv(s.argv)
	s.search = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}
	for _, e := range c.Env {
		if value, ok := strings.CutPrefix(e, "PATH="); ok {
			s.search = strings.Split(value, ":")
		}
	}
	if len(s.argv) > 0 && !path.IsAbs(s.argv[0]) && strings.Contains(s.argv[0], "/") {
		s.argv[0] = path.Join("/", c.WorkingDir, s.argv[0])
	}
	return s
}

// walk goes through the files of an image as a container would see them.
func walk(ctx context.Context, image v1.Image, visit func(*tar.Header, io.Reader) error) error {
	body := mutate.Extract(image)
	defer body.Close()
	for r := tar.NewReader(body); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := visit(h, r); err != nil {
			return err
		}
	}
}

func (s *scan) files(ctx context.Context, image v1.Image) error {
	return walk(ctx, image, func(h *tar.Header, _ io.Reader) error {
		p := path.Clean("/" + h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			if s.bytes += h.Size; s.bytes > maxUnpacked {
				return fmt.Errorf("more than %d GiB", maxUnpacked>>30)
			}
			if h.Mode&0o111 != 0 {
				s.seen[p] = true
			}
		case tar.TypeSymlink:
			target := h.Linkname
			if !path.IsAbs(target) {
				target = path.Join(path.Dir(p), target)
			}
			s.links[p] = path.Clean(target)
		case tar.TypeLink:
			s.links[p] = path.Clean("/" + h.Linkname)
		default:
			return nil
		}
		s.note(p)
		return nil
	})
}

var (
	shells   = []string{"bash", "sh", "ash", "dash", "zsh", "busybox"}
	managers = []string{"supervisord", "s6-svscan", "runsvdir", "systemd", "monit"}
	packager = []string{"apk", "apt-get", "dnf", "yum", "microdnf", "zypper", "pacman", "opkg"}
)

// note takes down what a path tells.
func (s *scan) note(p string) {
	base := path.Base(p)
	if isBin(p) {
		if i := slices.Index(shells, base); i >= 0 && (s.shell == "" || i < slices.Index(shells, s.shell)) {
			s.shell = base
		}
		if slices.Contains(packager, base) {
			s.packages = base
		}
	}
	if len(s.names) < maxNames {
		if name := libraryName(p); name != "" {
			s.names[name] = true
		}
	}
}

func isBin(p string) bool {
	dir := path.Base(path.Dir(p))
	return dir == "bin" || dir == "sbin"
}

// libraryName tells a library or package from a path: lib….so, a Python
// distribution, a Node.js or Ruby package, the JVM. Lower case, no version.
func libraryName(p string) string {
	base := strings.ToLower(path.Base(p))
	if name, _, ok := strings.Cut(base, ".so"); ok && strings.HasPrefix(name, "lib") {
		return name
	}
	parts := strings.Split(strings.ToLower(p), "/")
	for i, part := range parts[:len(parts)-1] {
		next := parts[i+1]
		switch {
		case part == "site-packages" || part == "dist-packages":
			if dist, _, ok := strings.Cut(next, "-"); ok && (strings.HasSuffix(next, ".dist-info") || strings.HasSuffix(next, ".egg-info")) {
				return dist
			}
			return ""
		case part == "node_modules" && i+2 < len(parts) && next != ".bin":
			return next
		case part == "gems" && i+2 < len(parts):
			gem, _, _ := strings.Cut(next, "-")
			return gem
		}
	}
	return ""
}

// resolve follows symbolic links to a file.
func (s *scan) resolve(p string) string {
	for range 40 {
		if target, ok := s.links[p]; ok {
			p = target
			continue
		}
		moved := false
		for dir := path.Dir(p); dir != "/"; dir = path.Dir(dir) {
			if target, ok := s.links[dir]; ok {
				p, moved = path.Join(target, strings.TrimPrefix(p, dir)), true
				break
			}
		}
		if !moved {
			return p
		}
	}
	return p
}

// lookPath finds a program as the container's own PATH would.
func (s *scan) lookPath(name string) string {
	if path.IsAbs(name) {
		return s.resolve(name)
	}
	for _, dir := range s.search {
		if p := s.resolve(path.Join("/", dir, name)); s.seen[p] {
			return p
		}
	}
	return ""
}

// programs reads what runs. A script that starts the rest of its arguments,
// as many images have, is followed to what it starts.
func (s *scan) programs(ctx context.Context, image v1.Image) error {
	for len(s.argv) > 0 {
		p := s.lookPath(s.argv[0])
		if p == "" {
			return nil
		}
		prog, err := s.readProgram(ctx, image, p)
		if err != nil {
			return err
		}
		s.program = prog
		if prog.kind != "shell" || !prog.script || len(s.argv) < 2 || strings.HasPrefix(s.argv[1], "-") {
			return nil
		}
		s.throughSh = true
		s.argv = s.argv[1:]
		if s.lookPath(s.argv[0]) == "" {
			return nil // an argument of the script's own
		}
	}
	return nil
}

// errFound ends a walk.
var errFound = errors.New("found")

func (s *scan) readProgram(ctx context.Context, image v1.Image, want string) (program, error) {
	var prog program
	err := walk(ctx, image, func(h *tar.Header, r io.Reader) error {
		if h.Typeflag != tar.TypeReg || path.Clean("/"+h.Name) != want {
			return nil
		}
		content, err := io.ReadAll(io.LimitReader(r, maxProgram))
		if err != nil {
			return err
		}
		prog = identify(want, content, s.argv)
		return errFound
	})
	if err != nil && !errors.Is(err, errFound) {
		return program{}, err
	}
	return prog, nil
}

func (s *scan) tell(facts *classifier.ContainerImage) {
	facts.SizeMiB = float64(s.bytes) / (1 << 20)
	for name := range s.names {
		facts.Libraries = append(facts.Libraries, name)
	}
	slices.Sort(facts.Libraries)
	facts.Shell, facts.Packages = s.shell, s.packages
	facts.Processes, facts.Forks = s.managers, s.program.forks
	facts.Runtime = s.program.kind
}
