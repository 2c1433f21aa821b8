// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package harness

import (
	"bytes"
	"context"
	_ "embed" // the agents' configurations
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"text/template"
	"time"

	"github.com/hashicorp/nomad/api"
)

// PluginName is the driver's file name, by which the client's configuration
// names it.
const PluginName = "nomad-driver-unikernel"

//go:embed server.hcl.tmpl
var serverConfig string

//go:embed client.hcl.tmpl
var clientConfig string

// Cluster is a Nomad server and one node with the driver. They are two agents,
// as on a real site: a client that starts while its own server does not yet
// answer takes its tasks for failed.
type Cluster struct {
	Client  *api.Client `json:"-"`
	Address string      // of the server's HTTP API, as NOMAD_ADDR takes it
	NodeAPI string      // of the client's
	Dir     string      // holds configurations, logs and data

	Program string    // nomad
	Drivers []string  // that the client must have in health
	Scratch string    // TMPDIR: sockets of plugins, whose paths must be short
	Left    Footprint // what a node leaves when it ends
	Server  *Process
	Node    *Process

	changed func() error // keeps the processes where a later run finds them
}

// ClusterOptions is what the runs of a cluster differ in.
type ClusterOptions struct {
	Dir        string   // emptied first
	ImagePaths []string // host folders that hold unikernel images
	DockerHost string   // endpoint of the Docker daemon; empty: no Docker driver

	// Changed is called when the cluster has other processes than before; nil:
	// nobody needs to know.
	Changed func(*Cluster) error
}

// StartCluster starts a server and a client, and waits until the client's
// node has its drivers in health.
func StartCluster(ctx context.Context, layout Layout, options ClusterOptions) (*Cluster, error) {
	nomad, err := layout.Program("nomad")
	if err != nil {
		return nil, err
	}
	c := &Cluster{Dir: options.Dir, Program: nomad, Drivers: []string{"unikernel"}, Left: lookFor(nomadFootprint)}
	if options.DockerHost != "" {
		c.Drivers = append(c.Drivers, "docker")
	}
	if err := c.prepare(layout, options); err != nil {
		return nil, fmt.Errorf("preparing Nomad's folder %s: %w", c.Dir, err)
	}
	c.changed = func() error { return nil }
	if options.Changed != nil {
		c.changed = func() error { return options.Changed(c) }
	}
	c.Scratch, err = os.MkdirTemp("", "ndu-nomad-")
	if err != nil {
		return nil, err
	}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Stop(ctx))
	}
	return c, nil
}

// empty makes the cluster's folder anew, with nothing but the plugin in it.
func (c *Cluster) empty(layout Layout) error {
	plugin, err := layout.Program(PluginName)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(c.Dir); err != nil {
		return err
	}
	if err := os.MkdirAll(c.plugins(), 0o755); err != nil {
		return err
	}
	return copyFile(plugin, filepath.Join(c.plugins(), PluginName))
}

// plugins is the folder that Nomad looks for plugins in.
func (c *Cluster) plugins() string { return filepath.Join(c.Dir, "plugins") }

// prepare writes the configurations and lays the plugin where Nomad looks.
func (c *Cluster) prepare(layout Layout, options ClusterOptions) error {
	if err := c.empty(layout); err != nil {
		return err
	}
	ports, err := freePorts(4)
	if err != nil {
		return err
	}
	values := map[string]any{
		"Name":       "unikernel-edge",
		"Address":    "127.0.0.1",
		"Interface":  "lo",
		"Server":     fmt.Sprintf("127.0.0.1:%d", ports[1]),
		"ServerData": filepath.Join(c.Dir, "server"),
		"ClientData": filepath.Join(c.Dir, "client"),
		"Plugins":    c.plugins(),
		"ServerHTTP": ports[0],
		"ServerRPC":  ports[1],
		"ServerSerf": ports[2],
		"ClientHTTP": ports[3],
		"ImagePaths": options.ImagePaths,
		"DockerHost": options.DockerHost,
	}
	c.Address = fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	c.NodeAPI = fmt.Sprintf("http://127.0.0.1:%d", ports[3])
	return errors.Join(c.connect(), c.write("server", serverConfig, values), c.write("client", clientConfig, values))
}

func (c *Cluster) connect() error {
	var err error
	c.Client, err = api.NewClient(&api.Config{Address: c.Address})
	return err
}

func (c *Cluster) write(role, text string, values map[string]any) error {
	var config bytes.Buffer
	if err := template.Must(template.New(role).Parse(text)).Execute(&config, values); err != nil {
		return err
	}
	return os.WriteFile(c.file(role, "hcl"), config.Bytes(), 0o644)
}

// file is an agent's configuration (hcl) or log.
func (c *Cluster) file(role, kind string) string { return filepath.Join(c.Dir, role+"."+kind) }

// patience bounds a wait for a daemon's start, which takes seconds, but may take
// a minute on the emulated board. One that died is noticed at once.
const patience = 3 * time.Minute

func (c *Cluster) start(ctx context.Context) error {
	if err := c.runServer(ctx); err != nil {
		return fmt.Errorf("starting the Nomad server: %w", err)
	}
	return c.StartNode(ctx)
}

func (c *Cluster) runServer(ctx context.Context) error {
	var err error
	if c.Server, err = c.spawn("server"); err != nil {
		return err
	}
	if err := c.changed(); err != nil {
		return err
	}
	return c.answers(ctx, c.Server, c.Address)
}

func (c *Cluster) spawn(role string) (*Process, error) {
	return spawn(c.file(role, "log"), daemonEnv(c.Scratch, c.Dir), c.Program, "agent", "-config", c.file(role, "hcl"))
}

// StartNode starts the client, the first time or again, and waits until it has
// taken its tasks up again and has its drivers in health.
func (c *Cluster) StartNode(ctx context.Context) error {
	var err error
	if c.Node, err = c.spawn("client"); err != nil {
		return err
	}
	if err := c.changed(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// It opens its API once it has restored its tasks.
	if err := c.answers(ctx, c.Node, c.NodeAPI); err != nil {
		return fmt.Errorf("starting the Nomad client: %w", err)
	}
	err = await(ctx, func(q *api.QueryOptions) (uint64, bool, error) {
		nodes, meta, err := c.Client.Nodes().List(q)
		if err != nil {
			return 0, false, err
		}
		ready := len(nodes) == 1 && nodes[0].Status == api.NodeStatusReady && !slices.ContainsFunc(c.Drivers, func(name string) bool {
			return !healthy(nodes[0].Drivers[name])
		})
		return meta.LastIndex, ready, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for the node's drivers: %w\nThe client's log %s ends in:\n%s", err, c.Node.Log, c.Node.tail())
	}
	return nil
}

// answers waits for an agent's API and for a leader behind it. While nobody
// answers there is nobody to wait on, so it asks again.
func (c *Cluster) answers(ctx context.Context, agent *Process, address string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client, err := api.NewClient(&api.Config{Address: address})
	if err != nil {
		return err
	}
	err = retry(ctx, 50*time.Millisecond, func() error {
		if !agent.alive() {
			cancel()
			return errors.New("the agent ended at once")
		}
		_, err := client.Status().Leader()
		return err
	})
	if err != nil {
		return fmt.Errorf("%w\nIts log %s ends in:\n%s", err, agent.Log, agent.tail())
	}
	return nil
}

func healthy(driver *api.DriverInfo) bool {
	return driver != nil && driver.Detected && driver.Healthy
}

// NodeInfo is the cluster's node with its attributes.
func (c *Cluster) NodeInfo(ctx context.Context) (*api.Node, error) {
	q := (&api.QueryOptions{}).WithContext(ctx)
	nodes, _, err := c.Client.Nodes().List(q)
	if err != nil {
		return nil, err
	}
	if len(nodes) != 1 {
		return nil, fmt.Errorf("%d nodes, want 1", len(nodes))
	}
	node, _, err := c.Client.Nodes().Info(nodes[0].ID, q)
	return node, err
}

// Stop ends both agents in order and removes what they leave: a client that
// stops leaves its tasks running, so purge the jobs first.
func (c *Cluster) Stop(ctx context.Context) error {
	var errs []error
	for _, agent := range []*Process{c.Node, c.Server} {
		if agent != nil {
			errs = append(errs, end(ctx, agent, syscall.SIGINT))
		}
	}
	return errors.Join(append(errs, c.Left.erase(), os.RemoveAll(c.Scratch))...)
}

func end(ctx context.Context, agent *Process, sig syscall.Signal) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return agent.end(ctx, sig)
}

// RestartNode ends the client by a signal, and starts it again. Its tasks are
// to go on meanwhile.
func (c *Cluster) RestartNode(ctx context.Context, sig syscall.Signal) error {
	if err := end(ctx, c.Node, sig); err != nil {
		return err
	}
	return c.StartNode(ctx)
}

// KillPlugin kills the driver's plugin, and waits until the client has started
// it again.
func (c *Cluster) KillPlugin(ctx context.Context) error { return c.endPlugin(ctx, syscall.SIGKILL) }

func (c *Cluster) endPlugin(ctx context.Context, sig syscall.Signal) error {
	old, err := c.plugin()
	if err != nil {
		return err
	}
	if err := syscall.Kill(old, sig); err != nil {
		return fmt.Errorf("sending %v to the plugin, process %d: %w", sig, old, err)
	}
	return retry(ctx, 100*time.Millisecond, func() error {
		pid, err := c.plugin()
		if err == nil && pid == old {
			err = errors.New("the plugin was not started again")
		}
		return err
	})
}

// plugin is the driver plugin's process: one that the client started, or else
// one that it found again.
func (c *Cluster) plugin() (int, error) {
	pids, err := processes()
	if err != nil {
		return 0, err
	}
	found := slices.DeleteFunc(pids, func(pid int) bool { return !c.isPlugin(pid) })
	if len(found) == 0 {
		return 0, errors.New("the client runs no driver plugin")
	}
	if i := slices.IndexFunc(found, func(pid int) bool { return parent(pid) == c.Node.PID }); i >= 0 {
		return found[i], nil
	}
	return found[0], nil
}

// isAgent tells whether a process is one of the cluster's own, which restarts
// give new numbers.
func (c *Cluster) isAgent(pid int) bool {
	return pid == c.Node.PID || pid == c.Server.PID || c.isPlugin(pid)
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
