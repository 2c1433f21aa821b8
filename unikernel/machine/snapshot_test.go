// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// echoes types a line and waits for the guest to say it.
func echoes(t *testing.T, m *Machine, line string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	in, typed := io.Pipe()
	said, out := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := m.Attach(ctx, in, out)
		out.CloseWithError(io.EOF)
		ended <- err
	}()
	awaitViewers(t, m.console)
	_, err := io.WriteString(typed, line+"\n")
	must.NoError(t, err)
	lines := bufio.NewScanner(said)
	for lines.Scan() && !strings.Contains(lines.Text(), `typed "`+line+`"`) {
	}
	must.StrContains(t, lines.Text(), line)
	cancel()
	said.Close()
	<-ended
}

// saved runs a guest until it is up, saves it, and ends it.
func saved(t *testing.T, arch guest.Arch) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state")
	file, err := os.Create(path)
	must.NoError(t, err)
	defer file.Close()
	config, watch := steps(t, arch, "--console-echo")
	watch.Ready = regexp.MustCompile(`steps: `)
	m := start(t, config, watch)
	await(t, "the guest", m.Ready())
	echoes(t, m, "before")
	must.NoError(t, m.Save(t.Context(), file))
	echoes(t, m, "after") // it goes on
	m.Kill()
	must.NoError(t, m.Remove())
	return path
}

func restoring(t *testing.T, arch guest.Arch, path string) (Config, Watch) {
	t.Helper()
	file, err := os.Open(path)
	must.NoError(t, err)
	t.Cleanup(func() { file.Close() })
	config, watch := steps(t, arch, "--console-echo")
	config.Restore = file
	return config, watch
}

func TestMachine_SaveAndRestore(t *testing.T) {
	for _, arch := range guest.Arches {
		t.Run(string(arch), func(t *testing.T) {
			path := saved(t, arch)
			for range 2 { // a state serves any number of guests
				config, watch := restoring(t, arch, path)
				m := start(t, config, watch)
				echoes(t, m, "restored")
				m.Stop(t.Context())
				must.Eq(t, 15, m.Result().Signal)
			}
		})
	}
}

func TestMachine_SavedGuestThatDoesNotFit(t *testing.T) {
	path := saved(t, guest.ARM64)
	damage := map[string]func(c *Config){
		"another size": func(c *Config) { c.MemoryMiB *= 2 },
		"half a state": func(c *Config) {
			info, err := c.Restore.Stat()
			must.NoError(t, err)
			half := filepath.Join(t.TempDir(), "half")
			data, err := os.ReadFile(path)
			must.NoError(t, err)
			must.NoError(t, os.WriteFile(half, data[:info.Size()/2], 0o600))
			c.Restore, err = os.Open(half)
			must.NoError(t, err)
		},
	}
	for name, harm := range damage {
		t.Run(name, func(t *testing.T) {
			config, watch := restoring(t, guest.ARM64, path)
			harm(&config)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			_, err := Start(ctx, config, watch)
			must.ErrorContains(t, err, "loading the saved guest")
			must.SliceEmpty(t, names(t, config.RunDir))
		})
	}
}

// A full disk costs the state, not the guest.
func TestSave_FullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	must.NoError(t, err)
	defer full.Close()
	config, watch := steps(t, guest.ARM64, "--console-echo")
	watch.Ready = regexp.MustCompile(`steps: `)
	m := start(t, config, watch)
	await(t, "the guest", m.Ready())
	must.ErrorContains(t, m.Save(t.Context(), full), "saving the guest")
	echoes(t, m, "alive")
}
