// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"
	"github.com/vishvananda/netlink"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

const (
	proxyImage = "proxy:local"
	cniName    = "e2e" // of the network that jobs call cni/e2e
)

// cniNetwork is another network than Nomad's own. Each allocation has a link
// to the host; no bridge is left behind.
const cniNetwork = `{
	"cniVersion": "0.4.0",
	"name": "e2e",
	"plugins": [
		{"type": "loopback"},
		{"type": "ptp", "ipMasq": true, "ipam": {
			"type": "host-local", "ranges": [[{"subnet": "172.26.240.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": %q
		}},
		{"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}
	]
}`

// A unikernel is reached as a container would be, in every network mode, and
// told the same; at its end nothing of its network is left.
func TestNetwork(t *testing.T) {
	withNode(t, harness.NodeExtras{CNIConfigs: cniConfigs(t), InfraImage: proxyImage})
	buildProxy(t)
	keepBridge(t)
	cases := []struct {
		name, arch, mode string
		count, to        int
		sidecar          bool
		advertised       map[string]string // address by address mode
	}{
		{"bridge, beside a container", runtime.GOARCH, "bridge", 2, 8080, true, map[string]string{"auto": "host", "host": "host", "alloc": "alloc", "driver": "alloc"}},
		{"bridge, the other architecture", otherArch(), "bridge", 1, 8080, false, map[string]string{"alloc": "alloc", "driver": "alloc"}},
		{"cni", runtime.GOARCH, "cni/" + cniName, 1, 8080, false, map[string]string{"auto": "host", "alloc": "alloc"}},
		{"host", runtime.GOARCH, "host", 2, 8080, false, map[string]string{"auto": "host", "host": "host"}},
		{"host, the same port in the guest", otherArch(), "host", 1, -1, false, map[string]string{"auto": "host", "driver": "host"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			vars := map[string]string{
				"image": steps(c.arch), "mode": c.mode, "count": strconv.Itoa(c.count), "to": strconv.Itoa(c.to),
				"address_modes": list(slices.Sorted(maps.Keys(c.advertised))...),
			}
			if c.sidecar {
				vars["sidecars"] = list(proxyImage)
			}
			ctx := limit(t, 90*time.Second)
			allocs := runNetwork(t, ctx, vars)
			must.Len(t, c.count, allocs)
			for _, alloc := range allocs {
				checkReached(t, ctx, alloc, c.to)
				if c.sidecar {
					must.NoError(t, getPort(ctx, alloc, "proxy", "/average", new(averageAnswer)))
				}
			}
			for mode, want := range c.advertised {
				checkAdvertised(t, ctx, "steps-"+mode, want, allocs)
			}
		})
	}
}

// A host's port that another program has taken is named in the task's events.
func TestNetwork_PortTaken(t *testing.T) {
	before := lookAtMachine(t)
	t.Cleanup(func() { nothingNew(t, before) }) // after the purge
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must.NoError(t, err)
	t.Cleanup(func() { must.NoError(t, taken.Close()) })
	port := strconv.Itoa(taken.Addr().(*net.TCPAddr).Port)
	ctx := limit(t, time.Minute)
	alloc := runToEnd(t, ctx, networkJob(t, map[string]string{"image": steps(runtime.GOARCH), "static": port}))
	must.Eq(t, "failed", alloc.ClientStatus)
	t.Log(failure(alloc))
	for _, word := range []string{"config.ports", "127.0.0.1:" + port, "another process has it"} {
		must.StrContains(t, failure(alloc), word)
	}
}

func steps(arch string) string { return filepath.Join(site.ImageDir(), "steps-"+arch) }

func networkJob(t *testing.T, vars map[string]string) *api.Job {
	t.Helper()
	all := map[string]string{"initrd": filepath.Join(site.ImageDir(), "steps.cpio")}
	maps.Copy(all, vars)
	job, err := harness.ParseJobFile(site.Layout.Path("e2e", "jobs", "network.nomad.hcl"), all)
	must.NoError(t, err)
	return job
}

// runNetwork runs jobs/network.nomad.hcl until its checks pass, and returns
// its allocations. When the test ends, nothing of them may be left.
func runNetwork(t *testing.T, ctx context.Context, vars map[string]string) []*api.Allocation {
	t.Helper()
	before := lookAtMachine(t)
	var allocs []*api.Allocation
	t.Cleanup(func() { // after the purge
		nothingNew(t, before)
		noRules(t, allocs)
	})
	job := networkJob(t, vars)
	purge(t, *job.ID)
	must.NoError(t, site.Nomad.RunService(ctx, job))
	stubs, err := site.Nomad.WaitAllocs(ctx, *job.ID, func([]*api.AllocationListStub) bool { return true })
	must.NoError(t, err)
	for _, stub := range stubs {
		alloc, err := site.Nomad.Allocation(ctx, stub.ID)
		must.NoError(t, err)
		allocs = append(allocs, alloc)
	}
	return allocs
}

// checkReached asks a guest at its host's ports, by TCP and UDP, and compares
// what it was told with what Nomad gave it.
func checkReached(t *testing.T, ctx context.Context, alloc *api.Allocation, to int) {
	t.Helper()
	var env map[string]string
	must.NoError(t, getPort(ctx, alloc, "http", "/env", &env))
	http := portOf(alloc, "http")
	if to < 0 {
		to = http.Value
	}
	must.Eq(t, strconv.Itoa(to), env["NOMAD_PORT_http"])
	must.Eq(t, strconv.Itoa(http.Value), env["NOMAD_HOST_PORT_http"])
	must.Eq(t, address(http.HostIP, http.Value), env["NOMAD_ADDR_http"])

	echo := portOf(alloc, "echo")
	must.NoError(t, echoes(ctx, address(echo.HostIP, echo.Value)))
}

// checkAdvertised compares what service discovery tells with where a service
// is reached, and asks it there.
func checkAdvertised(t *testing.T, ctx context.Context, service, want string, allocs []*api.Allocation) {
	t.Helper()
	found, err := site.Nomad.Instances(ctx, service, len(allocs))
	must.NoError(t, err)
	addresses := map[string]string{}
	for _, alloc := range allocs {
		addresses[alloc.ID] = advertised(t, alloc, want)
	}
	for _, instance := range found {
		must.Eq(t, addresses[instance.AllocID], address(instance.Address, instance.Port), must.Sprint(service))
		var answer map[string]string
		must.NoError(t, get(ctx, instance, "/env", &answer), must.Sprint(service))
	}
}

// advertised is where a service of an allocation is: at the host, or at the
// allocation's own address.
func advertised(t *testing.T, alloc *api.Allocation, where string) string {
	t.Helper()
	port := portOf(alloc, "http")
	if where == "host" {
		return address(port.HostIP, port.Value)
	}
	must.NotNil(t, alloc.NetworkStatus)
	return address(alloc.NetworkStatus.Address, port.To)
}

func portOf(alloc *api.Allocation, label string) api.PortMapping {
	for _, port := range alloc.AllocatedResources.Shared.Ports {
		if port.Label == label {
			return port
		}
	}
	return api.PortMapping{}
}

func address(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// getPort asks an allocation at the host's side of a port. A sidecar may not
// listen yet when the service's checks pass.
func getPort(ctx context.Context, alloc *api.Allocation, label, path string, into any) error {
	port := portOf(alloc, label)
	at := &api.ServiceRegistration{Address: port.HostIP, Port: port.Value}
	return eventually(ctx, func() error { return get(ctx, at, path, into) })
}

// echoes sends datagrams until one comes back: UDP may lose some.
func echoes(ctx context.Context, to string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "udp", to)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	const said = "is anybody there?"
	for answer := make([]byte, 64); ; {
		if _, err = conn.Write([]byte(said)); err == nil {
			_ = conn.SetReadDeadline(time.Now().Add(time.Second))
			var n int
			if n, err = conn.Read(answer); err == nil && string(answer[:n]) == said {
				return nil
			}
		}
		if ctx.Err() != nil {
			return fmt.Errorf("no echo from %s: %w", to, err)
		}
	}
}

// withNode gives the node what a test needs, until the test ends.
func withNode(t *testing.T, extras harness.NodeExtras) {
	t.Helper()
	restore, err := site.Nomad.Reconfigure(limit(t, time.Minute), extras)
	must.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		must.NoError(t, restore(ctx))
	})
}

// cniConfigs is a folder with cniNetwork.
func cniConfigs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	config := fmt.Sprintf(cniNetwork, t.TempDir())
	must.NoError(t, os.WriteFile(filepath.Join(dir, cniName+".conflist"), []byte(config), 0o644))
	return dir
}

// buildProxy makes the container image of e2e/proxy, which is also the image
// that holds namespaces.
func buildProxy(t *testing.T) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "proxy")
	build := exec.Command("go", "build", "-o", program, "./proxy")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	said, err := build.CombinedOutput()
	must.NoError(t, err, must.Sprintf("%s", said))
	must.NoError(t, site.Docker.Build(limit(t, time.Minute), proxyImage, map[string]string{
		"Dockerfile": site.Layout.Path("e2e", "proxy", "Dockerfile"), "proxy": program,
	}))
}

// keepBridge makes the bridge that Nomad would make for its first allocation
// and never remove, so that it counts as no leftover, and removes it at the end.
func keepBridge(t *testing.T) {
	t.Helper()
	const name = "nomad"
	if _, err := netlink.LinkByName(name); err == nil {
		return // the machine's own
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
	must.NoError(t, netlink.LinkAdd(bridge))
	t.Cleanup(func() { must.NoError(t, netlink.LinkDel(bridge)) })
}

// noRules fails the test if the firewall or the store of addresses still knows
// an allocation.
func noRules(t *testing.T, allocs []*api.Allocation) {
	t.Helper()
	rules, err := exec.Command("iptables-save").Output()
	must.NoError(t, err)
	leases, err := filepath.Glob("/var/lib/cni/networks/nomad/[0-9]*")
	must.NoError(t, err)
	for _, alloc := range allocs {
		must.StrNotContains(t, string(rules), alloc.ID)
		for _, lease := range leases {
			holder, err := os.ReadFile(lease)
			must.NoError(t, err)
			must.StrNotContains(t, string(holder), alloc.ID, must.Sprint(lease))
		}
	}
}

// list is a list of strings, as -var takes it.
func list(values ...string) string {
	if len(values) == 0 {
		return "[]"
	}
	return `["` + strings.Join(values, `", "`) + `"]`
}
