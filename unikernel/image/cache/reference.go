// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Reference is what a reference resolved to when it was last asked for.
type Reference struct {
	Name     string // the reference and what was chosen of it
	Key      string // the image's
	Resolved time.Time
	Proof    []byte `json:",omitempty"` // the caller's own: what let the image be used
}

// Key makes the key of an image of the values that tell it from all others.
func Key(values ...string) string {
	hash := sha256.New()
	for _, value := range values {
		fmt.Fprintf(hash, "%d:%s", len(value), value)
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// Resolved returns what a reference last resolved to; fs.ErrNotExist where it
// never did.
func (c *Cache) Resolved(name string) (Reference, error) {
	text, err := os.ReadFile(c.referencePath(name))
	if err != nil {
		return Reference{}, err
	}
	var reference Reference
	if err := json.Unmarshal(text, &reference); err != nil || checkKey(reference.Key) != nil {
		return Reference{}, fs.ErrNotExist // half-written by a failing disk: as good as none
	}
	return reference, nil
}

// Resolve remembers what a reference resolved to.
func (c *Cache) Resolve(name, key string, proof []byte) error {
	text, err := json.Marshal(Reference{name, key, time.Now().UTC(), proof})
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(c.Temp(), "reference-*")
	if err != nil {
		return fmt.Errorf("image cache: %w", err)
	}
	file.Close()
	if err := writeSynced(file.Name(), text); err != nil {
		os.Remove(file.Name())
		return fmt.Errorf("image cache: %w", err)
	}
	return os.Rename(file.Name(), c.referencePath(name))
}

func (c *Cache) referencePath(name string) string {
	return c.path(referencesDir, Key(name)+".json")
}

// references lists all that is remembered.
func (c *Cache) references() (map[string]Reference, error) {
	paths, err := filepath.Glob(c.path(referencesDir, "*.json"))
	if err != nil {
		return nil, err
	}
	found := map[string]Reference{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		var reference Reference
		_ = json.Unmarshal(text, &reference) // a damaged one has no key and is cleared
		found[path] = reference
	}
	return found, nil
}
