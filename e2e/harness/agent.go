// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package harness

import (
	"bytes"
	"context"
	_ "embed" // the agent's configuration
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"text/template"
	"time"

	"github.com/hashicorp/nomad/api"
)

// PluginName is the driver's file name, by which the agent's configuration
// names it.
const PluginName = "nomad-driver-unikernel"

//go:embed agent.hcl.tmpl
var agentConfig string

// Agent is a Nomad server and client in one process, with the driver loaded.
type Agent struct {
	Client  *api.Client `json:"-"`
	Address string      // of the HTTP API, as NOMAD_ADDR takes it
	Dir     string      // holds its configuration, log and data

	Nomad   string    // the program
	Scratch string    // TMPDIR: sockets of plugins, whose paths must be short
	Left    Footprint // what it leaves when it ends
	Process *Process
}

// AgentOptions is what the runs of an agent differ in.
type AgentOptions struct {
	Dir        string   // emptied first
	ImagePaths []string // host folders that hold unikernel images
	DockerHost string   // endpoint of the Docker daemon
}

// StartAgent starts an agent and waits until it has a leader and its node has
// both drivers in health.
func StartAgent(ctx context.Context, layout Layout, options AgentOptions) (*Agent, error) {
	nomad, err := layout.Program("nomad")
	if err != nil {
		return nil, err
	}
	plugin, err := layout.Program(PluginName)
	if err != nil {
		return nil, err
	}
	a := &Agent{Dir: options.Dir, Nomad: nomad, Left: lookFor(nomadFootprint)}
	if err := a.prepare(plugin, options); err != nil {
		return nil, fmt.Errorf("preparing the agent's folder %s: %w", a.Dir, err)
	}
	a.Scratch, err = os.MkdirTemp("", "ndu-nomad-")
	if err != nil {
		return nil, err
	}
	if err := a.Start(ctx); err != nil {
		return nil, errors.Join(err, a.Stop(ctx))
	}
	return a, nil
}

// prepare writes the configuration and lays the plugin where Nomad looks.
func (a *Agent) prepare(plugin string, options AgentOptions) error {
	if err := os.RemoveAll(a.Dir); err != nil {
		return err
	}
	plugins := filepath.Join(a.Dir, "plugins")
	if err := os.MkdirAll(plugins, 0o755); err != nil {
		return err
	}
	if err := copyFile(plugin, filepath.Join(plugins, PluginName)); err != nil {
		return err
	}
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	a.Address = fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	a.Client, err = api.NewClient(&api.Config{Address: a.Address})
	if err != nil {
		return err
	}
	var config bytes.Buffer
	err = template.Must(template.New("agent").Parse(agentConfig)).Execute(&config, map[string]any{
		"Data":       filepath.Join(a.Dir, "data"),
		"Plugins":    plugins,
		"Ports":      ports,
		"ImagePaths": options.ImagePaths,
		"DockerHost": options.DockerHost,
	})
	if err != nil {
		return err
	}
	return os.WriteFile(a.configFile(), config.Bytes(), 0o644)
}

func (a *Agent) configFile() string { return filepath.Join(a.Dir, "agent.hcl") }

// Start starts the agent's process, the first time or again.
func (a *Agent) Start(ctx context.Context) error {
	var err error
	a.Process, err = spawn(filepath.Join(a.Dir, "agent.log"), daemonEnv(a.Scratch),
		a.Nomad, "agent", "-config", a.configFile())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := a.awaitReady(ctx, cancel); err != nil {
		return fmt.Errorf("%w\nThe agent's log %s ends in:\n%s", err, a.Process.Log, a.Process.tail())
	}
	return nil
}

// awaitReady waits for the API, the leader and the node's drivers. While the
// API does not answer there is nobody to wait on, so it asks again.
func (a *Agent) awaitReady(ctx context.Context, cancel func()) error {
	err := retry(ctx, 100*time.Millisecond, func() error {
		if !a.Process.alive() {
			cancel()
			return errors.New("the agent ended at once")
		}
		_, err := a.Client.Status().Leader()
		return err
	})
	if err != nil {
		return fmt.Errorf("waiting for the agent's API: %w", err)
	}
	return await(ctx, func(q *api.QueryOptions) (uint64, bool, error) {
		nodes, meta, err := a.Client.Nodes().List(q)
		if err != nil {
			return 0, false, err
		}
		ready := len(nodes) == 1 && nodes[0].Status == api.NodeStatusReady &&
			healthy(nodes[0].Drivers["docker"]) && healthy(nodes[0].Drivers["unikernel"])
		return meta.LastIndex, ready, nil
	})
}

func healthy(driver *api.DriverInfo) bool {
	return driver != nil && driver.Detected && driver.Healthy
}

// Node is the agent's node with its attributes.
func (a *Agent) Node(ctx context.Context) (*api.Node, error) {
	nodes, _, err := a.Client.Nodes().List((&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, err
	}
	if len(nodes) != 1 {
		return nil, fmt.Errorf("%d nodes, want 1", len(nodes))
	}
	node, _, err := a.Client.Nodes().Info(nodes[0].ID, (&api.QueryOptions{}).WithContext(ctx))
	return node, err
}

// PID is the agent's process.
func (a *Agent) PID() int { return a.Process.PID }

// Stop ends the agent in order and removes what it leaves: an agent that stops
// leaves its tasks running, so purge the jobs first.
func (a *Agent) Stop(ctx context.Context) error {
	err := a.Interrupt(ctx)
	return errors.Join(err, a.Left.erase(), os.RemoveAll(a.Scratch))
}

// Interrupt ends the agent's process in order; its tasks go on.
func (a *Agent) Interrupt(ctx context.Context) error {
	if a.Process == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return a.Process.end(ctx, syscall.SIGINT)
}

// Kill ends the agent's process as a power failure would; its tasks go on.
func (a *Agent) Kill(ctx context.Context) error {
	return a.Process.end(ctx, syscall.SIGKILL)
}

// Restart ends the agent's process in the way given, and starts it again.
func (a *Agent) Restart(ctx context.Context, end func(context.Context) error) error {
	if err := end(ctx); err != nil {
		return err
	}
	return a.Start(ctx)
}

// KillPlugin kills the driver's plugin, and waits until the agent has started
// it again.
func (a *Agent) KillPlugin(ctx context.Context) error {
	old, err := a.plugin()
	if err != nil {
		return err
	}
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		return fmt.Errorf("killing the plugin, process %d: %w", old, err)
	}
	return retry(ctx, 100*time.Millisecond, func() error {
		pid, err := a.plugin()
		if err == nil && pid == old {
			err = errors.New("the plugin was not started again")
		}
		return err
	})
}

// plugin is the driver plugin's process.
func (a *Agent) plugin() (int, error) {
	pids, err := processes()
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		if isPlugin(pid) && parent(pid) == a.PID() {
			return pid, nil
		}
	}
	return 0, errors.New("the agent runs no driver plugin")
}

// freePorts finds TCP ports on loopback that nobody listens on.
func freePorts(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }() // held until all are found
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
