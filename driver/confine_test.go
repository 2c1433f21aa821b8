// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/shoenig/test/must"
	"golang.org/x/sys/unix"
)

// A pattern allows whole arguments, and nothing before, after or beside it.
func TestExtraArgs_AreMatchedWhole(t *testing.T) {
	config := PluginConfig{MemoryOverhead: "32MiB", ArgsAllowlist: []string{`-msg`, `timestamp=(on|off)`, `-device a|-device b`, `.*rng.*`}}
	settings, err := config.check()
	must.NoError(t, err)
	for arg, allowed := range map[string]bool{
		"-msg": true, "timestamp=on": true, "-device a": true, "-device b": true, "virtio-rng-pci": true,
		"":                        false,
		"-msgs":                   false,
		"x-msg":                   false,
		" -msg":                   false,
		"-msg\n":                  false,
		"-msg\n-S":                false,
		"-daemon":                 false,
		"-device":                 false,
		"-device ab":              false,
		"timestamp=on,-daemonize": false,
		"rng\n-daemonize":         false, // a dot is no line's end
	} {
		err := checkExtraArg(arg, settings.allowed)
		must.Eq(t, allowed, err == nil, must.Sprintf("%q: %v", arg, err))
	}
}

// Nomad's log pipe lies where tasks of the group can write: what one put in its
// place is not written to.
func TestLogPipe_Replaced(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	must.NoError(t, unix.Mkfifo(at("pipe"), 0o600))
	must.NoError(t, os.WriteFile(at("file"), []byte("precious"), 0o600))
	must.NoError(t, os.Symlink(at("file"), at("link to a file")))
	must.NoError(t, os.Symlink(at("pipe"), at("link to a pipe")))
	must.NoError(t, os.Symlink("/dev/kmsg", at("link to a device")))
	must.NoError(t, os.Mkdir(at("folder"), 0o700))

	sink, err := openLogPipe(at("pipe"))
	must.NoError(t, err)
	must.NoError(t, sink.Close())
	for _, name := range []string{"file", "link to a file", "link to a pipe", "link to a device", "folder", "absent"} {
		_, err := openLogPipe(at(name))
		must.Error(t, err, must.Sprint(name))
	}
	left, err := os.ReadFile(at("file"))
	must.NoError(t, err)
	must.Eq(t, "precious", string(left))
}
