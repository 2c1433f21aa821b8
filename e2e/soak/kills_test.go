// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package soak

import (
	"math/rand/v2"
	"strings"
	"syscall"
	"time"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

// blow is a kill: of one task's QEMU, of the plugin or of the agent.
type blow struct {
	on         string    // qemu, plugin, agent
	allocation string    // whose QEMU
	from, to   time.Time // until it was there again
}

// startKilling kills n times, at random moments. It closes the returned channel
// when all is done; tasks have to come and go until then, to be killed.
func (s *soak) startKilling(n int) (done <-chan struct{}) {
	random := rand.New(rand.NewPCG(*seed, 0))
	all := make(chan struct{})
	go func() {
		defer close(all)
		for range n {
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(time.Duration(random.Int64N(int64(2 * time.Second)))):
			}
			if err := s.kill(random); err != nil && s.ctx.Err() == nil {
				s.t.Errorf("killing: %v", err)
				return
			}
		}
	}()
	s.t.Cleanup(func() {
		s.cancel()
		<-all
	})
	return all
}

func (s *soak) kill(random *rand.Rand) error {
	switch random.IntN(4) {
	case 0:
		defer s.strike("plugin", "")()
		return site.nomad.KillPlugin(s.ctx)
	case 1:
		defer s.strike("agent", "")()
		return site.nomad.RestartNode(s.ctx, syscall.SIGKILL)
	}
	return s.killQEMU(random)
}

// strike notes a kill before it is done; the returned function notes that what
// was killed is there again.
func (s *soak) strike(on, allocation string) (over func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := len(s.blows)
	s.blows = append(s.blows, blow{on: on, allocation: allocation, from: time.Now(), to: time.Now().Add(time.Hour)})
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.blows[i].to = time.Now()
	}
}

// killQEMU kills one of those that run, waiting for one.
func (s *soak) killQEMU(random *rand.Rand) error {
	for s.ctx.Err() == nil {
		all, err := harness.QEMUs()
		if err != nil {
			return err
		}
		if len(all) == 0 {
			time.Sleep(20 * time.Millisecond) // none tells when it starts
			continue
		}
		chosen := all[random.IntN(len(all))]
		allocation, _, _ := strings.Cut(chosen.Machine, ".")
		over := s.strike("qemu", allocation)
		err = chosen.Kill()
		over()
		if err == nil {
			return nil
		}
	}
	return s.ctx.Err()
}

// suffered tells what befell an allocation between two moments: whether its
// QEMU was killed, and whether plugin or agent were away.
func (s *soak) suffered(allocation string, from, to time.Time) (shot, shaken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.blows {
		shot = shot || b.allocation == allocation
		shaken = shaken || b.on != "qemu" && b.from.Before(to) && from.Before(b.to)
	}
	return shot, shaken
}
