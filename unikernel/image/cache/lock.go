// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// pollEvery is how often another process's lock is tried again. flock(2) can
// be awaited only by a thread that nothing interrupts, so it is asked instead;
// tasks of this process wait for each other by a channel.
const pollEvery = 100 * time.Millisecond

// Lock makes the caller the only one, of all processes, to pull a key, until
// it calls unlock. waiting is called once if another is pulling it now.
func (c *Cache) Lock(ctx context.Context, key string, waiting func()) (unlock func(), err error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	leave, waited, err := c.enter(ctx, key, waiting)
	if err != nil {
		return nil, err
	}
	if waited {
		waiting = func() {}
	}
	file, err := c.lockFile(ctx, key, waiting)
	if err != nil {
		leave()
		return nil, err
	}
	return func() {
		os.Remove(file.Name()) // while it is held: see lockFile
		file.Close()
		leave()
	}, nil
}

// enter waits for other pulls of the key in this process.
func (c *Cache) enter(ctx context.Context, key string, waiting func()) (leave func(), waited bool, err error) {
	for {
		c.mu.Lock()
		other, busy := c.pulling[key]
		if !busy {
			done := make(chan struct{})
			c.pulling[key] = done
			c.mu.Unlock()
			return func() {
				c.mu.Lock()
				delete(c.pulling, key)
				c.mu.Unlock()
				close(done)
			}, waited, nil
		}
		c.mu.Unlock()
		if !waited {
			waited = true
			waiting()
		}
		select {
		case <-other:
		case <-ctx.Done():
			return nil, waited, ctx.Err()
		}
	}
}

// lockFile waits for other processes' pulls of the key.
func (c *Cache) lockFile(ctx context.Context, key string, waiting func()) (*os.File, error) {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for told := false; ; {
		file, err := c.tryLock(key)
		if err == nil || !errors.Is(err, ErrInUse) {
			return file, err
		}
		if !told {
			told = true
			waiting()
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// tryLock locks a key's lock file, or fails with ErrInUse.
func (c *Cache) tryLock(key string) (*os.File, error) {
	for {
		file, err := os.OpenFile(c.path(locksDir, key), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, fmt.Errorf("image cache: %w", err)
		}
		if err := flock(file, unix.LOCK_EX|unix.LOCK_NB); err != nil {
			file.Close()
			return nil, err
		}
		// The holder removes the file, so the one just locked may be gone and
		// another have its name.
		if isStill(file) {
			return file, nil
		}
		file.Close()
	}
}

// isStill tells whether an open file is the one that its name leads to.
func isStill(file *os.File) bool {
	opened, err := file.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(file.Name())
	return err == nil && os.SameFile(opened, named)
}

// flock locks a file; ErrInUse where another has it and LOCK_NB was given.
func flock(file *os.File, how int) error {
	for {
		err := unix.Flock(int(file.Fd()), how)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return ErrInUse
		default:
			return fmt.Errorf("lock %s: %w", file.Name(), err)
		}
	}
}
