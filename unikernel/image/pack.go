// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cavaliergopher/cpio"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// Pack adds files to the image's initrd, or makes one (a cpio archive in the
// newc format, which Linux and Unikraft unpack). A target hides what the
// initrd has at that place. The guest gets a copy as of now: what it writes
// stays in the guest.
//
// Links inside a mounted folder are packed as links. What is neither a file,
// a folder nor a link is an error.
func (s *Store) Pack(request Request, image *Image, mounts []Mount) error {
	if len(mounts) == 0 {
		return nil
	}
	base, err := s.plainInitrd(image)
	if err != nil {
		return err
	}
	packed, err := s.private(func(to io.Writer) error {
		p := &packer{to: &boundedWriter{to, s.maxFile(), s.errTooLarge()}, folders: map[string]bool{}}
		return p.pack(request, base, image.Family, mounts)
	})
	if err != nil {
		return fmt.Errorf("pack files for the guest into its initrd: %w", err)
	}
	if image.Initrd != nil {
		image.Initrd.Close()
	}
	image.Initrd = packed
	return nil
}

// plainInitrd is the image's initrd, unpacked; nil if it has none.
func (s *Store) plainInitrd(image *Image) (io.Reader, error) {
	if image.Initrd == nil {
		return nil, nil
	}
	plain, err := s.settle(image.Initrd, "initrd", image.Source)
	if err != nil {
		return nil, err
	}
	image.Initrd = plain
	info, err := plain.Stat()
	if err != nil {
		return nil, err
	}
	return io.NewSectionReader(plain, 0, info.Size()), nil
}

// packer writes one initrd.
type packer struct {
	to      io.Writer
	archive *cpio.Writer
	folders map[string]bool // by path: true for a folder, false for anything else
}

func (p *packer) pack(request Request, base io.Reader, family guest.Family, mounts []Mount) error {
	targets := make([]string, len(mounts))
	for i, mount := range mounts {
		cleaned, ok := insidePath(mount.Target)
		if !ok || !strings.HasPrefix(mount.Target, "/") {
			return fmt.Errorf("mount target %q: write an absolute path that does not climb", mount.Target)
		}
		if at := slices.Index(targets[:i], cleaned); at >= 0 {
			return fmt.Errorf("mount targets %q and %q are the same place", mounts[at].Target, mount.Target)
		}
		targets[i] = cleaned
	}
	if err := p.begin(base, family, targets); err != nil {
		return fmt.Errorf("the image's own initrd: %w", err)
	}
	for i, mount := range mounts {
		if err := p.mount(request, mount, targets[i]); err != nil {
			return fmt.Errorf("mount source %q: %w", mount.Source, err)
		}
	}
	return p.archive.Close()
}

// begin writes what the base has. Linux unpacks one archive after the other,
// in the compressions and with the devices it has, so there the base stays as
// it is; others read one archive only, so there the two become one.
func (p *packer) begin(base io.Reader, family guest.Family, targets []string) error {
	p.archive = cpio.NewWriter(p.to)
	if base == nil {
		return nil
	}
	if family == guest.Linux {
		return p.prepend(base)
	}
	return p.merge(base, targets)
}

func (p *packer) prepend(base io.Reader) error {
	n, err := io.Copy(p.to, base)
	if err != nil {
		return err
	}
	_, err = p.to.Write(make([]byte, alignUp(uint64(n), 4)-uint64(n)))
	return err
}

// merge copies the base's entries, without those that a target hides.
func (p *packer) merge(base io.Reader, targets []string) error {
	entries := cpio.NewReader(base)
	for range mostTarEntries {
		header, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("is no cpio archive in the newc format: %w", err)
		}
		if header.Size < 0 { // the library reads a sign there
			return errors.New("is no cpio archive: an entry has a negative size")
		}
		name, ok := insidePath(header.Name)
		if ok && slices.ContainsFunc(targets, func(target string) bool { return within(name, target) }) {
			continue
		}
		p.folders[name] = fileType(header) == cpio.TypeDir
		if err := p.copyEntry(header, entries); err != nil {
			return fmt.Errorf("entry %q: %w", header.Name, err)
		}
	}
	return fmt.Errorf("has over %d entries", mostTarEntries)
}

func (p *packer) copyEntry(header *cpio.Header, content io.Reader) error {
	header.Checksum = 0 // the library writes the plain format only
	if fileType(header) == cpio.TypeSymlink {
		return p.writeLink(header)
	}
	if err := p.archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := io.CopyN(p.archive, content, header.Size)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return damaged(err)
}

// writeLink writes a link: where it leads is its content.
func (p *packer) writeLink(header *cpio.Header) error {
	header.Size = int64(len(header.Linkname))
	if err := p.archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := io.WriteString(p.archive, header.Linkname)
	return err
}

func fileType(header *cpio.Header) cpio.FileMode { return header.Mode & cpio.ModeType }

// mount packs one mount's file or folder.
func (p *packer) mount(request Request, mount Mount, target string) error {
	where, err := mount.place(request)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(where.root)
	if err != nil {
		return fmt.Errorf("open its folder: %w", err)
	}
	defer root.Close()
	info, err := root.Stat(where.name)
	if err != nil {
		return where.explain(err)
	}
	if err := p.parents(target); err != nil {
		return err
	}
	if !info.IsDir() {
		return p.file(root, where.name, target)
	}
	folder, err := root.OpenRoot(where.name)
	if err != nil {
		return where.explain(err)
	}
	defer folder.Close()
	return p.tree(folder, target)
}

// parents makes the folders that lead to a target.
func (p *packer) parents(target string) error {
	if target == "." || !strings.Contains(target, "/") {
		return nil
	}
	for at := range len(target) {
		if target[at] != '/' {
			continue
		}
		name := target[:at]
		isFolder, there := p.folders[name]
		if there && !isFolder {
			return fmt.Errorf("its target /%s lies under /%s, which is no folder in the initrd", target, name)
		}
		if !there {
			if err := p.folder(name, 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *packer) folder(name string, mode fs.FileMode) error {
	p.folders[name] = true
	return p.archive.WriteHeader(&cpio.Header{Name: name, Mode: cpio.TypeDir | cpio.FileMode(mode.Perm()), Links: 2, ModTime: epoch})
}

// epoch makes the archive the same for the same files.
var epoch = time.Unix(0, 0)

// tree packs all that is in a folder.
func (p *packer) tree(folder *os.Root, target string) error {
	return fs.WalkDir(folder.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := path.Join(target, name)
		switch {
		case entry.IsDir() && to == ".":
			return nil
		case entry.IsDir():
			info, err := entry.Info()
			if err != nil {
				return err
			}
			return p.folder(to, info.Mode())
		case entry.Type()&fs.ModeSymlink != 0:
			return p.link(folder, name, to)
		}
		return p.file(folder, name, to)
	})
}

func (p *packer) link(folder *os.Root, name, to string) error {
	leads, err := folder.Readlink(name)
	if err != nil {
		return err
	}
	p.folders[to] = false
	return p.writeLink(&cpio.Header{Name: to, Mode: cpio.TypeSymlink | cpio.ModePerm, Linkname: leads, Links: 1, ModTime: epoch})
}

// file packs one regular file, read as it is at this moment.
func (p *packer) file(folder *os.Root, name, to string) error {
	info, err := folder.Stat(name)
	if err == nil {
		err = regular(info)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	file, err := folder.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if info, err = file.Stat(); err == nil {
		err = regular(info)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	p.folders[to] = false
	err = p.archive.WriteHeader(&cpio.Header{
		Name: to, Mode: cpio.TypeReg | cpio.FileMode(info.Mode().Perm()), Size: info.Size(), Links: 1, ModTime: epoch,
	})
	if err != nil {
		return err
	}
	if n, err := io.CopyN(p.archive, file, info.Size()); err != nil {
		return fmt.Errorf("%s changed while it was read (%d of %d bytes): %w", name, n, info.Size(), err)
	}
	return nil
}

// boundedWriter fails where more is written than allowed.
type boundedWriter struct {
	to   io.Writer
	left int64
	err  error
}

func (b *boundedWriter) Write(p []byte) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, b.err
	}
	return b.to.Write(p)
}
