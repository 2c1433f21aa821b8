// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	consul "github.com/hashicorp/consul/api"
)

// Consul is a Consul agent that keeps all in memory, on loopback only.
type Consul struct {
	Address string // of its HTTP API, host and port
	Client  *consul.Client
	DNS     *net.Resolver // answers of names that end in .consul
}

// StartConsul starts a Consul agent for the site, and waits until it can keep
// services.
func (s *Site) StartConsul(ctx context.Context) (*Consul, error) {
	program, err := s.Layout.Program("consul")
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(5)
	if err != nil {
		return nil, err
	}
	c := &Consul{Address: loopback(ports[0]), DNS: resolver(loopback(ports[1]))}
	if c.Client, err = consul.NewClient(&consul.Config{Address: c.Address}); err != nil {
		return nil, err
	}
	argv := []string{program, "agent", "-dev", "-node", "e2e", "-bind", "127.0.0.1", "-client", "127.0.0.1", "-hcl", "disable_update_check = true"}
	for i, name := range []string{"http", "dns", "server", "serf-lan", "serf-wan"} {
		argv = append(argv, "-"+name+"-port", strconv.Itoa(ports[i]))
	}
	argv = append(argv, "-grpc-port", "-1", "-grpc-tls-port", "-1")
	dir := filepath.Dir(s.State)
	if s.Consul, err = spawn(filepath.Join(dir, "consul.log"), daemonEnv(os.TempDir(), dir), argv...); err != nil {
		return nil, err
	}
	if err := s.save(); err != nil {
		return nil, errors.Join(err, s.StopConsul(ctx))
	}
	if err := c.await(ctx, s.Consul); err != nil {
		return nil, errors.Join(err, s.StopConsul(ctx))
	}
	return c, nil
}

// StopConsul ends the site's Consul agent, if one was started.
func (s *Site) StopConsul(ctx context.Context) error {
	if s.Consul == nil {
		return nil
	}
	if err := end(ctx, s.Consul, syscall.SIGINT); err != nil {
		return err
	}
	s.Consul = nil
	return s.save()
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// resolver asks one server for everything.
func resolver(server string) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, proto, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, proto, server)
	}}
}

// await waits for its own node in the catalogue: a leader alone does not do.
func (c *Consul) await(ctx context.Context, agent *Process) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return retry(ctx, 100*time.Millisecond, func() error {
		if !agent.alive() {
			cancel()
			return fmt.Errorf("consul ended at once; its log %s ends in:\n%s", agent.Log, agent.tail())
		}
		nodes, _, err := c.Client.Catalog().Nodes((&consul.QueryOptions{}).WithContext(ctx))
		if err == nil && len(nodes) == 0 {
			err = errors.New("consul does not list its own node")
		}
		return err
	})
}

// Await waits until what Consul knows of a service satisfies a condition, and
// returns it.
func (c *Consul) Await(ctx context.Context, service string, until func([]*consul.ServiceEntry) bool) ([]*consul.ServiceEntry, error) {
	var index uint64
	for {
		q := &consul.QueryOptions{WaitIndex: index, WaitTime: 30 * time.Second}
		found, meta, err := c.Client.Health().Service(service, "", false, q.WithContext(ctx))
		if err != nil {
			return nil, fmt.Errorf("waiting for Consul's service %s: %w", service, errors.Join(err, context.Cause(ctx)))
		}
		if until(found) {
			return found, nil
		}
		index = meta.LastIndex
	}
}
