// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package e2e

import (
	"context"
	"errors"
	"net"
	"runtime"
	"testing"
	"time"

	consul "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

// Consul knows a unikernel as it knows a container: where it is, whether it
// answers, and that it has gone.
func TestConsul(t *testing.T) {
	agent, err := site.StartConsul(limit(t, time.Minute))
	must.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		must.NoError(t, site.StopConsul(ctx))
	})
	withNode(t, harness.NodeExtras{Consul: agent.Address})
	keepBridge(t)
	cases := []struct{ name, mode, addressMode, where string }{
		{"host", "host", "auto", "host"},
		{"bridge", "bridge", "alloc", "alloc"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			service := "steps-" + c.addressMode
			t.Cleanup(func() { // after the purge
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				defer cancel()
				_, err := agent.Await(ctx, service, func(found []*consul.ServiceEntry) bool { return len(found) == 0 })
				must.NoError(t, err)
			})
			ctx := limit(t, 90*time.Second)
			alloc := runNetwork(t, ctx, map[string]string{
				"image": steps(runtime.GOARCH), "mode": c.mode, "provider": "consul", "address_modes": list(c.addressMode),
			})[0]
			checkConsul(t, ctx, agent, alloc, service, advertised(t, alloc, c.where))
		})
	}
}

func checkConsul(t *testing.T, ctx context.Context, agent *harness.Consul, alloc *api.Allocation, service, at string) {
	t.Helper()
	found, err := agent.Await(ctx, service, is(consul.HealthPassing))
	must.NoError(t, err)
	must.Eq(t, at, address(found[0].Service.Address, found[0].Service.Port))
	must.SliceContainsAll(t, found[0].Service.Tags, []string{"edge", "steps"})
	must.Eq(t, []string{at}, ask(t, ctx, agent, service))

	// A paused guest hangs as one whose program never returns.
	must.NoError(t, signal(ctx, alloc, "SIGSTOP"))
	_, err = agent.Await(ctx, service, is(consul.HealthCritical))
	must.NoError(t, err)
	must.SliceEmpty(t, ask(t, ctx, agent, service))

	must.NoError(t, signal(ctx, alloc, "SIGCONT"))
	_, err = agent.Await(ctx, service, is(consul.HealthPassing))
	must.NoError(t, err)
	must.Eq(t, []string{at}, ask(t, ctx, agent, service))
}

// is tells whether a service has one instance, of that health.
func is(status string) func([]*consul.ServiceEntry) bool {
	return func(found []*consul.ServiceEntry) bool {
		return len(found) == 1 && found[0].Checks.AggregatedStatus() == status
	}
}

// ask asks Consul's DNS for the instances of a service that are well.
func ask(t *testing.T, ctx context.Context, agent *harness.Consul, service string) []string {
	t.Helper()
	name := "edge." + service + ".service.consul."
	_, records, err := agent.DNS.LookupSRV(ctx, "", "", name)
	if notFound(err) {
		return nil
	}
	must.NoError(t, err)
	var all []string
	for _, record := range records {
		hosts, err := agent.DNS.LookupHost(ctx, record.Target)
		must.NoError(t, err)
		for _, host := range hosts {
			all = append(all, address(host, int(record.Port)))
		}
	}
	return all
}

func notFound(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}

func signal(ctx context.Context, alloc *api.Allocation, name string) error {
	return site.Nomad.Client.Allocations().Signal(alloc, (&api.QueryOptions{}).WithContext(ctx), "steps", name)
}
