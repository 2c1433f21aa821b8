// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"
)

// secure is a Nomad server as careful sites run it: HTTPS, client certificates,
// and access control. It has no nodes.
type secure struct {
	dir, address, token string
	client              *api.Client
}

const secureConfig = `
name      = "secure"
bind_addr = "127.0.0.1"
data_dir  = %q
advertise {
  http = "127.0.0.1"
  rpc  = "127.0.0.1"
  serf = "127.0.0.1"
}
ports {
  http = %d
  rpc  = %d
  serf = %d
}
server {
  enabled          = true
  bootstrap_expect = 1
  raft_multiplier  = 1
}
acl { enabled = true }
tls {
  http                   = true
  rpc                    = true
  ca_file                = "nomad-agent-ca.pem"
  cert_file              = "global-server-nomad.pem"
  key_file               = "global-server-nomad-key.pem"
  verify_server_hostname = true
  verify_https_client    = true
}
disable_update_check = true
`

func startSecure(t *testing.T, ctx context.Context) *secure {
	t.Helper()
	s := &secure{dir: t.TempDir()}
	for _, args := range [][]string{{"ca", "create"}, {"cert", "create", "-server"}, {"cert", "create", "-cli"}} {
		cmd := exec.CommandContext(ctx, site.Nomad.Program, append([]string{"tls"}, args...)...)
		cmd.Dir = s.dir
		said, err := cmd.CombinedOutput()
		must.NoError(t, err, must.Sprintf("%s", said))
	}
	ports := looseports(t, 3)
	s.address = fmt.Sprintf("https://127.0.0.1:%d", ports[0])
	config := fmt.Sprintf(secureConfig, filepath.Join(s.dir, "data"), ports[0], ports[1], ports[2])
	must.NoError(t, os.WriteFile(filepath.Join(s.dir, "agent.hcl"), []byte(config), 0o600))
	agent := exec.Command(site.Nomad.Program, "agent", "-config", "agent.hcl")
	agent.Dir = s.dir
	log, err := os.Create(filepath.Join(s.dir, "agent.log"))
	must.NoError(t, err)
	agent.Stdout, agent.Stderr = log, log
	must.NoError(t, agent.Start())
	t.Cleanup(func() {
		must.NoError(t, agent.Process.Signal(syscall.SIGTERM))
		_ = agent.Wait() // it tells of its own end by a status of 1
		must.NoError(t, log.Close())
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("%s", text)
		}
	})
	s.bootstrap(t, ctx)
	return s
}

// bootstrap waits for the server and makes its first token.
func (s *secure) bootstrap(t *testing.T, ctx context.Context) {
	t.Helper()
	var err error
	s.client, err = api.NewClient(&api.Config{Address: s.address, TLSConfig: &api.TLSConfig{
		CACert: s.file("nomad-agent-ca.pem"), ClientCert: s.file("global-cli-nomad.pem"), ClientKey: s.file("global-cli-nomad-key.pem"),
	}})
	must.NoError(t, err)
	var token *api.ACLToken
	for ctx.Err() == nil { // nobody tells when a server has its leader
		if token, _, err = s.client.ACLTokens().Bootstrap((&api.WriteOptions{}).WithContext(ctx)); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	must.NoError(t, err)
	s.token = token.SecretID
	s.client.SetSecretID(s.token)
	_, err = s.client.Namespaces().Register(&api.Namespace{Name: "edge"}, (&api.WriteOptions{}).WithContext(ctx))
	must.NoError(t, err)
}

func (s *secure) file(name string) string { return filepath.Join(s.dir, name) }

// env is what Nomad's own tools are told of the server.
func (s *secure) env(more ...string) []string {
	return append([]string{
		"NOMAD_ADDR=" + s.address, "NOMAD_CACERT=" + s.file("nomad-agent-ca.pem"),
		"NOMAD_CLIENT_CERT=" + s.file("global-cli-nomad.pem"), "NOMAD_CLIENT_KEY=" + s.file("global-cli-nomad-key.pem"),
	}, more...)
}

func looseports(t *testing.T, n int) []int {
	t.Helper()
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must.NoError(t, err)
		defer func() { _ = l.Close() }() // held until all are found
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports
}

// light is a job that becomes a unikernel.
const light = `job "light" {
  type = "batch" # has no deployment, which would wait for nodes
  group "g" {
    task "t" {
      driver = "docker"
      config {
        image = "acme/light:1"
      }
      meta {
        hybrid_complexity      = "low"
        hybrid_unikernel_image = "local/unikernel"
      }
      resources {
        cpu    = 50
        memory = 48
      }
    }
  }
}
`

// What `nomad job run` does with tokens, certificates, namespaces, regions and
// indexes, `nomad-hybrid run` does too, with the same exit status.
func TestSecure(t *testing.T) {
	ctx := limit(t, 3*time.Minute)
	s := startSecure(t, ctx)
	job := filepath.Join(t.TempDir(), "light.nomad.hcl")
	must.NoError(t, os.WriteFile(job, []byte(light), 0o600))
	token := "NOMAD_TOKEN=" + s.token

	// both runs Nomad's tool and ours, which must end alike.
	both := func(name string, want int, say string, env []string, args ...string) {
		t.Helper()
		args = append(append([]string{"run"}, args...), job)
		status, out := tool(t, ctx, env, "nomad", append([]string{"job"}, args...)...)
		must.Eq(t, want, status, must.Sprintf("%s: nomad job", name))
		must.StrContains(t, out, say)
		status, out = tool(t, ctx, env, "nomad-hybrid", append(append([]string{"run", "-no-images"}, args[1:len(args)-1]...), job)...)
		must.Eq(t, want, status, must.Sprintf("%s: nomad-hybrid", name))
		must.StrContains(t, out, say)
	}
	both("no token", 1, "Permission denied", s.env())
	both("a wrong token", 1, "403", s.env("NOMAD_TOKEN=11111111-2222-3333-4444-555555555555"))
	both("no client certificate", 1, "ubmit", []string{"NOMAD_ADDR=" + s.address, "NOMAD_CACERT=" + s.file("nomad-agent-ca.pem"), token})
	both("no authority", 1, "certificate", []string{"NOMAD_ADDR=" + s.address, token})
	both("no such region", 1, "No path to region", s.env(token), "-region", "mars")
	both("no such namespace", 1, "nonexistent namespace", s.env(token), "-namespace", "mars")
	both("an index of no job", 1, "job does not exist", s.env(token), "-check-index", "7")
	both("no node", 2, "No nodes were eligible", s.env(token))
	both("a job that is there", 1, "job already exists", s.env(token), "-check-index", "0")
	both("by options", 2, "No nodes were eligible", nil, "-address", s.address, "-token", s.token, "-namespace", "edge", "-region", "global",
		"-ca-cert", s.file("nomad-agent-ca.pem"), "-client-cert", s.file("global-cli-nomad.pem"), "-client-key", s.file("global-cli-nomad-key.pem"))
	both("registered only", 0, "Evaluation ID:", s.env(token, "NOMAD_NAMESPACE=edge"), "-detach")

	running := s.job(t, ctx, "edge")
	must.Eq(t, "unikernel", driverOf(t, running, "g"))
	status, out := tool(t, ctx, s.env(token, "NOMAD_NAMESPACE=edge"), "nomad-hybrid", "run", "-no-images", "-detach",
		"-check-index", fmt.Sprint(*running.JobModifyIndex), "-eval-priority", "60", job)
	must.Eq(t, 0, status, must.Sprint(out))
}

func (s *secure) job(t *testing.T, ctx context.Context, namespace string) *api.Job {
	t.Helper()
	job, _, err := s.client.Jobs().Info("light", (&api.QueryOptions{Namespace: namespace}).WithContext(ctx))
	must.NoError(t, err)
	return job
}

// The gate speaks TLS on both sides, hands each caller's token on and adds none
// of its own, and decides by the namespace that the caller names.
func TestSecure_Gate(t *testing.T) {
	ctx := limit(t, 3*time.Minute)
	s := startSecure(t, ctx)
	policy := s.file("policy.hcl")
	_, text := tool(t, ctx, nil, "nomad-hybrid", "policy")
	text += "\noverride {\n  namespace = \"edge\"\n  thresholds {\n    unikernel = 1\n    container = 2\n  }\n}\n"
	must.NoError(t, os.WriteFile(policy, []byte(text), 0o600))
	at := startGate(t, s.env("NOMAD_TOKEN="+s.token), "-cluster", "-no-images", "-policy", policy,
		"-tls-cert", s.file("global-server-nomad.pem"), "-tls-key", s.file("global-server-nomad-key.pem"))
	env := []string{"NOMAD_ADDR=https://" + at, "NOMAD_CACERT=" + s.file("nomad-agent-ca.pem")}

	status, out := toolIn(t, ctx, light, env, "nomad", "job", "run", "-detach", "-")
	must.Eq(t, 1, status)
	must.StrContains(t, out, "Permission denied")
	env = append(env, "NOMAD_TOKEN="+s.token)
	status, _ = toolIn(t, ctx, light, env, "nomad", "job", "run", "-detach", "-")
	must.Eq(t, 0, status)
	job := s.job(t, ctx, "default")
	must.Eq(t, "docker", driverOf(t, job, "g"), must.Sprint("no node could run a unikernel"))
	must.Eq(t, "container", job.TaskGroups[0].Tasks[0].Meta["hybrid_decision"])
	status, _ = toolIn(t, ctx, light, env, "nomad", "job", "run", "-detach", "-namespace", "edge", "-")
	must.Eq(t, 0, status)
	job = s.job(t, ctx, "edge")
	must.Eq(t, "container", job.TaskGroups[0].Tasks[0].Meta["hybrid_decision"])
	must.StrContains(t, job.TaskGroups[0].Tasks[0].Meta["hybrid_policy"], "default/")

	// Decided without the cluster, the namespace alone makes the difference.
	at = startGate(t, s.env(), "-no-images", "-policy", policy,
		"-tls-cert", s.file("global-server-nomad.pem"), "-tls-key", s.file("global-server-nomad-key.pem"))
	env[0] = "NOMAD_ADDR=https://" + at
	for namespace, driver := range map[string]string{"default": "unikernel", "edge": "docker"} {
		status, _ = toolIn(t, ctx, strings.Replace(light, `"low"`, `"20"`, 1), env, "nomad", "job", "run", "-detach", "-namespace", namespace, "-")
		must.Eq(t, 0, status)
		must.Eq(t, driver, driverOf(t, s.job(t, ctx, namespace), "g"))
	}
}
