// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/image"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/output"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/probe"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/warm"
)

// PluginConfig is the plugin's config block, as pluginSpec describes it.
type PluginConfig struct {
	ImagePaths     []string       `codec:"image_paths"`
	User           string         `codec:"user"`
	Emulation      bool           `codec:"emulation"`
	MemoryOverhead string         `codec:"memory_overhead"`
	ArgsAllowlist  []string       `codec:"args_allowlist"`
	QEMU           QEMUConfig     `codec:"qemu"`
	Cache          CacheConfig    `codec:"cache"`
	Verify         []VerifyConfig `codec:"verify"`
	Logs           LogsConfig     `codec:"logs"`
	Warm           *WarmConfig    `codec:"warm"`
	GC             *GCConfig      `codec:"gc"`
}

// QEMUConfig names QEMU binaries; empty: looked up in PATH.
type QEMUConfig struct {
	ARM64  string `codec:"arm64"`
	X86_64 string `codec:"x86_64"`
}

// GCConfig is about what no task owns.
type GCConfig struct {
	Orphans bool `codec:"orphans"`
}

// settings is a PluginConfig that was checked.
type settings struct {
	PluginConfig
	overheadMiB  int64
	cacheSizeMiB int64
	credential   *syscall.Credential // nil: as this process
	allowed      []*regexp.Regexp
	logLimits    output.Limits
	warm         *warm.Store // nil: none
}

// check makes settings, or reports every option that cannot work.
func (c PluginConfig) check() (*settings, error) {
	s := &settings{PluginConfig: c}
	var errs []error
	for _, path := range c.ImagePaths {
		if !filepath.IsAbs(path) {
			errs = append(errs, fmt.Errorf("image_paths: %q is not an absolute path", path))
		}
	}
	var err error
	if s.overheadMiB, err = mebibytes("memory_overhead", c.MemoryOverhead); err != nil {
		errs = append(errs, err)
	}
	if c.Cache.MaxSize != "" {
		if s.cacheSizeMiB, err = mebibytes("cache.max_size", c.Cache.MaxSize); err != nil {
			errs = append(errs, err)
		}
	}
	if s.logLimits, err = c.Logs.check(); err != nil {
		errs = append(errs, err)
	}
	if s.warm, err = c.Warm.store(); err != nil {
		errs = append(errs, err)
	}
	if s.credential, err = probe.Credential(c.User); err != nil {
		errs = append(errs, fmt.Errorf("user: %w", err))
	}
	for _, pattern := range c.ArgsAllowlist {
		// Matched against whole arguments, so that no pattern allows more
		// than it shows.
		re, err := regexp.Compile(`\A(?:` + pattern + `)\z`)
		if err != nil {
			errs = append(errs, fmt.Errorf("args_allowlist: %q: %w", pattern, err))
			continue
		}
		s.allowed = append(s.allowed, re)
	}
	return s, errors.Join(errs...)
}

func mebibytes(name, value string) (int64, error) {
	bytes, err := humanize.ParseBytes(value)
	if err != nil {
		return 0, fmt.Errorf(`%s: %q is not a size, such as "24MiB"`, name, value)
	}
	const mib = 1 << 20
	return int64((bytes + mib - 1) / mib), nil
}

func (s *settings) qemuPaths() map[guest.Arch]string {
	return map[guest.Arch]string{guest.ARM64: s.QEMU.ARM64, guest.X86_64: s.QEMU.X86_64}
}

// TaskConfig is a task's config block, as taskSpec describes it.
type TaskConfig struct {
	Image        string        `codec:"image"`
	Pull         string        `codec:"pull"`
	Initrd       string        `codec:"initrd"`
	Guest        string        `codec:"guest"`
	GuestVersion string        `codec:"guest_version"`
	Arch         string        `codec:"arch"`
	Args         []string      `codec:"args"`
	KernelArgs   []string      `codec:"kernel_args"`
	Ports        []string      `codec:"ports"`
	NetworkMode  string        `codec:"network_mode"`
	DHCP         bool          `codec:"dhcp"`
	Accelerator  string        `codec:"accelerator"`
	Machine      MachineConfig `codec:"machine"`
	Ready        ReadyConfig   `codec:"ready"`
	Warm         bool          `codec:"warm"`
	Mounts       []MountConfig `codec:"mount"`
	ExtraArgs    []string      `codec:"extra_args"`
}

// MachineConfig overrides what the guest's family asks for.
type MachineConfig struct {
	Type string `codec:"type"`
	CPU  string `codec:"cpu"`
	GIC  string `codec:"gic"`
}

// ReadyConfig says when a guest is up.
type ReadyConfig struct {
	Pattern string `codec:"pattern"`
	Port    string `codec:"port"`
	Timeout string `codec:"timeout"`
}

// MountConfig is a file or folder that the guest is to find.
type MountConfig struct {
	Source    string `codec:"source"`
	Target    string `codec:"target"`
	ReadOnly  bool   `codec:"readonly"`
	Transport string `codec:"transport"`
	Format    string `codec:"format"`
}

// defaultReadyTimeout is how long a guest has to get ready.
const defaultReadyTimeout = 60 * time.Second

// wish is a TaskConfig that was checked on its own, without looking at the
// node or at the image.
type wish struct {
	TaskConfig
	family       guest.Family // empty: as the image tells
	arch         guest.Arch   // empty: as the image tells
	ready        *regexp.Regexp
	readyTimeout time.Duration
	pull         image.Pull
	mounts       []mount
}

// check makes a wish, or reports every field that cannot work.
func (c TaskConfig) check(allowed []*regexp.Regexp) (*wish, error) {
	w := &wish{TaskConfig: c, readyTimeout: defaultReadyTimeout}
	var errs []error
	fail := func(field string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("config.%s: %w", field, err))
		}
	}
	var err error
	if c.Guest != "" && c.Guest != "auto" {
		w.family, err = guest.ParseFamily(c.Guest)
		fail("guest", err)
	}
	if c.Arch != "" {
		w.arch, err = guest.ParseArch(c.Arch)
		fail("arch", err)
	}
	w.pull, err = image.ParsePull(c.Pull)
	fail("pull", err)
	for _, m := range c.Mounts {
		checked, err := m.check()
		fail("mount", err)
		w.mounts = append(w.mounts, checked)
	}
	if c.Ready.Pattern != "" {
		w.ready, err = regexp.Compile(c.Ready.Pattern)
		fail("ready.pattern", err)
	}
	if c.Ready.Port != "" && !slices.Contains(c.Ports, c.Ready.Port) {
		fail("ready.port", fmt.Errorf("%q is none of config.ports %q: add it there", c.Ready.Port, c.Ports))
	}
	if c.Ready.Timeout != "" {
		w.readyTimeout, err = positiveDuration(c.Ready.Timeout)
		fail("ready.timeout", err)
	}
	fail("ports", c.checkPorts())
	fail("network_mode", c.checkNetworkMode())
	fail("accelerator", checkAccelerator(c.Accelerator))
	fail("machine.gic", checkGIC(c.Machine.GIC))
	fail("machine.type", checkWord(c.Machine.Type, machineType, "virt or pc"))
	fail("machine.cpu", checkWord(c.Machine.CPU, cpuModelName, "max or host,-pmu"))
	for _, arg := range c.ExtraArgs {
		fail("extra_args", checkExtraArg(arg, allowed))
	}
	return w, errors.Join(errs...)
}

func positiveDuration(value string) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err == nil && d <= 0 {
		err = fmt.Errorf("%q is no time to wait: use one like 10s", value)
	}
	return d, err
}

func checkAccelerator(value string) error {
	switch value {
	case "", "auto", "kvm", "tcg":
		return nil
	}
	return fmt.Errorf("unknown accelerator %q: use auto, kvm or tcg", value)
}

func checkGIC(value string) error {
	switch value {
	case "", "2", "3", "4", "host", "max":
		return nil
	}
	return fmt.Errorf("unknown GIC version %q: use 2, 3, 4, host or max", value)
}

// What QEMU takes as a machine type and as a CPU model with its features. No
// other option of QEMU fits into these.
var (
	machineType  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	cpuModelName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*(,[+-][A-Za-z0-9._-]+|,[a-z0-9._-]+=(on|off))*$`)
)

func checkWord(value string, pattern *regexp.Regexp, example string) error {
	if value == "" || pattern.MatchString(value) {
		return nil
	}
	return fmt.Errorf("%q is no such name: use one like %s", value, example)
}

func checkExtraArg(arg string, allowed []*regexp.Regexp) error {
	for _, re := range allowed {
		if re.MatchString(arg) {
			return nil
		}
	}
	return fmt.Errorf("%q matches no pattern of the plugin option args_allowlist, so the operator does not allow it", arg)
}
