// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"errors"
	"fmt"
	"io"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// Facts are what a kernel file tells of itself. Empty fields were not told.
type Facts struct {
	Arch     guest.Arch
	Format   Format
	Family   guest.Family
	Release  string
	Features []string // build options, as "CONFIG_X=y"
	Devices  []Device
	GICs     []int // versions of ARM's interrupt controller that it drives
}

// NotBootable is a file that no guest can be booted from, in words.
type NotBootable struct {
	What string // what the file is, such as "a shell script"
	Do   string // what would do instead
}

func (e *NotBootable) Error() string { return "is " + e.What + ": " + e.Do }

// sniffSize is how much of a file's start is looked at. Multiboot headers lie
// within the first 8 KiB.
const sniffSize = 8192

// Detect looks into an uncompressed kernel file of size bytes. Its error is a
// *NotBootable where the file could be read and is no kernel that boots here.
func Detect(file io.ReaderAt, size int64) (Facts, error) {
	head := make([]byte, min(size, sniffSize))
	if _, err := file.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return Facts{}, fmt.Errorf("read its start: %w", err)
	}
	kernel := sniffed{file, head, size}
	for _, look := range []func(sniffed) (Facts, bool, error){detectELF, detectLinuxImage, detectBzImage} {
		facts, mine, err := look(kernel)
		if err != nil {
			return Facts{}, err
		}
		if mine {
			return withEvidence(facts, kernel)
		}
	}
	return Facts{}, describe(kernel)
}

// sniffed is a file whose start was read.
type sniffed struct {
	file io.ReaderAt
	head []byte // the first sniffSize bytes, or all
	size int64
}

// withEvidence adds the family and release that the kernel's content proves.
func withEvidence(facts Facts, kernel sniffed) (Facts, error) {
	if facts.Family != "" {
		return facts, nil
	}
	found, err := findEvidence(kernel.file, kernel.size)
	if err != nil {
		return Facts{}, fmt.Errorf("look for its family: %w", err)
	}
	facts.Family, facts.Release, facts.Features = found.family, found.release, found.features
	if facts.Arch == guest.ARM64 {
		facts.GICs = found.gics
	}
	return facts, nil
}

// agree checks the facts against what the job and the reference say.
func (f Facts) agree(request Request, told guest.Arch) error {
	if told != "" && told != f.Arch {
		return fmt.Errorf("its package says %s and the kernel in it is for %s: build it again", told, f.Arch)
	}
	if request.Arch != "" && request.Arch != f.Arch {
		return fmt.Errorf("is a kernel for %s and arch = %q: give an image for %s, or leave arch out",
			f.Arch, request.Arch, request.Arch)
	}
	if f.Format == Solo5Tender {
		return &NotBootable{fmt.Sprintf("a Solo5 kernel for the hvt or spt tender (%s)", f.Arch), solo5Advice}
	}
	if request.Family != "" && contradicts(request.Family, f) {
		return fmt.Errorf("guest = %q, and the kernel says that it is %s: leave guest out, or give another image",
			request.Family, f.Family)
	}
	return nil
}

// better is the family that a package says, or the one that the kernel in it
// shows where that is more exact.
func (f Facts) better(told guest.Family) guest.Family {
	switch {
	case told == "", f.Family == guest.Solo5, f.Family == guest.Mirage && told == guest.Unikraft:
		return f.Family
	}
	return told
}

// contradicts tells whether a family cannot be right. MirageOS on Unikraft is
// both, so those two never contradict each other.
func contradicts(named guest.Family, f Facts) bool {
	unikraft := func(family guest.Family) bool { return family == guest.Unikraft || family == guest.Mirage }
	if f.Family == "" || named == f.Family {
		return false
	}
	return !unikraft(named) || !unikraft(f.Family)
}
