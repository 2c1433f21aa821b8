// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package cache

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/shoenig/test/must"
)

func open(t *testing.T) *Cache {
	t.Helper()
	c, err := Open(filepath.Join(t.TempDir(), "cache"), 1)
	must.NoError(t, err)
	return c
}

// add puts an image of one file into the cache and closes it.
func add(t *testing.T, c *Cache, name, content string) string {
	t.Helper()
	entry := commit(t, c, name, content)
	must.NoError(t, entry.Close())
	return entry.Key
}

func commit(t *testing.T, c *Cache, name, content string) *Entry {
	t.Helper()
	key := Key(name)
	unlock, err := c.Lock(context.Background(), key, func() {})
	must.NoError(t, err)
	defer unlock()
	draft, err := c.Draft(key)
	must.NoError(t, err)
	defer draft.Abort()
	must.NoError(t, draft.Write("kernel", strings.NewReader(content)))
	entry, err := draft.Commit(About{Source: "example/" + name + ":1", Digest: "sha256:" + Key("digest of "+name)})
	must.NoError(t, err)
	return entry
}

func keys(infos []Info) []string {
	found := []string{}
	for _, info := range infos {
		found = append(found, info.Key)
	}
	return found
}

func TestCache_RoundTrip(t *testing.T) {
	c := open(t)
	_, err := c.Get(Key("a"))
	must.ErrorIs(t, err, fs.ErrNotExist)
	key := add(t, c, "a", "content")

	entry, err := c.Get(key)
	must.NoError(t, err)
	must.Eq(t, "example/a:1", entry.Source)
	file := entry.Take("kernel")
	must.Nil(t, entry.Take("kernel"))
	must.NoError(t, entry.Close())
	defer file.Close()
	got, err := io.ReadAll(file)
	must.NoError(t, err)
	must.Eq(t, "content", string(got))
	info, err := file.Stat()
	must.NoError(t, err)
	must.Eq(t, 0o444, info.Mode().Perm())

	_, err = c.Get("../../etc")
	must.ErrorContains(t, err, "bad key")
}

// What is not as it was pulled is found, also when it changes under a process
// that has verified it.
func TestCache_Damaged(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"changed":   func(dir string) error { return os.WriteFile(filepath.Join(dir, "kernel"), []byte("CONTENT"), 0o444) },
		"cut short": func(dir string) error { return os.Truncate(filepath.Join(dir, "kernel"), 3) },
		"gone":      func(dir string) error { return os.Remove(filepath.Join(dir, "kernel")) },
		"no about":  func(dir string) error { return os.Remove(filepath.Join(dir, aboutFile)) },
		"bad about": func(dir string) error { return os.WriteFile(filepath.Join(dir, aboutFile), []byte("{"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			c := open(t)
			key := add(t, c, "a", "content")
			must.NoError(t, damage(c.path(imagesDir, key)))
			_, err := c.Get(key)
			must.ErrorIs(t, err, ErrDamaged)
			infos, err := c.List()
			must.NoError(t, err)
			must.Len(t, 1, infos)

			must.NoError(t, c.Drop(key))
			_, err = c.Get(key)
			must.ErrorIs(t, err, fs.ErrNotExist)
			add(t, c, "a", "content")
		})
	}
}

// The least recently used images go, but none that is in use.
func TestCache_Collect(t *testing.T) {
	c := open(t)
	large := strings.Repeat("x", 400<<10)
	a, b := add(t, c, "a", large), add(t, c, "b", large)
	used := commit(t, c, "used", large)
	hour := time.Now().Add(-time.Hour)
	for i, key := range []string{used.Key, b, a} { // the oldest first
		at := hour.Add(time.Duration(i) * time.Minute)
		must.NoError(t, os.Chtimes(c.path(imagesDir, key, aboutFile), at, at))
	}
	must.NoError(t, c.Resolve("reference to a", a, nil))
	must.NoError(t, c.Resolve("reference to b", b, nil))

	infos, err := c.List()
	must.NoError(t, err)
	must.Eq(t, []string{used.Key, b, a}, keys(infos))
	must.True(t, infos[0].InUse)
	must.False(t, infos[1].InUse)
	must.Eq(t, []string{"reference to b"}, infos[1].References)

	removed, err := c.Collect(0)
	must.NoError(t, err)
	must.Eq(t, []string{b}, keys(removed))
	_, err = c.Resolved("reference to b")
	must.ErrorIs(t, err, fs.ErrNotExist)
	_, err = c.Resolved("reference to a")
	must.NoError(t, err)

	removed, err = c.Collect(1 << 20) // room for more
	must.NoError(t, err)
	must.Eq(t, []string{a}, keys(removed))
	must.NoError(t, used.Close())
	removed, err = c.Collect(1 << 20)
	must.NoError(t, err)
	must.Eq(t, []string{used.Key}, keys(removed))
}

// A use makes an image recent.
func TestCache_LastUsed(t *testing.T) {
	c := open(t)
	a, b := add(t, c, "a", "1"), add(t, c, "b", "2")
	for _, key := range []string{a, b} {
		must.NoError(t, os.Chtimes(c.path(imagesDir, key, aboutFile), time.Unix(1, 0), time.Unix(1, 0)))
	}
	entry, err := c.Get(a)
	must.NoError(t, err)
	must.NoError(t, entry.Close())
	infos, err := c.List()
	must.NoError(t, err)
	must.Eq(t, []string{b, a}, keys(infos))
}

// An image is in use as long as a process lives that inherited its file, also
// when whoever opened it is gone.
func TestCache_InUseByChild(t *testing.T) {
	c := open(t)
	entry := commit(t, c, "a", "content")
	file := entry.Take("kernel")
	child := exec.Command("cat")
	child.ExtraFiles = []*os.File{file}
	stdin, err := child.StdinPipe()
	must.NoError(t, err)
	must.NoError(t, child.Start())
	must.NoError(t, file.Close())

	must.ErrorIs(t, c.Remove(entry.Key), ErrInUse)
	must.NoError(t, stdin.Close())
	must.NoError(t, child.Wait())
	must.NoError(t, c.Remove(entry.Key))
}

func TestCache_Lock(t *testing.T) {
	c := open(t)
	other, err := Open(c.dir, 1) // as another process
	must.NoError(t, err)
	key := Key("a")
	unlock, err := c.Lock(context.Background(), key, func() { t.Error("nobody has it") })
	must.NoError(t, err)

	for name, waiter := range map[string]*Cache{"this process": c, "another": other} {
		ctx, cancel := context.WithCancel(context.Background())
		_, err := waiter.Lock(ctx, key, cancel) // gives up when told to wait
		must.ErrorIs(t, err, context.Canceled, must.Sprint(name))
	}
	got := make(chan func())
	for _, waiter := range []*Cache{c, other, other} {
		go func() {
			unlock, err := waiter.Lock(context.Background(), key, func() {})
			if err != nil {
				t.Error(err)
				unlock = func() {}
			}
			got <- unlock
		}()
	}
	unlock()
	for range 3 {
		select {
		case unlock := <-got:
			select {
			case <-got:
				t.Error("two have it")
			default:
			}
			unlock()
		case <-time.After(time.Minute):
			t.Fatal("nobody gets it")
		}
	}
	left, err := os.ReadDir(c.path(locksDir))
	must.NoError(t, err)
	must.SliceEmpty(t, left)
}

// What a crash leaves is cleared, by the next pull and by a collection; what
// others are writing is not.
func TestCache_Crash(t *testing.T) {
	c := open(t)
	crashed, busy := Key("crashed"), Key("busy")
	for _, key := range []string{crashed, busy} {
		draft, err := c.Draft(key)
		must.NoError(t, err)
		must.NoError(t, draft.Write("kernel", strings.NewReader("half")))
	}
	unlock, err := c.Lock(context.Background(), busy, func() {})
	must.NoError(t, err)
	defer unlock()
	old := c.path(tmpDir, "copy-1")
	must.NoError(t, os.WriteFile(old, nil, 0o600))
	must.NoError(t, os.Chtimes(old, time.Unix(1, 0), time.Unix(1, 0)))
	must.NoError(t, os.WriteFile(c.path(tmpDir, "copy-2"), nil, 0o600))

	infos, err := c.List()
	must.NoError(t, err)
	must.SliceEmpty(t, infos)
	_, err = c.Collect(0)
	must.NoError(t, err)
	left, err := os.ReadDir(c.path(tmpDir))
	must.NoError(t, err)
	must.Len(t, 2, left)

	draft, err := c.Draft(busy)
	must.NoError(t, err)
	must.False(t, draft.Has("kernel"))
	draft.Abort()
	add(t, c, "crashed", "whole")
}

func TestCache_References(t *testing.T) {
	c := open(t)
	must.NoError(t, c.Resolve("a", Key("1"), nil))
	must.NoError(t, c.Resolve("a", Key("2"), nil))
	found, err := c.Resolved("a")
	must.NoError(t, err)
	must.Eq(t, Key("2"), found.Key)
	must.NoError(t, os.WriteFile(c.referencePath("a"), []byte(`{"Key":`), 0o600))
	_, err = c.Resolved("a")
	must.ErrorIs(t, err, fs.ErrNotExist)
	must.NotEq(t, Key("ab", "c"), Key("a", "bc"))
}

func TestMain_Commands(t *testing.T) {
	c := open(t)
	used := commit(t, c, "used", "1")
	defer used.Close()
	add(t, c, "idle", "2")
	run := func(args ...string) (int, string) {
		var out bytes.Buffer
		return Main(args, c.dir, &out, &out), out.String()
	}

	status, out := run("ls")
	must.Zero(t, status)
	must.RegexMatch(t, regexp.MustCompile(`(?m)^[0-9a-f]{12} .* in use +example/used:1$`), out)
	must.RegexMatch(t, regexp.MustCompile(`(?m)^[0-9a-f]{12} .* idle +example/idle:1$`), out)
	status, out = run("rm", "example/used:1")
	must.Eq(t, 1, status)
	must.StrContains(t, out, "stop its task first")
	status, out = run("rm", "example/none:1")
	must.Eq(t, 1, status)
	must.StrContains(t, out, "no image")
	status, _ = run("rm", Key("digest of idle")[:10])
	must.Zero(t, status)
	status, out = run("-max-size", "0", "gc")
	must.Zero(t, status)
	must.StrContains(t, out, "freed 0.0 MiB")
	for _, wrong := range [][]string{{}, {"rm"}, {"ls", "x"}, {"what"}, {"-nothing"}, {"-max-size", "-1", "gc"}} {
		status, _ := run(wrong...)
		must.Eq(t, 2, status, must.Sprint(wrong))
	}
}
