// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// urunc's keys: annotations of the manifest, labels of the configuration, or
// fields of /urunc.json (urunc's docs/package/index.md). Values are base64 as
// its own tools write them, and plain as people do.
const (
	uruncPrefix = "com.urunc.unikernel."
	uruncJSON   = "urunc.json"

	uruncType       = uruncPrefix + "unikernelType"
	uruncVersion    = uruncPrefix + "unikernelVersion"
	uruncBinary     = uruncPrefix + "binary"
	uruncCmdline    = uruncPrefix + "cmdline"
	uruncInitrd     = uruncPrefix + "initrd"
	uruncBlock      = uruncPrefix + "block"
	uruncBlockMount = uruncPrefix + "blkMntPoint"
	uruncRootBlock  = uruncPrefix + "useDMBlock"
)

// uruncOf gathers urunc's keys from an image's annotations and labels; false
// where there is none that names a kernel.
func uruncOf(places ...map[string]string) (map[string]string, bool) {
	found := map[string]string{}
	for _, place := range places {
		for key, value := range place {
			if strings.HasPrefix(key, uruncPrefix) && found[key] == "" {
				found[key] = unbase64(value)
			}
		}
	}
	return found, found[uruncBinary] != ""
}

// parseUruncJSON reads /urunc.json.
func parseUruncJSON(text []byte) (map[string]string, error) {
	var fields map[string]string
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, fmt.Errorf("/%s in it cannot be read: %w", uruncJSON, err)
	}
	found, ok := uruncOf(fields)
	if !ok {
		return nil, fmt.Errorf("/%s in it has no %s", uruncJSON, uruncBinary)
	}
	return found, nil
}

// unbase64 undoes base64 where the value is text in it. Plain values of these
// keys (paths, names, releases) are no base64 of any text.
func unbase64(value string) string {
	decoded, err := base64.StdEncoding.DecodeString(value)
	if err != nil || len(decoded) == 0 || !utf8.Valid(decoded) {
		return value
	}
	if slices.ContainsFunc([]rune(string(decoded)), func(r rune) bool { return !unicode.IsPrint(r) }) {
		return value
	}
	return string(decoded)
}

// urunc reads an image that is described by urunc's keys.
func (c *contents) urunc(keys map[string]string, config v1.ConfigFile) error {
	if keys[uruncRootBlock] == "true" {
		return errors.New("wants its root file system as a block device (urunc's useDMBlock), which cannot be given here: pack the files into an initrd or a block image")
	}
	switch kind := keys[uruncType]; kind {
	case "unikraft":
		c.known.Family = guest.Unikraft
	case "mirage":
		c.known.Family = guest.Mirage // a Solo5 kernel says so itself
	case "linux":
		c.known.Family = guest.Linux
	default:
		return fmt.Errorf("has urunc's unikernelType %q, which is not booted here: only unikraft, mirage and linux are", kind)
	}
	for role, key := range map[string]string{kernelRole: uruncBinary, initrdRole: uruncInitrd, blockRole: uruncBlock} {
		if keys[key] == "" {
			continue
		}
		if !c.annotated(role, keys[key]) {
			return fmt.Errorf("has %s = %q, which is no path in it", key, keys[key])
		}
	}
	c.known.Release = unikraftVersion(keys[uruncVersion])
	c.known.BlockMount = keys[uruncBlockMount]
	c.known.Args = uruncArgs(keys, config)
	c.known.Env = environment(config.Config.Env)
	delete(c.known.Env, "PATH") // every image builder sets it, for shells
	return nil
}

// uruncArgs are the container's command, or else urunc's own key.
func uruncArgs(keys map[string]string, config v1.ConfigFile) []string {
	command := slices.Concat(config.Config.Entrypoint, config.Config.Cmd)
	if len(command) == 0 {
		return strings.Fields(keys[uruncCmdline])
	}
	if cleaned, err := cleanInside(keys[uruncBinary]); err == nil && sameInside(command[0], cleaned) {
		return command[1:]
	}
	return command
}
