// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoenig/test/must"
	"golang.org/x/sys/unix"
)

const patience = 20 * time.Second

// guest prints into a spool as QEMU does.
type guest struct {
	t    *testing.T
	path string
	file *os.File
}

func newGuest(t *testing.T) (*guest, *Spool) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "spool")
	spool, err := CreateSpool(path)
	must.NoError(t, err)
	file, err := spool.Writer()
	must.NoError(t, err)
	t.Cleanup(func() { file.Close() })
	return &guest{t, path, file}, spool
}

func (g *guest) print(text string) {
	g.t.Helper()
	_, err := g.file.WriteString(text)
	must.NoError(g.t, err)
}

func watch(t *testing.T, path string) <-chan struct{} {
	t.Helper()
	watcher, err := NewWatcher()
	must.NoError(t, err)
	t.Cleanup(watcher.Close)
	events, err := watcher.Watch(path)
	must.NoError(t, err)
	return events
}

// memory is a sink that can be told to refuse, and tells what it took.
type memory struct {
	mu     sync.Mutex
	text   bytes.Buffer
	refuse bool
	took   chan struct{}
}

func newMemory() *memory { return &memory{took: make(chan struct{}, 1)} }

func (m *memory) Write(data []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuse {
		return 0, errors.New("full")
	}
	defer wake(m.took)
	return m.text.Write(data)
}

func (m *memory) SetWriteDeadline(time.Time) error { return nil }
func (m *memory) Close() error                     { return nil }

func (m *memory) setRefuse(refuse bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuse = refuse
}

func (m *memory) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.text.String()
}

// await waits until the sink holds what test wants to see.
func (m *memory) await(t *testing.T, what string, seen func(string) bool) {
	t.Helper()
	timeout := time.After(patience)
	for !seen(m.String()) {
		select {
		case <-m.took:
		case <-timeout:
			t.Fatalf("%s was not seen; there is %d bytes", what, len(m.String()))
		}
	}
}

func TestPump_MovesAsItIsPrinted(t *testing.T) {
	g, spool := newGuest(t)
	sink := newMemory()
	g.print("before\n")
	p := Start(spool, sink, watch(t, g.path))
	sink.await(t, "what came before", func(s string) bool { return s == "before\n" })
	g.print("later\n")
	sink.await(t, "what came later", func(s string) bool { return s == "before\nlater\n" })
	g.print("last")
	p.Finish(t.Context())
	must.Eq(t, "before\nlater\nlast", sink.String())
}

func TestPump_GoesOnAfterARestart(t *testing.T) {
	g, spool := newGuest(t)
	g.print("one\n")
	sink := newMemory()
	Start(spool, sink, watch(t, g.path)).Finish(t.Context())
	g.print("two\n")

	again, err := OpenSpool(g.path)
	must.NoError(t, err)
	must.Eq(t, []string{"one", "two", ""}, again.LastLines())
	Start(again, sink, watch(t, g.path)).Finish(t.Context())
	must.Eq(t, "one\ntwo\n", sink.String())
}

// The last lines are there when much was printed and all of it taken.
func TestSpool_KeepsTheLastLines(t *testing.T) {
	g, spool := newGuest(t)
	must.Nil(t, spool.LastLines())
	sink := newMemory()
	p := Start(spool, sink, watch(t, g.path))
	line := strings.Repeat("x", 1023)
	for range 256 {
		g.print(line + "\r\n")
	}
	g.print("main returned 3\n")
	p.Finish(t.Context())
	must.StrHasSuffix(t, "main returned 3\n", sink.String())

	var stat unix.Stat_t
	must.NoError(t, unix.Stat(g.path, &stat))
	must.Less(t, 128<<10, stat.Blocks*512, must.Sprint("nothing was punched out"))
	again, err := OpenSpool(g.path)
	must.NoError(t, err)
	lines := again.LastLines()
	must.Eq(t, []string{line, "main returned 3", ""}, lines[len(lines)-3:])
	must.StrNotContains(t, strings.Join(lines, ""), "\x00")
	must.NoError(t, again.Close())
}

func TestPump_NeverHoldsUpTheGuest(t *testing.T) {
	g, spool := newGuest(t)
	sink := newMemory()
	sink.setRefuse(true)
	p := Start(spool, sink, watch(t, g.path))
	line := strings.Repeat("x", 1023) + "\n"
	for range 3 * MaxWaiting / len(line) {
		g.print(line)
	}
	awaitDrop(t, g.path)
	sink.setRefuse(false)
	sink.await(t, "the note", func(s string) bool { return strings.Contains(s, "bytes of output were dropped here") })
	p.Finish(t.Context())
	must.True(t, strings.HasSuffix(sink.String(), line))
	must.LessEq(t, MaxWaiting+chunk, len(sink.String()))
}

// What nobody reads is on the disk, not in memory.
func TestPump_KeepsNothingInMemory(t *testing.T) {
	g, spool := newGuest(t)
	sink := newMemory()
	sink.setRefuse(true)
	p := Start(spool, sink, watch(t, g.path))
	text := strings.Repeat("x", 1<<20)
	g.print(text)
	before := heap()
	for range 2 * MaxWaiting / len(text) {
		g.print(text)
	}
	awaitDrop(t, g.path)
	must.Less(t, 1<<20, heap()-before)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p.Finish(ctx)
}

// heap is how much memory is in use, in bytes.
func heap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// awaitDrop waits until the spool holds less disk than what was printed.
func awaitDrop(t *testing.T, path string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		var stat unix.Stat_t
		must.NoError(t, unix.Stat(path, &stat))
		if stat.Blocks*512 <= MaxWaiting {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the spool still holds %d bytes", stat.Blocks*512)
		}
		time.Sleep(quiet) // the file system tells no one of a hole
	}
}

func TestPump_StalledPipe(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	must.NoError(t, unix.Mkfifo(fifo, 0o600))
	pipe, err := os.OpenFile(fifo, os.O_RDWR|unix.O_NONBLOCK, 0)
	must.NoError(t, err)
	reader, err := os.OpenFile(fifo, os.O_RDONLY|unix.O_NONBLOCK, 0)
	must.NoError(t, err)
	defer reader.Close()

	g, spool := newGuest(t)
	p := Start(spool, pipe, watch(t, g.path))
	text := strings.Repeat("0123456789abcde\n", 1<<14) // 256 KiB: four pipes full
	g.print(text)

	got := make(chan string)
	go func() {
		var all bytes.Buffer
		buffer := make([]byte, 1000)
		for all.Len() < len(text) {
			n, err := reader.Read(buffer)
			all.Write(buffer[:n])
			if err != nil {
				break
			}
		}
		got <- all.String()
	}()
	must.Eq(t, text, <-got)
	p.Finish(t.Context())
}

func TestPump_FinishIsBounded(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	must.NoError(t, unix.Mkfifo(fifo, 0o600))
	pipe, err := os.OpenFile(fifo, os.O_RDWR|unix.O_NONBLOCK, 0)
	must.NoError(t, err)
	g, spool := newGuest(t)
	g.print(strings.Repeat("x", 1<<20)) // nobody reads it
	p := Start(spool, pipe, watch(t, g.path))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	p.Finish(ctx) // a test that hangs here fails by its timeout
}

func TestSpool_GivesTheDiskBack(t *testing.T) {
	g, spool := newGuest(t)
	p := Start(spool, Discard{}, watch(t, g.path))
	for range 64 {
		g.print(strings.Repeat("x", 1<<18))
	}
	p.Finish(t.Context())
	var stat unix.Stat_t
	must.NoError(t, unix.Stat(g.path, &stat))
	must.Eq(t, 16<<20, stat.Size)
	must.LessEq(t, 1<<20, stat.Blocks*512)
	must.NoError(t, RemoveSpool(g.path))
	must.NoError(t, RemoveSpool(g.path))
	left, err := os.ReadDir(filepath.Dir(g.path))
	must.NoError(t, err)
	must.SliceEmpty(t, left)
}

func TestRotated(t *testing.T) {
	cases := []struct {
		name   string
		limits Limits
		writes []string
		files  map[string]string
	}{
		{"all fits", Limits{2, 100}, []string{"a\n", "b\n"}, map[string]string{"0": "a\nb\n"}},
		{"between lines", Limits{3, 6}, []string{"one\ntwo\nthree\n"}, map[string]string{"0": "one\n", "1": "two\n", "2": "three\n"}},
		{"begun line moves on", Limits{3, 6}, []string{"one\n", "four"}, map[string]string{"0": "one\n", "1": "four"}},
		{"long line is cut", Limits{3, 4}, []string{"abcdefgh"}, map[string]string{"0": "abcd", "1": "efgh"}},
		{"oldest goes", Limits{2, 2}, []string{"a\n", "b\n", "c\n"}, map[string]string{"1": "b\n", "2": "c\n"}},
		{"nothing", Limits{2, 2}, nil, map[string]string{"0": ""}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, text := range tc.writes {
				// Opened again for each: it goes on where it left off.
				appendTo(t, dir, tc.limits, text)
			}
			appendTo(t, dir, tc.limits, "")
			must.Eq(t, tc.files, logFiles(t, dir))
		})
	}
}

func appendTo(t *testing.T, dir string, limits Limits, text string) {
	t.Helper()
	r, err := OpenRotated(dir, "web.stdout", limits)
	must.NoError(t, err)
	n, err := r.Write([]byte(text))
	must.NoError(t, err)
	must.Eq(t, len(text), n)
	must.NoError(t, r.Close())
}

func logFiles(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must.NoError(t, err)
	files := make(map[string]string)
	for _, entry := range entries {
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		must.NoError(t, err)
		files[strings.TrimPrefix(entry.Name(), "web.stdout.")] = string(text)
	}
	return files
}

// A container of the same group may write to the log folder.
func TestRotated_RefusesWhatWasReplaced(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	must.NoError(t, os.WriteFile(outside, nil, 0o600))
	traps := map[string]func(path string) error{
		"link out":  func(path string) error { return os.Symlink(outside, path) },
		"link in":   func(path string) error { return os.Symlink("other", path) },
		"pipe":      func(path string) error { return unix.Mkfifo(path, 0o666) },
		"directory": func(path string) error { return os.Mkdir(path, 0o777) },
	}
	for name, set := range traps {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must.NoError(t, set(filepath.Join(dir, "web.stdout.0")))
			_, err := OpenRotated(dir, "web.stdout", Limits{1, 1})
			must.ErrorContains(t, err, "web.stdout.0")
		})
	}
	text, err := os.ReadFile(outside)
	must.NoError(t, err)
	must.Eq(t, "", string(text))
}

func TestRotated_FullDiskLosesNothing(t *testing.T) {
	dir := t.TempDir()
	must.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { must.NoError(t, unix.Unmount(dir, 0)) })
	filler := filepath.Join(dir, "filler")
	must.NoError(t, os.WriteFile(filler, make([]byte, 60<<10), 0o600))

	g, spool := newGuest(t)
	sink, err := OpenRotated(dir, "web.stdout", Limits{1, 1 << 20})
	must.NoError(t, err)
	text := strings.Repeat("0123456789abcde\n", 1<<11) // 32 KiB
	g.print(text)
	p := Start(spool, sink, watch(t, g.path))
	awaitFull(t, filepath.Join(dir, "web.stdout.0"))
	must.NoError(t, os.Remove(filler))
	p.Finish(t.Context())
	must.Eq(t, map[string]string{"0": text}, logFiles(t, dir))
}

func awaitFull(t *testing.T, path string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		info, err := os.Stat(path)
		must.NoError(t, err)
		if info.Size() > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing was written before the disk was full")
		}
		time.Sleep(quiet) // another goroutine's write to a file
	}
}

func TestWatcher_ManyFiles(t *testing.T) {
	watcher, err := NewWatcher()
	must.NoError(t, err)
	defer watcher.Close()
	dir := t.TempDir()
	var all []<-chan struct{}
	for i := range 300 { // more than a user has inotify instances
		path := filepath.Join(dir, fmt.Sprint(i))
		must.NoError(t, os.WriteFile(path, nil, 0o600))
		events, err := watcher.Watch(path)
		must.NoError(t, err)
		all = append(all, events)
		must.NoError(t, os.WriteFile(path, []byte("x"), 0o600))
	}
	for i, events := range all {
		select {
		case <-events:
		case <-time.After(patience):
			t.Fatalf("no event of file %d", i)
		}
	}
	watcher.Forget(filepath.Join(dir, "0"))
	_, err = watcher.Watch(filepath.Join(dir, "none"))
	must.ErrorContains(t, err, "none")
}
