// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"regexp"
	"strings"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// Unikraft kernels can carry what they were built of: the section
// .uk_libinfo, from Unikraft's lib/uklibid (README.md, include/uk/libid/info.h).
// It is part of the loaded image, so it is found in raw Images too: by its
// global header, whose first record names Unikraft's release.
const (
	libinfoHeader = 6 // length u32 (with the header), layout version u16 = 1
	libinfoRecord = 6 // type u16, length u32 (with these)

	libinfoRelease     = 0x0006 // UKVERSION, "0.17.0"
	libinfoFullRelease = 0x0007 // UKFULLVERSION, "0.17.0~0f5a3c1"
	libinfoConfig      = 0x0009 // UKCONFIG, the build's .config
	libinfoConfigGzip  = 0x000a // UKCONFIGGZ

	mostLibinfo    = 1 << 20 // more than any .config
	longestRelease = 128     // of a record that names one
)

// libinfoStarts are the bytes that a global header ends and its first record
// begins with: layout version 1, then the record's type.
var libinfoStarts = [][]byte{{1, 0, libinfoRelease, 0}, {1, 0, libinfoFullRelease, 0}}

var libinfoVersion = regexp.MustCompile(`^([0-9]+\.[0-9]+\.[0-9]+(?:~[0-9A-Za-z]+)?)(?:-[0-9A-Za-z.~-]+)?$`)

func unikraftInfo(w window) (evidence, bool) {
	for _, start := range libinfoStarts {
		for from := 0; ; {
			at := bytes.Index(w.data[from:], start)
			if at < 0 {
				break
			}
			at += from
			from = at + 1
			if at < 4 {
				continue
			}
			if found, ok := w.libinfoAt(at - 4); ok {
				return found, true
			}
		}
	}
	return evidence{}, false
}

// libinfoAt reads a global header at an offset in the window, if one is there.
func (w window) libinfoAt(at int) (evidence, bool) {
	length := int64(binary.LittleEndian.Uint32(w.data[at:]))
	if length < libinfoHeader+libinfoRecord || length > mostLibinfo {
		return evidence{}, false
	}
	// Most places that look like a start are not: see whether a release
	// follows before all of it is read.
	first := w.data[at+libinfoHeader:]
	if len(first) < libinfoRecord {
		return evidence{}, false
	}
	end := int64(binary.LittleEndian.Uint32(first[2:]))
	if end <= libinfoRecord || end > min(longestRelease, length, int64(len(first))) || readRelease(first[libinfoRecord:end]) == "" {
		return evidence{}, false
	}
	data := make([]byte, length)
	if _, err := io.ReadFull(io.NewSectionReader(w.file, w.at+int64(at), length), data); err != nil {
		return evidence{}, false
	}
	return parseLibinfo(data[libinfoHeader:])
}

// parseLibinfo reads the records of a global header. They must fill it
// exactly and name a release, or it is none.
func parseLibinfo(records []byte) (evidence, bool) {
	found := evidence{family: guest.Unikraft}
	for len(records) > 0 {
		if len(records) < libinfoRecord {
			return evidence{}, false
		}
		kind, length := binary.LittleEndian.Uint16(records), binary.LittleEndian.Uint32(records[2:])
		if length < libinfoRecord || int64(length) > int64(len(records)) {
			return evidence{}, false
		}
		data := records[libinfoRecord:length]
		records = records[length:]
		switch kind {
		case libinfoRelease, libinfoFullRelease:
			if found.release = readRelease(data); found.release == "" {
				return evidence{}, false
			}
		case libinfoConfig:
			found.features = parseConfig(bytes.NewReader(data))
		case libinfoConfigGzip:
			if unpacked, err := gzip.NewReader(bytes.NewReader(data)); err == nil {
				found.features = parseConfig(unpacked)
			}
		}
	}
	return found, found.release != ""
}

// readRelease reads the text of a release record; empty if it is none.
func readRelease(data []byte) string {
	m := libinfoVersion.FindSubmatch(bytes.TrimSuffix(data, []byte{0}))
	if m == nil {
		return ""
	}
	return string(m[1])
}

// parseConfig reads the options that are set from a build's .config. nil if
// it is damaged, because half a list would tell that options are missing.
func parseConfig(r io.Reader) []string {
	text, err := io.ReadAll(io.LimitReader(r, mostLibinfo))
	if err != nil || len(text) == mostLibinfo {
		return nil
	}
	features := []string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "CONFIG_") && strings.Contains(line, "=") {
			features = append(features, line)
		}
	}
	return features
}
