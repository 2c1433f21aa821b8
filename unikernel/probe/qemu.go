// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package probe

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// minMajor is the oldest QEMU that will do: 6.0 brought -action, by which a
// guest's end is kept for the driver to read.
const minMajor = 6

// binaries are QEMU's own names of its system emulators.
var binaries = map[guest.Arch]string{
	guest.ARM64:  "qemu-system-aarch64",
	guest.X86_64: "qemu-system-x86_64",
}

var versionLine = regexp.MustCompile(`QEMU emulator version ((\d+)\.\d+(?:\.\d+)*)`)

// findQEMU finds the QEMU of an architecture and asks what it is; an error
// tells why there is none that will do.
func findQEMU(ctx context.Context, arch guest.Arch, path string, as *syscall.Credential) (Arch, error) {
	path, err := lookUp(arch, path)
	if err != nil {
		return Arch{}, err
	}
	version, err := qemuVersion(ctx, path, as)
	if err != nil {
		return Arch{}, err
	}
	return Arch{QEMU: path, Version: version, Machines: machineTypes(ctx, path, as)}, nil
}

// machineTypes asks QEMU for its machine types; nil where it does not tell.
func machineTypes(ctx context.Context, path string, as *syscall.Credential) []string {
	var types []string
	for line := range strings.Lines(start(ctx, path, []string{"-machine", "help"}, as, nil).output) {
		line = strings.TrimSpace(line)
		// "virt-7.2             QEMU 7.2 ARM Virtual Machine"
		name, _, described := strings.Cut(line, "  ")
		if described && !strings.Contains(name, " ") {
			types = append(types, name)
		}
	}
	return types
}

// lookUp makes path absolute, or looks QEMU up in PATH where there is none.
func lookUp(arch guest.Arch, path string) (string, error) {
	option := fmt.Sprintf("the plugin option qemu { %s }", arch)
	name := path
	if name == "" {
		name = binaries[arch]
	}
	found, err := exec.LookPath(name)
	switch {
	case err != nil && path == "":
		return "", fmt.Errorf("no %s in PATH: install QEMU for %s guests, or name it in %s", name, arch, option)
	case err != nil:
		return "", fmt.Errorf("%s names %q: %w", option, path, err)
	}
	return filepath.Abs(found)
}

// qemuVersion runs `QEMU -version` and refuses what is too old.
func qemuVersion(ctx context.Context, path string, as *syscall.Credential) (string, error) {
	ended := start(ctx, path, []string{"-version"}, as, nil)
	match := versionLine.FindStringSubmatch(ended.output)
	if match == nil {
		return "", ended.orShort(fmt.Errorf("%s -version told no QEMU version: %s", path, ended))
	}
	if major, err := strconv.Atoi(match[2]); err != nil || major < minMajor {
		return "", fmt.Errorf("%s is QEMU %s: at least %d.0 is needed", path, match[1], minMajor)
	}
	return match[1], nil
}

// errPermission says that QEMU may not open /dev/kvm.
var errPermission = errors.New("no permission to open " + kvmDevice)

// complaint picks QEMU's own words out of what it printed.
func complaint(output string) string {
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line == "" || strings.Contains(line, ": warning: ") {
			continue
		}
		return line
	}
	return ""
}
