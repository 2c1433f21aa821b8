// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/client/lib/cpustats"
	"github.com/hashicorp/nomad/drivers/shared/eventer"
	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/shared/hclspec"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/image"
)

// defaultRunDir holds what belongs to running machines: sockets, QEMU's
// messages, records. It is on a tmpfs, so nothing in it survives a reboot, as
// no machine does.
const defaultRunDir = "/run/nomad-driver-unikernel"

// Driver is the task driver. Nomad makes one for the plugin's life.
type Driver struct {
	ctx    context.Context // ends with the plugin
	log    hclog.Logger
	events *eventer.Eventer
	tasks  *store
	starts turns
	host   *host
	runDir string

	mu       sync.RWMutex
	settings *settings
	images   *image.Store
	compute  cpustats.Compute

	sweeping sync.Once
	agent    agent
	leave    func() // ends this plugin

	onStep func(step) // what a test does when a start reaches a step; nil: nothing
}

var _ drivers.DriverPlugin = (*Driver)(nil)

// New makes a driver with default options; Nomad sets the operator's later.
func New(log hclog.Logger) *Driver {
	ctx := context.Background() // a plugin ends when Nomad kills it
	log = log.Named(Name)
	return &Driver{
		ctx:    ctx,
		log:    log,
		events: eventer.NewEventer(ctx, log.Named("events")),
		tasks:  newStore(),
		host:   newHost(),
		runDir: defaultRunDir,
		leave:  func() { os.Exit(0) }, // nothing is lost: machines outlive their plugin
	}
}

// PluginInfo tells Nomad what this plugin is.
func (d *Driver) PluginInfo() (*base.PluginInfoResponse, error) { return pluginInfo, nil }

// ConfigSchema tells Nomad the plugin's options.
func (d *Driver) ConfigSchema() (*hclspec.Spec, error) { return pluginSpec, nil }

// TaskConfigSchema tells Nomad a task's options.
func (d *Driver) TaskConfigSchema() (*hclspec.Spec, error) { return taskSpec, nil }

// Capabilities tells Nomad what the driver can do.
func (d *Driver) Capabilities() (*drivers.Capabilities, error) {
	able := *capabilities
	if settings, _, err := d.configured(); err == nil {
		able.DisableLogCollection = settings.Logs.Collector == collectorDriver
	}
	return &able, nil
}

// SetConfig takes the operator's options. Nomad also calls it just to learn
// whether they are right, in a process that runs no task.
func (d *Driver) SetConfig(c *base.Config) error {
	var config PluginConfig
	if len(c.PluginConfig) > 0 {
		if err := base.MsgPackDecode(c.PluginConfig, &config); err != nil {
			return fmt.Errorf("decoding the plugin's config: %w", err)
		}
	}
	settings, err := config.check()
	if err != nil {
		return fmt.Errorf("the plugin's config is wrong: %w", err)
	}
	images, err := image.NewStore(settings.imageOptions(d.log))
	if err != nil {
		return fmt.Errorf("the plugin's config is wrong: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settings, d.images = settings, images
	if c.AgentConfig == nil || c.AgentConfig.Driver == nil {
		return nil // Nomad only checks the options
	}
	d.compute = c.AgentConfig.Compute()
	if _, err := watcher(); err != nil { // now, not with the first task: the plugin's size is the same always
		return err
	}
	if config.GC == nil || config.GC.Orphans {
		d.sweeping.Do(func() { go d.sweepOrphans(d.ctx) })
	}
	return nil
}

func (d *Driver) configured() (*settings, *image.Store, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.settings == nil {
		return nil, nil, errors.New("the plugin was not configured")
	}
	return d.settings, d.images, nil
}

// WaitTask tells a task's end. Nomad may call it again, also after the end.
func (d *Driver) WaitTask(ctx context.Context, taskID string) (<-chan *drivers.ExitResult, error) {
	t, err := d.tasks.get(taskID)
	if err != nil {
		return nil, err
	}
	t.waited.Store(true)
	ch := make(chan *drivers.ExitResult, 1)
	go func() {
		defer close(ch)
		select {
		case <-t.done:
			ch <- t.result.Copy()
		case <-ctx.Done():
		}
	}()
	return ch, nil
}

// StopTask ends a task within timeout (the job's kill_timeout). The signal (the
// job's kill_signal) decides how: SIGKILL ends it at once, any other asks first
// where the guest can be asked.
func (d *Driver) StopTask(taskID string, timeout time.Duration, signal string) error {
	t, err := d.tasks.get(taskID)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(d.ctx, timeout)
	defer cancel()
	if strings.EqualFold(signal, "SIGKILL") {
		t.machine.Kill()
	} else {
		t.machine.Stop(ctx)
	}
	<-t.done
	return nil
}

// DestroyTask gives back all that a task has. A running task is only ended
// with force.
func (d *Driver) DestroyTask(taskID string, force bool) error {
	t, err := d.tasks.get(taskID)
	if err != nil {
		return err
	}
	if t.running() && !force {
		return fmt.Errorf("task %s is running: stop it first, or destroy it by force", taskID)
	}
	t.machine.Kill()
	<-t.done
	d.tasks.remove(taskID)
	if err := t.record.settle(d.ctx, t.state); err != nil {
		return fmt.Errorf("removing what task %s left: %w", taskID, err)
	}
	return nil
}

// InspectTask tells a task's state.
func (d *Driver) InspectTask(taskID string) (*drivers.TaskStatus, error) {
	t, err := d.tasks.get(taskID)
	if err != nil {
		return nil, err
	}
	return t.status(), nil
}

// TaskEvents streams what there is to tell of tasks beside their ends.
func (d *Driver) TaskEvents(ctx context.Context) (<-chan *drivers.TaskEvent, error) {
	return d.events.TaskEvents(ctx)
}

// tell publishes a task event.
func (d *Driver) tell(config *drivers.TaskConfig, format string, args ...any) {
	event := &drivers.TaskEvent{
		TaskID:    config.ID,
		TaskName:  config.Name,
		AllocID:   config.AllocID,
		Timestamp: time.Now(),
		Message:   fmt.Sprintf(format, args...),
	}
	if err := d.events.EmitEvent(event); err != nil {
		d.log.Warn("event not delivered", "task_id", config.ID, "message", event.Message, "error", err)
	}
}

// makeRunDir makes the run directory: entered by QEMU's user, listed by none.
func (d *Driver) makeRunDir() error {
	if err := os.MkdirAll(d.runDir, 0o711); err != nil {
		return fmt.Errorf("making the run directory: %w", err)
	}
	return nil
}
