// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"bytes"
	"errors"
	"io"
	"regexp"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// evidence is what a kernel's content proves of it.
type evidence struct {
	family   guest.Family
	release  string
	features []string
	gics     []int
}

// A kernel is read in windows that overlap, so that a mark on an edge is seen
// whole. mostScanned bounds the work on a huge file.
const (
	scanWindow  = 1 << 20
	scanOverlap = 4 << 10
	mostScanned = 256 << 20
)

// findEvidence reads a kernel for marks that only one family leaves. Where
// marks of several families are found (a kernel with others in its data),
// none counts.
func findEvidence(file io.ReaderAt, size int64) (evidence, error) {
	var found evidence
	ocaml := false
	var gics gicMarks
	buffer := make([]byte, min(size, scanWindow+scanOverlap))
	for at := int64(0); at < min(size, mostScanned); at += scanWindow {
		n, err := file.ReadAt(buffer, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return evidence{}, err
		}
		ocaml = ocaml || bytes.Contains(buffer[:n], ocamlText)
		gics.look(buffer[:n])
		for _, mark := range marks {
			more, ok := mark(window{file, buffer[:n], at})
			if !ok {
				continue
			}
			if !found.join(more) {
				return evidence{}, nil
			}
		}
	}
	found.gics = gics.versions()
	if ocaml && found.family == guest.Unikraft {
		found.family = ""
	}
	return found, nil
}

// join adds what another mark proves; false: it proves another family.
func (e *evidence) join(more evidence) bool {
	switch {
	case e.family == "" || e.family == more.family:
		e.family = more.family
	case e.family == guest.Unikraft && more.family == guest.Mirage:
		e.family = guest.Mirage // MirageOS on Unikraft has the marks of both
	case e.family == guest.Mirage && more.family == guest.Unikraft:
	default:
		return false
	}
	if e.release == "" {
		e.release = more.release
	}
	if e.features == nil {
		e.features = more.features
	}
	return true
}

// window is a part of a kernel.
type window struct {
	file io.ReaderAt
	data []byte
	at   int64
}

// marks read a window for what one family leaves in its kernels.
var marks = []func(window) (evidence, bool){linuxBanner, unikraftBanner, unikraftInfo, mirageMark}

// linuxVersion is the text that Linux keeps as linux_banner:
// "Linux version 6.1.0-18-arm64 (builder@host) (gcc …".
var linuxVersion = regexp.MustCompile(`Linux version ([0-9]+\.[0-9]+[0-9A-Za-z.+~_-]*) \([^()\s]+@[^()\s]+\) \(`)

func linuxBanner(w window) (evidence, bool) {
	for data := w.data; ; {
		at := bytes.Index(data, []byte("Linux version "))
		if at < 0 {
			return evidence{}, false
		}
		data = data[at:]
		if m := linuxVersion.FindSubmatch(data[:min(len(data), 512)]); m != nil {
			return evidence{family: guest.Linux, release: string(m[1])}, true
		}
		data = data[1:]
	}
}

// unikraftRelease is what Unikraft prints under its banner, a code name and
// a version (lib/ukboot/banner.c): "Calypso 0.17.0~0f5a3c1", or
// "Powered by Unikraft Calypso (0.17.0~0f5a3c1)".
var unikraftRelease = regexp.MustCompile(`\x00(?:Powered by Unikraft )?[A-Z][a-z]{3,15} \(?([0-9]+\.[0-9]+\.[0-9]+(?:~[0-9A-Za-z]+)?)(?:-[0-9A-Za-z.~-]+)?\)?\n?\x00`)

func unikraftBanner(w window) (evidence, bool) {
	at := bytes.Index(w.data, []byte("Powered by"))
	if at < 0 {
		return evidence{}, false
	}
	const nearby = 4096 // the banner's lines lie together
	near := w.data[max(0, at-nearby):min(len(w.data), at+nearby)]
	m := unikraftRelease.FindSubmatch(near)
	if m == nil {
		return evidence{}, false
	}
	return evidence{family: guest.Unikraft, release: string(m[1])}, true
}

// mirageTexts are documentation strings of mirage-runtime, which every
// MirageOS kernel links for its own arguments (mirage's lib_runtime).
var mirageTexts = [][]byte{
	[]byte("Accessible with `Mirage_runtime."),
	[]byte("The function register_arg was called to late. Please call register_arg"),
}

func mirageMark(w window) (evidence, bool) {
	for _, text := range mirageTexts {
		if bytes.Contains(w.data, text) {
			return evidence{family: guest.Mirage}, true
		}
	}
	return evidence{}, false
}

// ocamlText is in OCaml's runtime (printexc.c). An OCaml program on Unikraft
// that is not known to be MirageOS may take its arguments as that does.
var ocamlText = []byte("Fatal error: exception %s")
