// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package warm

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoenig/test/must"
)

func newStore(t *testing.T, maxBytes int64) *Store {
	t.Helper()
	return NewStore(filepath.Join(t.TempDir(), "warm"), maxBytes)
}

func keyOf(t *testing.T, on any) Key {
	t.Helper()
	key, err := KeyOf(on)
	must.NoError(t, err)
	return key
}

func keep(t *testing.T, s *Store, key Key, text string) {
	t.Helper()
	draft, err := s.Begin(key)
	must.NoError(t, err)
	defer draft.Close()
	_, err = draft.File().WriteString(text)
	must.NoError(t, err)
	_, err = draft.Commit()
	must.NoError(t, err)
}

func read(t *testing.T, s *Store, key Key) string {
	t.Helper()
	file, err := s.Open(key)
	must.NoError(t, err)
	defer file.Close()
	text, err := io.ReadAll(file)
	must.NoError(t, err)
	return string(text)
}

func TestKeyOf(t *testing.T) {
	type on struct{ A, B string }
	must.Eq(t, keyOf(t, on{"x", "y"}), keyOf(t, on{"x", "y"}))
	must.NotEq(t, keyOf(t, on{"x", "y"}), keyOf(t, on{"xy", ""}))
	_, err := KeyOf(make(chan int))
	must.Error(t, err)
}

func TestStore_KeepsAndFinds(t *testing.T) {
	s := newStore(t, 1<<20)
	key := keyOf(t, "guest")
	_, err := s.Open(key)
	must.ErrorIs(t, err, ErrNone)
	keep(t, s, key, "state")
	must.Eq(t, "state", read(t, s, key))
	must.Eq(t, "state", read(t, NewStore(s.dir, 1<<20), key))
	_, err = s.Open(keyOf(t, "another"))
	must.ErrorIs(t, err, ErrNone)
	must.NoError(t, s.Drop(key))
	must.NoError(t, s.Drop(key))
	_, err = s.Open(key)
	must.ErrorIs(t, err, ErrNone)
}

func TestStore_IsPrivate(t *testing.T) {
	s := newStore(t, 1<<20)
	keep(t, s, keyOf(t, "guest"), "secret")
	dir, err := os.Stat(s.dir)
	must.NoError(t, err)
	must.Eq(t, 0o700, dir.Mode().Perm())
	state, err := os.Stat(s.path(keyOf(t, "guest")))
	must.NoError(t, err)
	must.Eq(t, 0o600, state.Mode().Perm())
}

func TestStore_RefusesWhatIsDamaged(t *testing.T) {
	key := "guest"
	harms := map[string]func(t *testing.T, path string){
		"a byte": func(t *testing.T, path string) {
			file, err := os.OpenFile(path, os.O_WRONLY, 0)
			must.NoError(t, err)
			defer file.Close()
			_, err = file.WriteAt([]byte("X"), headerSize+2)
			must.NoError(t, err)
		},
		"cut": func(t *testing.T, path string) { must.NoError(t, os.Truncate(path, headerSize+2)) },
		"cut in the header": func(t *testing.T, path string) {
			must.NoError(t, os.Truncate(path, 5))
		},
		"no header": func(t *testing.T, path string) {
			must.NoError(t, os.WriteFile(path, make([]byte, 2*headerSize), 0o600))
		},
		"another's": func(t *testing.T, path string) {
			dir := filepath.Dir(path)
			must.NoError(t, os.Rename(filepath.Join(dir, string(keyOf(t, "other"))+stateSuffix), path))
		},
	}
	for name, harm := range harms {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, 1<<20)
			keep(t, s, keyOf(t, "other"), "other")
			keep(t, s, keyOf(t, key), "state")
			harm(t, s.path(keyOf(t, key)))
			_, err := s.Open(keyOf(t, key))
			must.ErrorContains(t, err, "saved guest")
			_, err = s.Open(keyOf(t, key))
			must.ErrorIs(t, err, ErrNone) // it is gone
		})
	}
}

func TestStore_OneSavesAtATime(t *testing.T) {
	s := newStore(t, 1<<20)
	key := keyOf(t, "guest")
	draft, err := s.Begin(key)
	must.NoError(t, err)
	_, err = s.Begin(key)
	must.ErrorIs(t, err, ErrBusy)
	other, err := s.Begin(keyOf(t, "another"))
	must.NoError(t, err)
	must.NoError(t, other.Close())
	must.NoError(t, draft.Close())
	draft, err = s.Begin(key)
	must.NoError(t, err)
	must.NoError(t, draft.Close())
}

func TestStore_LeastRecentlyUsedGoes(t *testing.T) {
	s := newStore(t, 2*(headerSize+4))
	for i, name := range []string{"first", "second"} {
		keep(t, s, keyOf(t, name), "four")
		past := time.Now().Add(time.Duration(i-10) * time.Minute)
		must.NoError(t, os.Chtimes(s.path(keyOf(t, name)), past, past))
	}
	must.Eq(t, "four", read(t, s, keyOf(t, "first"))) // used just now
	keep(t, s, keyOf(t, "third"), "four")
	_, err := s.Open(keyOf(t, "second"))
	must.ErrorIs(t, err, ErrNone)
	must.Eq(t, "four", read(t, s, keyOf(t, "first")))
	must.Eq(t, "four", read(t, s, keyOf(t, "third")))
}

func TestStore_TooLarge(t *testing.T) {
	s := newStore(t, 8)
	draft, err := s.Begin(keyOf(t, "guest"))
	must.NoError(t, err)
	defer draft.Close()
	_, err = draft.File().WriteString("nine byte")
	must.NoError(t, err)
	_, err = draft.Commit()
	must.ErrorContains(t, err, "more than the store may hold")
	left, err := os.ReadDir(s.dir)
	must.NoError(t, err)
	must.SliceEmpty(t, left)
}

// A crash in the middle of a save leaves no state, and its rest is removed.
func TestStore_CrashInTheMiddle(t *testing.T) {
	s := newStore(t, 1<<20)
	draft, err := s.Begin(keyOf(t, "guest"))
	must.NoError(t, err)
	_, err = draft.File().WriteString("half")
	must.NoError(t, err)
	must.NoError(t, draft.File().Close()) // as the kernel does for a process that dies
	left := filepath.Join(s.dir, draftPrefix+"left")
	must.NoError(t, os.WriteFile(left, []byte("half"), 0o600))
	fresh := NewStore(s.dir, 1<<20)
	_, err = os.Stat(left)
	must.NoError(t, err) // another agent may be writing it
	past := time.Now().Add(-2 * draftAge)
	must.NoError(t, os.Chtimes(left, past, past))
	_ = NewStore(s.dir, 1<<20)
	entries, err := os.ReadDir(s.dir)
	must.NoError(t, err)
	must.SliceEmpty(t, entries)
	_, err = fresh.Open(keyOf(t, "guest"))
	must.ErrorIs(t, err, ErrNone)
}

// What QEMU writes after the state was kept is not in it.
func TestDraft_IsCopied(t *testing.T) {
	s := newStore(t, 1<<20)
	draft, err := s.Begin(keyOf(t, "guest"))
	must.NoError(t, err)
	defer draft.Close()
	_, err = draft.File().WriteString("state")
	must.NoError(t, err)
	_, err = draft.Commit()
	must.NoError(t, err)
	_, err = draft.File().WriteAt([]byte("EVIL!"), 0)
	must.NoError(t, err)
	must.Eq(t, "state", read(t, s, keyOf(t, "guest")))
}
