// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/cgroup"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/image"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/machine"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/network"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/output"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/probe"
)

// qemuTimeout bounds the time from starting QEMU to its letting the guest run.
// It needs tens of milliseconds; a busy board needs more.
const qemuTimeout = 60 * time.Second

// launch is one start of a task, on its way.
type launch struct {
	d        *Driver
	settings *settings
	task     *drivers.TaskConfig
	wish     *wish

	image   *image.Image
	content content
	guest   guest.Guest
	node    probe.Result
	accel   machine.Accelerator
	qemu    string
	ramMiB  int64

	hardware hardware

	ports  []network.Port
	nic    *network.NIC
	dhcp   *network.DHCP // nil: none is needed
	group  *cgroup.Group
	shares int64 // of the processor, once it is up
	logs   *logs
	state  taskState
	record *record
	laps   laps

	restored bool // the guest was saved by an earlier start
}

// StartTask boots a task's guest. All that can be refused is refused before
// anything is acquired; a start that fails later gives everything back.
func (d *Driver) StartTask(config *drivers.TaskConfig) (*drivers.TaskHandle, *drivers.DriverNetwork, error) {
	defer d.starts.take(config.ID)()
	if _, err := d.tasks.get(config.ID); err == nil {
		return nil, nil, fmt.Errorf("task %s is started already", config.ID)
	}
	if err := d.removeEarlier(d.ctx, config.ID); err != nil {
		return nil, nil, passing{err}
	}
	took := startLaps()
	l, err := d.prepare(d.ctx, config)
	if err != nil {
		d.releaseLogmon(config)
		return nil, nil, refusal(err)
	}
	defer l.image.Close()
	l.laps = took
	l.laps.lap("prepare")

	m, err := l.run(d.ctx)
	if err != nil {
		return nil, nil, passing{l.giveUp(err)}
	}
	handle, err := l.handle()
	if err != nil {
		m.Kill()
		return nil, nil, passing{l.giveUp(err)}
	}
	d.adopt(&task{config: config, state: l.state, record: l.record, machine: m, cgroup: l.group, dhcp: l.dhcp, logs: l.logs})
	d.tell(config, "%s", l.summary())
	d.logStart(config.ID, l.laps, m)
	return handle, l.driverNetwork(), nil
}

// giveUp gives back what a failed start had acquired. The machine has ended.
func (l *launch) giveUp(err error) error {
	l.logs.finish("")
	l.dhcp.Close()
	if l.record == nil {
		return err
	}
	l.state.Machine.Dir = l.record.machineDir() // which may be left where the machine's start failed
	return errors.Join(err, l.record.settle(l.d.ctx, l.state))
}

// adopt makes a task known and follows it to its end.
func (d *Driver) adopt(t *task) {
	t.adopted = time.Now()
	t.done = make(chan struct{})
	d.tasks.put(t)
	go d.follow(t)
}

// prepare checks all that can be checked and acquires nothing but the image's
// open files.
func (d *Driver) prepare(ctx context.Context, config *drivers.TaskConfig) (*launch, error) {
	settings, images, err := d.configured()
	if err != nil {
		return nil, err
	}
	var raw TaskConfig
	if err := config.DecodeDriverConfig(&raw); err != nil {
		return nil, fmt.Errorf("decoding the task's config: %w", err)
	}
	wish, err := raw.check(settings.allowed)
	if err != nil {
		return nil, err
	}
	l := &launch{d: d, settings: settings, task: config, wish: wish}
	if l.ports, err = portsOf(config, wish.Ports); err != nil {
		return nil, err
	}
	if l.image, err = images.Open(ctx, l.imageRequest(), l.progress); err != nil {
		return nil, err
	}
	if err := l.settle(ctx, images); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// close closes the files that the machine was started with, which holds them
// itself.
func (l *launch) close() {
	l.image.Close()
	l.content.close()
}

func (l *launch) imageRequest() image.Request {
	dir := l.task.TaskDir()
	return image.Request{
		Image:      l.wish.Image,
		Initrd:     l.wish.Initrd,
		Family:     l.wish.family,
		Release:    l.wish.GuestVersion,
		Arch:       l.wish.arch,
		Pull:       l.wish.pull,
		Host:       guest.HostArch(),
		TaskDir:    dir.Dir,
		AllocDir:   dir.SharedAllocDir,
		ImagePaths: l.settings.ImagePaths,
	}
}

func (l *launch) progress(message string) { l.d.tell(l.task, "%s", message) }

// settle decides what follows from image and node together.
func (l *launch) settle(ctx context.Context, images *image.Store) error {
	if l.image.Family == "" {
		return fmt.Errorf("config.guest: image %s does not tell what guest it is: set guest to one of %v",
			l.image.Source, guest.Families)
	}
	var err error
	if l.guest, err = guest.For(l.image.Family, l.image.Release, l.image.Arch); err != nil {
		return fmt.Errorf("config.guest: %w", err)
	}
	if err := l.checkNICs(); err != nil {
		return err
	}
	if err := l.chooseAccelerator(ctx); err != nil {
		return err
	}
	if err := l.chooseHardware(); err != nil {
		return err
	}
	if err := l.chooseMemory(); err != nil {
		return err
	}
	if err := l.openContent(images); err != nil {
		return err
	}
	return l.checkWarm()
}

// chooseMemory gives the guest what QEMU's own share leaves of the task's memory.
func (l *launch) chooseMemory() error {
	reserved := l.task.Resources.NomadResources.Memory.MemoryMB // MiB, whatever its name says
	overhead := l.settings.overheadMiB
	l.ramMiB = reserved - overhead
	devices := l.guest.Devices()
	if least := max(devices.MinMemoryMiB, 1); l.ramMiB < least {
		return fmt.Errorf("resources.memory = %d: QEMU itself takes %d MiB of it (memory_overhead), and a %s guest on %s needs at least %d MiB: set memory to %d or more",
			reserved, overhead, l.image.Family, l.image.Arch, least, least+overhead)
	}
	if most := devices.MaxMemoryMiB; most > 0 && l.ramMiB > most {
		l.ramMiB = most
	}
	return nil
}

// run acquires what the machine needs, recording each step, and starts it.
func (l *launch) run(ctx context.Context) (*machine.Machine, error) {
	if err := l.d.makeRunDir(); err != nil {
		return nil, err
	}
	var err error
	if l.record, err = openRecord(l.d.runDir, machineID(l.task.ID)); err != nil {
		return nil, err
	}
	l.state = taskState{
		TaskID: l.task.ID, AllocDir: l.task.AllocDir, Started: time.Now(),
		Family: l.image.Family, Release: l.image.Release, Arch: l.image.Arch,
	}
	if err := l.record.save(l.state); err != nil {
		return nil, err
	}
	l.reached(stepRecorded)
	if err := l.limit(); err != nil {
		return nil, err
	}
	if err := l.connect(ctx); err != nil {
		return nil, err
	}
	if l.nic != nil {
		defer l.nic.Close()
	}
	l.laps.lap("resources")
	defer l.laps.lap("qemu")
	return l.boot(ctx)
}

// limit makes the cgroup that QEMU will join.
func (l *launch) limit() error {
	spec := cgroupSpec(l.task)
	l.shares = spec.Limits.CPUShares
	spec.Limits.CPUShares = startingShares(l.shares)
	var err error
	if l.state.Cgroup, err = cgroup.Plan(spec); err != nil {
		return err
	}
	if err := l.record.save(l.state); err != nil {
		return err
	}
	group, err := cgroup.Create(spec)
	if err != nil {
		return fmt.Errorf("making the task's cgroup: %w", err)
	}
	l.reached(stepCgroupMade)
	l.group = group
	l.state.Cgroup = group.State()
	if err := l.record.save(l.state); err != nil {
		return err
	}
	l.reached(stepLimited)
	return nil
}

// connect prepares the guest's network.
func (l *launch) connect(ctx context.Context) error {
	nic, err := l.openNetwork(ctx)
	if err != nil || nic == nil {
		return err
	}
	l.nic = nic
	l.reached(stepConnected)
	return nil
}

// boot starts QEMU and waits until the guest is up.
func (l *launch) boot(ctx context.Context) (*machine.Machine, error) {
	config, err := l.machineConfig()
	if err != nil {
		return nil, err
	}
	if config.Console, err = l.openConsole(); err != nil {
		return nil, err
	}
	defer config.Console.Close()
	if config.Held, err = l.logs.held(); err != nil {
		return nil, err
	}
	defer closeAll(config.Held)

	m, err := l.start(ctx, config)
	if err != nil {
		return nil, err
	}
	if err := l.group.SetCPUShares(l.shares); err != nil {
		m.Kill()
		return nil, l.explain(err)
	}
	return m, nil
}

// startCold boots the guest.
func (l *launch) startCold(ctx context.Context, config machine.Config) (*machine.Machine, error) {
	m, err := l.startMachine(ctx, config)
	if err != nil {
		return nil, err
	}
	if err := l.awaitReady(ctx, m); err != nil {
		m.Kill()
		return nil, l.explain(err)
	}
	return m, nil
}

// startMachine starts QEMU and lets the guest run.
func (l *launch) startMachine(ctx context.Context, config machine.Config) (*machine.Machine, error) {
	starting, cancel := context.WithTimeout(ctx, qemuTimeout)
	defer cancel()
	m, err := machine.Start(starting, config, machine.Watch{
		Signs:       l.guest.Signs(),
		Ready:       l.wish.ready,
		PowerButton: l.guest.AnswersPowerButton(),
	})
	if err != nil {
		return nil, l.explain(err)
	}
	l.state.Machine = m.State()
	l.reached(stepBooted)
	return m, nil
}

// openConsole makes the file into which QEMU writes the guest's console, and
// begins to carry it to the task's logs.
func (l *launch) openConsole() (*os.File, error) {
	l.state.Spool = spoolPath(l.task)
	if err := l.record.save(l.state); err != nil {
		return nil, err
	}
	var err error
	if l.logs, err = openLogs(l.task, l.settings, output.CreateSpool); err != nil {
		return nil, err
	}
	if err := l.logs.start(); err != nil {
		return nil, err
	}
	return l.logs.spool.Writer()
}

// explain puts QEMU's own words into ours where they are known. Out of memory
// comes first: QEMU that is killed in the middle of an answer looks otherwise.
func (l *launch) explain(err error) error {
	if outOfMemory(l.group) {
		return fmt.Errorf("%w (%w)", errOutOfMemory, err)
	}
	if reason, ok := network.ExplainNetdevError(err.Error()); ok {
		return fmt.Errorf("config.ports: %s", reason)
	}
	return err
}

func (l *launch) machineConfig() (machine.Config, error) {
	devices := l.guest.Devices()
	commandLine, err := l.commandLine()
	if err != nil {
		return machine.Config{}, err
	}
	config := machine.Config{
		ID:          machineID(l.task.ID),
		RunDir:      l.d.runDir,
		QEMU:        l.qemu,
		Arch:        l.image.Arch,
		Accelerator: l.accel,
		Type:        l.hardware.machine,
		CPU:         l.hardware.cpu,
		GIC:         l.hardware.gic,
		MemoryMiB:   l.ramMiB,
		Kernel:      l.image.Kernel,
		Initrd:      l.image.Initrd,
		Disks:       l.content.disks,
		Shares:      l.content.shares,
		CommandLine: commandLine,
		Panic:       devices.Panic,
		ExtraArgs:   l.wish.ExtraArgs,
		User:        l.node.Credential,
		Join:        l.join,
	}
	if l.nic != nil {
		config.Netns = l.nic.Netns
		config.NICs = []machine.NIC{{
			ID: network.ID, Device: devices.Net, Properties: l.netProperties(l.nicProperties()),
			MAC: network.MAC, Netdev: l.nic.Netdev, Files: l.nic.Files,
		}}
	} else if spec := l.task.NetworkIsolation; spec != nil {
		config.Netns = spec.Path // an empty namespace, where there is one
	}
	return config, nil
}

// join puts QEMU into the task's cgroup before the guest runs, and records the
// process first: from here on an orphan can be found.
func (l *launch) join(pid int) error {
	l.reached(stepQEMUMade)
	state, err := machine.StateOf(l.d.runDir, machineID(l.task.ID), pid)
	if err != nil {
		return err
	}
	l.state.Machine = state
	if err := l.record.save(l.state); err != nil {
		return err
	}
	if err := l.group.AddProcess(pid); err != nil {
		return err
	}
	l.reached(stepJoined)
	return nil
}

func (l *launch) handle() (*drivers.TaskHandle, error) {
	handle := drivers.NewTaskHandle(handleVersion)
	handle.Config = l.task
	handle.State = drivers.TaskStateRunning
	if err := handle.SetDriverState(l.state); err != nil {
		return nil, fmt.Errorf("encoding the task's state: %w", err)
	}
	return handle, nil
}

// summary is the event that tells what was booted.
func (l *launch) summary() string {
	how := "Booted"
	if l.restored {
		how = "Restored a saved"
	}
	text := fmt.Sprintf("%s %s guest on %s with %d MiB under %s", how, l.image.Family, l.image.Arch, l.ramMiB, l.accel)
	if l.accel == machine.TCG {
		text += " (emulation)"
	}
	text += ": " + l.hardware.String()
	if host := guest.HostArch(); l.image.Arch != host {
		text += fmt.Sprintf("; this node is %s", host)
	}
	return text
}

// machineID makes a task's ID, such as ALLOC/TASK/INVOCATION, a machine's.
func machineID(taskID string) string {
	id := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '.', r == '_':
			return r
		case r == '/':
			return '.'
		}
		return '_'
	}, taskID)
	if len(id) <= maxMachineID {
		return id
	}
	sum := sha256.Sum256([]byte(taskID))
	return id[:maxMachineID-17] + "." + hex.EncodeToString(sum[:8])
}

// maxMachineID keeps names of files and cgroups well under their limits.
const maxMachineID = 100

func orElse(value, otherwise string) string {
	if value != "" {
		return value
	}
	return otherwise
}
