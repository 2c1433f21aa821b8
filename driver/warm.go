// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/nomad/plugins/shared/hclspec"
	"golang.org/x/sys/unix"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/machine"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/warm"
)

// A warm start goes on from a guest that was saved once it was ready, in place
// of booting one: docs/warm.md tells what that means for guests.

// WarmConfig is about saved guests.
type WarmConfig struct {
	Enabled bool   `codec:"enabled"`
	Dir     string `codec:"dir"`
	MaxSize string `codec:"max_size"`
}

const defaultWarmSize = "1GiB"

var warmSpec = hclspec.NewObject(map[string]*hclspec.Spec{
	"enabled":  flag("enabled", true),
	"dir":      text("dir", ""),
	"max_size": text("max_size", defaultWarmSize),
})

// store makes the store of saved guests; nil: the operator allows none.
func (c *WarmConfig) store() (*warm.Store, error) {
	if c == nil { // no warm block at all
		c = &WarmConfig{Enabled: true, MaxSize: defaultWarmSize}
	}
	if c.Dir != "" && !filepath.IsAbs(c.Dir) {
		return nil, fmt.Errorf("warm.dir: %q is not an absolute path", c.Dir)
	}
	size, err := mebibytes("warm.max_size", c.MaxSize)
	if err != nil {
		return nil, err
	}
	if !c.Enabled {
		return nil, nil
	}
	return warm.NewStore(orElse(c.Dir, defaultWarmDir()), size<<20), nil
}

// defaultWarmDir holds what can be made again, on a disk: a tmpfs would take
// the memory that unikernels are to save.
func defaultWarmDir() string {
	const name = "nomad-driver-unikernel-warm"
	if os.Geteuid() == 0 {
		return filepath.Join("/var/cache", name)
	}
	return filepath.Join(os.TempDir(), name+"-"+fmt.Sprint(os.Geteuid()))
}

// checkWarm refuses what cannot be saved, or would never be found again.
func (l *launch) checkWarm() error {
	if !l.wish.Warm {
		return nil
	}
	fail := func(format string, args ...any) error { return fmt.Errorf("config.warm: "+format, args...) }
	switch {
	case l.settings.warm == nil:
		return fail("the operator of this node allows no saved guests (plugin option warm.enabled): set warm = false")
	case l.wish.ready == nil && l.wish.Ready.Port == "":
		return fail("a guest is saved once it is ready: say what that is, by ready { port } or ready { pattern }")
	case len(l.content.disks) > 0:
		return fail("a guest with a disk cannot be saved, as the disk would go on without it: mount files by initrd, or set warm = false")
	case len(l.content.shares) > 0:
		return fail("QEMU cannot save a guest with a 9p folder: mount files by initrd, or set warm = false")
	}
	for _, port := range l.ports {
		if mapping, ok := l.task.Resources.Ports.Get(port.Label); ok && mapping.To <= 0 {
			return fail("port %q has no `to`, so the guest would listen on another port each time: set `to` in the group's network block", port.Label)
		}
	}
	return nil
}

// lasting are Nomad's variables that are the same for each allocation of a
// task on a node. A guest that is saved is told no others.
var lasting = []string{
	"NOMAD_JOB_", "NOMAD_TASK_NAME", "NOMAD_GROUP_NAME", "NOMAD_NAMESPACE", "NOMAD_REGION", "NOMAD_DC",
	"NOMAD_META_", "NOMAD_PORT_", "NOMAD_ALLOC_PORT_", "NOMAD_CPU_", "NOMAD_MEMORY_", "NOMAD_TASK_DIR", "NOMAD_ALLOC_DIR", "NOMAD_SECRETS_DIR",
}

func lastingOnly(env map[string]string) map[string]string {
	kept := make(map[string]string)
	for key, value := range env {
		for _, prefix := range lasting {
			if strings.HasPrefix(key, prefix) {
				kept[key] = value
			}
		}
	}
	return kept
}

// start boots the guest, or goes on from a saved one, and waits until it is up.
func (l *launch) start(ctx context.Context, config machine.Config) (*machine.Machine, error) {
	if !l.wish.Warm {
		return l.startCold(ctx, config)
	}
	key, err := l.warmKey(config)
	if err != nil {
		return nil, err
	}
	m, err := l.startWarm(ctx, key, config)
	if err == nil {
		l.restored = true
		return m, nil
	}
	if !errors.Is(err, warm.ErrNone) {
		l.progress(fmt.Sprintf("The saved guest is of no use, so this one boots: %v", err))
	}
	if m, err = l.startCold(ctx, config); err != nil {
		return nil, err
	}
	if err := l.save(ctx, key, m); err != nil {
		m.Kill()
		return nil, err
	}
	return m, nil
}

// startWarm goes on from a saved guest. A state that does not work is removed.
func (l *launch) startWarm(ctx context.Context, key warm.Key, config machine.Config) (*machine.Machine, error) {
	state, err := l.settings.warm.Open(key)
	if err != nil {
		return nil, err
	}
	defer state.Close()
	config.Restore = state
	m, err := l.startMachine(ctx, config)
	if err == nil {
		err = l.answers(ctx, m)
	}
	if err != nil {
		return nil, errors.Join(err, l.settings.warm.Drop(key))
	}
	return m, nil
}

// answers proves that a restored guest goes on, where the job names a port to
// ask. Its ready line was printed before it was saved.
func (l *launch) answers(ctx context.Context, m *machine.Machine) error {
	if l.wish.Ready.Port == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, l.wish.readyTimeout)
	defer cancel()
	if err := l.awaitPort(ctx, m); err != nil {
		m.Kill()
		return errors.Join(err, m.Remove())
	}
	return nil
}

// save keeps the guest for later starts. Where that fails this guest goes on
// all the same; an error means that it does not.
func (l *launch) save(ctx context.Context, key warm.Key, m *machine.Machine) error {
	size, err := l.keep(ctx, key, m)
	switch {
	case err == nil:
		l.progress(fmt.Sprintf("Saved the guest for warm starts (%d MiB)", size>>20))
	case errors.Is(err, machine.ErrStuck):
		return err
	case !errors.Is(err, warm.ErrBusy):
		l.progress(fmt.Sprintf("The guest was not saved for warm starts: %v", err))
	}
	return nil
}

func (l *launch) keep(ctx context.Context, key warm.Key, m *machine.Machine) (size int64, err error) {
	draft, err := l.settings.warm.Begin(key)
	if err != nil {
		return 0, err
	}
	defer draft.Close()
	saving, cancel := context.WithTimeout(ctx, qemuTimeout)
	defer cancel()
	l.reached(stepSaving)
	if err := m.Save(saving, draft.File()); err != nil {
		return 0, err
	}
	l.reached(stepSaved)
	return draft.Commit()
}

// kept is all that a saved guest depends on. Guests of different jobs never
// share a state: one that was saved with bad intent would harm another's.
type kept struct {
	Version                     int // of this structure
	Namespace, Job, Group, Task string

	QEMU, Host     string
	Kernel, Initrd string // digests
	CommandLine    string
	Machine        []string
	MemoryMiB      int64
	CPUs           int
	Network        []string
	ExtraArgs      []string
	Ready          ReadyConfig
}

func (l *launch) warmKey(config machine.Config) (warm.Key, error) {
	if strings.Contains(config.CommandLine, l.task.AllocID) {
		return "", fmt.Errorf("config.warm: the guest's arguments or environment hold the allocation's ID %s, which no other allocation has: leave it out, or set warm = false", l.task.AllocID)
	}
	on := kept{
		Version: 1, Namespace: l.task.Namespace, Job: l.task.JobID, Group: l.task.TaskGroupName, Task: l.task.Name,
		CommandLine: config.CommandLine,
		Machine: []string{string(config.Arch), string(config.Accelerator), config.Type, config.CPU, config.GIC,
			config.Panic},
		MemoryMiB: config.MemoryMiB, CPUs: config.CPUs, ExtraArgs: config.ExtraArgs, Ready: l.wish.Ready,
	}
	for _, nic := range config.NICs {
		// The back end's kind decides what the card offers the guest.
		on.Network = append(on.Network, nic.Device, nic.Properties, nic.MAC, fmt.Sprint(len(nic.Files)))
	}
	if l.wish.DHCP && l.nic != nil {
		on.Network = append(on.Network, fmt.Sprint(l.nic.Net)) // the command line does not hold it
	}
	var err error
	if on.QEMU, err = identity(config.QEMU); err != nil {
		return "", fmt.Errorf("config.warm: %w", err)
	}
	if on.Host, err = kernelRelease(); err != nil {
		return "", fmt.Errorf("config.warm: %w", err)
	}
	if on.Kernel, err = digest(config.Kernel); err != nil {
		return "", fmt.Errorf("config.warm: %w", err)
	}
	if on.Initrd, err = digest(config.Initrd); err != nil {
		return "", fmt.Errorf("config.warm: %w", err)
	}
	return warm.KeyOf(on)
}

// identity tells a program from the one that an update puts in its place.
func identity(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("looking at QEMU: %w", err)
	}
	return fmt.Sprint(path, " ", info.Size(), " ", info.ModTime().UnixNano()), nil
}

// kernelRelease is the host's, whose KVM a saved guest has met.
func kernelRelease() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", fmt.Errorf("looking at the host's kernel: %w", err)
	}
	return unix.ByteSliceToString(name.Release[:]), nil
}

// digest is the SHA-256 of a file's content; of nil it is empty.
func digest(file *os.File) (string, error) {
	if file == nil {
		return "", nil
	}
	info, err := file.Stat()
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", file.Name(), err)
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(file, 0, info.Size())); err != nil {
		return "", fmt.Errorf("reading %s: %w", file.Name(), err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
