// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// NodeExtras is what some tests need of the client beyond what all do. Empty:
// as it is.
type NodeExtras struct {
	Consul     string // address of Consul's HTTP API
	CNIConfigs string // folder of the networks that jobs call cni/NAME
	InfraImage string // what holds the namespace of a group with containers
	BridgeNet6 string // the IPv6 network of allocations in bridge mode

	HostVolumes map[string]string // folders, by the names of volumes
	Driver      string            // more options of the driver, in HCL
	QEMUImages  string            // folder of images that Nomad's own qemu driver may run
	TotalMHz    int               // what Nomad takes the node's cores for together
}

// Reconfigure starts the client anew with extras, and returns what starts it
// anew without them.
func (c *Cluster) Reconfigure(ctx context.Context, extras NodeExtras) (restore func(context.Context) error, err error) {
	file := c.file("client", "hcl")
	plain, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	extended, err := extras.addTo(plain)
	if err != nil {
		return nil, fmt.Errorf("extending %s: %w", file, err)
	}
	restore = func(ctx context.Context) error { return c.restartWith(ctx, plain) }
	if err := c.restartWith(ctx, extended); err != nil {
		return nil, errors.Join(err, restore(ctx))
	}
	return restore, nil
}

func (c *Cluster) restartWith(ctx context.Context, config []byte) error {
	if err := os.WriteFile(c.file("client", "hcl"), config, 0o644); err != nil {
		return err
	}
	return c.RestartNode(ctx, syscall.SIGINT)
}

func (e NodeExtras) addTo(config []byte) ([]byte, error) {
	file, problems := hclwrite.ParseConfig(config, "client.hcl", hcl.InitialPos)
	if problems.HasErrors() {
		return nil, problems
	}
	root := file.Body()
	set := func(body *hclwrite.Body, name, value string) {
		if value != "" {
			body.SetAttributeValue(name, cty.StringVal(value))
		}
	}
	if e.Consul != "" {
		set(root.AppendNewBlock("consul", nil).Body(), "address", e.Consul)
	}
	client := root.FirstMatchingBlock("client", nil)
	docker := root.FirstMatchingBlock("plugin", []string{"docker"})
	if client == nil || docker == nil {
		return nil, errors.New(`it has no block client, or none plugin "docker"`)
	}
	set(client.Body(), "cni_config_dir", e.CNIConfigs)
	set(client.Body(), "bridge_network_subnet_ipv6", e.BridgeNet6)
	options := docker.Body().FirstMatchingBlock("config", nil)
	if options == nil {
		return nil, errors.New(`its block plugin "docker" has no block config`)
	}
	set(options.Body(), "infra_image", e.InfraImage)
	for _, name := range sortedKeys(e.HostVolumes) {
		set(client.Body().AppendNewBlock("host_volume", []string{name}).Body(), "path", e.HostVolumes[name])
	}
	if e.TotalMHz > 0 {
		client.Body().SetAttributeValue("cpu_total_compute", cty.NumberIntVal(int64(e.TotalMHz)))
	}
	if e.QEMUImages != "" {
		qemu := root.AppendNewBlock("plugin", []string{"qemu"}).Body().AppendNewBlock("config", nil).Body()
		qemu.SetAttributeValue("image_paths", cty.ListVal([]cty.Value{cty.StringVal(e.QEMUImages)}))
	}
	return e.addDriver(root, file)
}

func (e NodeExtras) addDriver(root *hclwrite.Body, file *hclwrite.File) ([]byte, error) {
	more, problems := hclwrite.ParseConfig([]byte(e.Driver), "driver.hcl", hcl.InitialPos)
	if problems.HasErrors() {
		return nil, problems
	}
	plugin := root.FirstMatchingBlock("plugin", []string{PluginName})
	if plugin == nil || plugin.Body().FirstMatchingBlock("config", nil) == nil {
		return nil, fmt.Errorf("it has no block plugin %q with a config", PluginName)
	}
	plugin.Body().FirstMatchingBlock("config", nil).Body().AppendUnstructuredTokens(more.BuildTokens(nil))
	return file.Bytes(), nil
}

// Upgrade puts another file in the plugin's place while agent and plugin are
// gone, as an upgrade of both does. Its tasks are to go on meanwhile.
func (c *Cluster) Upgrade(ctx context.Context) error {
	old, err := c.plugin()
	if err != nil {
		return err
	}
	if err := end(ctx, c.Node, syscall.SIGINT); err != nil {
		return err
	}
	// A client that is back sooner than the plugin ends would go on with it.
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	path := filepath.Join(c.plugins(), PluginName)
	next := filepath.Join(c.Dir, PluginName+".next")
	if err := copyFile(path, next); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return err
	}
	if err := c.StartNode(ctx); err != nil {
		return err
	}
	_, err = c.plugin() // by its path, which is the new file's
	return err
}
