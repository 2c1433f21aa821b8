// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier/cluster"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier/gate"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier/look"
)

type serveCommand struct {
	*command
	listen, policy, tlsCert, tlsKey string
	failOpen, cluster, noImages     bool
	nomad                           nomadOptions
}

func (c *serveCommand) Synopsis() string {
	return "Stand before Nomad's API and rewrite the jobs that pass"
}

func (c *serveCommand) Help() string {
	return strings.TrimSpace(`
Usage: nomad-hybrid serve [options]

  A proxy in front of a Nomad agent. Jobs that are registered, planned or
  validated through it are rewritten as "render" does; all else passes
  untouched. Point NOMAD_ADDR at it and submit as ever.

  A job that cannot be classified is refused with the reason.

Options:

  -listen ADDR     Where to listen (default 127.0.0.1:4645).
  -tls-cert FILE, -tls-key FILE
                   Serve HTTPS with this certificate and key.
  -fail-open       Let a job that cannot be classified pass as it came.
  -policy FILE     Decide by this policy instead of the default one.
  -cluster         Look at the live cluster, with the gate's own token
                   (-token, NOMAD_TOKEN) if it has one, else with each
                   request's. It needs node:read, and read-job in the
                   namespaces of the jobs.
  -no-images       Look into no image.
` + nomadOptionsHelp)
}

func (c *serveCommand) Run(args []string) int {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	flags.StringVar(&c.listen, "listen", "127.0.0.1:4645", "")
	flags.StringVar(&c.tlsCert, "tls-cert", "", "")
	flags.StringVar(&c.tlsKey, "tls-key", "", "")
	flags.BoolVar(&c.failOpen, "fail-open", false, "")
	flags.StringVar(&c.policy, "policy", "", "")
	flags.BoolVar(&c.cluster, "cluster", false, "")
	flags.BoolVar(&c.noImages, "no-images", false, "")
	c.nomad.register(flags)
	rest, err := parseFlags(flags, args)
	switch {
	case errors.Is(err, errHelp):
		fmt.Fprintln(c.out, c.Help())
		return exitDone
	case err != nil:
		return c.usage("serve", "%v", err)
	case len(rest) > 0:
		return c.usage("serve", "The command takes no argument: %s", strings.Join(rest, " "))
	case (c.tlsCert == "") != (c.tlsKey == ""):
		return c.usage("serve", "-tls-cert and -tls-key are given together")
	}
	if err := c.serve(); err != nil {
		c.errorf("%v", err)
		return exitFailed
	}
	return exitDone
}

func (c *serveCommand) serve() error {
	log := hclog.New(&hclog.LoggerOptions{Name: "nomad-hybrid", Output: c.err})
	g, err := c.gate(log)
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(c.ctx, "tcp", c.listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", c.listen, err)
	}
	log.Info("listening", "address", listener.Addr().String(), "nomad", c.nomad.config().Address)
	server := &http.Server{Handler: g, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() {
		if c.tlsCert != "" {
			ended <- server.ServeTLS(listener, c.tlsCert, c.tlsKey)
			return
		}
		ended <- server.Serve(listener)
	}()
	select {
	case err := <-ended:
		return err
	case <-c.ctx.Done():
	}
	// Streams do not end by themselves: requests get a moment, streams are cut.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), 2*time.Second)
	defer cancel()
	err = server.Shutdown(ctx)
	if err != nil {
		err = server.Close()
	}
	<-ended
	return err
}

func (c *serveCommand) gate(log hclog.Logger) (*gate.Gate, error) {
	o := gate.Options{Nomad: c.nomad.config(), FailOpen: c.failOpen, Log: log}
	o.Decide.Policy = classifier.Default()
	if c.policy != "" {
		policy, err := readPolicy(c.policy)
		if err != nil {
			return nil, err
		}
		o.Decide.Policy = policy
	}
	if !c.noImages {
		o.Decide.Images = &look.Looker{Timeout: imageTimeout}
	}
	if c.cluster {
		o.Cluster = func(token, region string) (classifier.Cluster, error) {
			client, err := c.nomad.client()
			if err != nil {
				return nil, err
			}
			if c.nomad.config().SecretID == "" {
				client.SetSecretID(token)
			}
			if region != "" {
				client.SetRegion(region)
			}
			return cluster.New(client), nil
		}
	}
	return gate.New(o)
}
