// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package output

import (
	"fmt"
	"sync"

	"github.com/fsnotify/fsnotify"
)

// Watcher tells when spools grow, for all spools by one inotify instance: a
// user has 128 of these on most machines.
type Watcher struct {
	watcher *fsnotify.Watcher
	done    chan struct{}

	mu      sync.Mutex
	waiting map[string]chan struct{} // by the spool's path
}

// NewWatcher begins to watch, until Close.
func NewWatcher() (*Watcher, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watching for output: %w", err)
	}
	w := &Watcher{watcher: watcher, done: make(chan struct{}), waiting: make(map[string]chan struct{})}
	go w.run()
	return w, nil
}

// Watch returns a channel on which an event waits whenever the file at path
// was written to since the last one was taken.
func (w *Watcher) Watch(path string) (<-chan struct{}, error) {
	events := make(chan struct{}, 1)
	w.mu.Lock()
	w.waiting[path] = events
	w.mu.Unlock()
	if err := w.watcher.Add(path); err != nil {
		w.forget(path)
		return nil, fmt.Errorf("watching %s for output: %w", path, err)
	}
	return events, nil
}

// Forget ends a Watch.
func (w *Watcher) Forget(path string) {
	w.forget(path)
	_ = w.watcher.Remove(path) // gone with the file, otherwise
}

func (w *Watcher) forget(path string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.waiting, path)
}

// Close ends the watcher.
func (w *Watcher) Close() {
	_ = w.watcher.Close()
	<-w.done
}

func (w *Watcher) run() {
	defer close(w.done)
	for {
		select {
		case event, ok := <-w.watcher.Events:
			if !ok {
				return
			}
			w.poke(event.Name)
		case _, ok := <-w.watcher.Errors:
			if !ok {
				return
			}
			w.pokeAll() // the kernel's queue overflowed: anyone's event may be lost
		}
	}
}

func (w *Watcher) poke(path string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if events, ok := w.waiting[path]; ok {
		wake(events)
	}
}

func (w *Watcher) pokeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, events := range w.waiting {
		wake(events)
	}
}

func wake(events chan<- struct{}) {
	select {
	case events <- struct{}{}:
	default: // one waits already
	}
}
