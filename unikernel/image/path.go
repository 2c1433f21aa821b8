// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// openFile opens the regular file that a job names by a path. field is the
// task option it came from, for messages.
func (s *Store) openFile(request Request, field, path string) (*os.File, error) {
	if err := s.ruledPath(path); err != nil {
		return nil, fmt.Errorf("%s %q: %w", field, path, err)
	}
	place, err := request.place(path)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", field, path, err)
	}
	file, err := place.open(os.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", field, path, err)
	}
	return file, nil
}

// place is a path under a folder that it may not leave.
type place struct {
	root string // a folder that the job may read
	name string // relative to root
}

// place finds the folder that a path is under. It only chooses the folder;
// that the path stays inside is seen to when it is opened.
func (r Request) place(path string) (place, error) {
	if !filepath.IsAbs(path) {
		return r.relativePlace(path)
	}
	for _, root := range append([]string{r.TaskDir, r.AllocDir}, r.ImagePaths...) {
		if root == "" {
			continue
		}
		name, err := filepath.Rel(root, path)
		if err == nil && filepath.IsLocal(name) {
			return place{root, name}, nil
		}
	}
	if len(r.ImagePaths) == 0 {
		return place{}, errors.New("absolute paths need an entry in the plugin's image_paths that holds them; it has none: " +
			"put the file into local/ (artifact), or ask the operator for image_paths")
	}
	return place{}, fmt.Errorf("not under any of the plugin's image_paths %q, nor in the task's own folders", r.ImagePaths)
}

func (r Request) relativePlace(path string) (place, error) {
	if name, ok := strings.CutPrefix(path, "alloc/"); ok && r.AllocDir != "" {
		return place{r.AllocDir, name}, nil
	}
	if r.TaskDir == "" {
		return place{}, errors.New("a relative path outside a task: give an absolute one")
	}
	return place{r.TaskDir, path}, nil
}

// open opens the place as flags say. Links are followed inside the root only,
// and what is not a regular file is refused without waiting for it.
func (p place) open(flags int) (*os.File, error) {
	root, err := os.OpenRoot(p.root)
	if err != nil {
		return nil, fmt.Errorf("open its folder: %w", err)
	}
	defer root.Close()

	// Looked at before it is opened, because opening a device can act on it;
	// and again after, because it may have been swapped between the two.
	info, err := root.Stat(p.name)
	if err != nil {
		return nil, p.explain(err)
	}
	if err := regular(info); err != nil {
		return nil, err
	}
	file, err := root.OpenFile(p.name, flags|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, p.explain(err)
	}
	info, err = file.Stat()
	if err == nil {
		err = regular(info)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// explain says in words why a place could not be opened.
func (p place) explain(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no such file under %s", p.root)
	}
	// os.Root has no exported error for this one; all its others carry the
	// system's number.
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return fmt.Errorf("leads outside %s, by a link or by ..: name a file inside", p.root)
	}
	return fmt.Errorf("under %s: %w", p.root, errno)
}

// regular tells why a file cannot hold an image; nil if it can.
func regular(info fs.FileInfo) error {
	mode := info.Mode()
	switch {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		return errors.New("is a folder: name the kernel file in it, or write oci-layout: in front")
	case mode&fs.ModeNamedPipe != 0:
		return errors.New("is a named pipe, not a regular file")
	case mode&fs.ModeSocket != 0:
		return errors.New("is a socket, not a regular file")
	case mode&fs.ModeDevice != 0:
		return errors.New("is a device, not a regular file")
	}
	return fmt.Errorf("is not a regular file (%s)", mode.Type())
}
