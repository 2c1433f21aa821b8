// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"context"
	"os"
	"runtime/debug"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/drivers/proto"
	"google.golang.org/grpc"
)

// Serve serves the driver to the Nomad agent that started this process, until
// the agent ends it. It is what plugins.Serve of Nomad does, and tells all of
// the driver's capabilities.
func Serve(d *Driver, log hclog.Logger) {
	saveMemory()
	go d.leaveWithAgent(d.ctx) // from now on: an agent may be gone before it has said a word
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: base.Handshake,
		Plugins: map[string]plugin.Plugin{
			base.PluginTypeBase:   &base.PluginBase{Impl: d},
			base.PluginTypeDriver: drivers.NewDriverPlugin(d, log),
		},
		GRPCServer: func(options []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(options, grpc.UnaryInterceptor(d.completeCapabilities))...)
		},
		Logger: log,
	})
}

// saveMemory has garbage collected when the heap has grown by half, not when it
// has doubled, unless the operator chose (GOGC). Starting a task leaves much
// garbage; a plugin at rest makes so little that it takes no time to speak of.
func saveMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

// completeCapabilities puts into an answer what the plugin side of Nomad
// 1.11.3 leaves out, although the agent's side reads it: see
// plugins/drivers/server.go and client.go there, Capabilities.
func (d *Driver) completeCapabilities(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	response, err := handle(ctx, request)
	answer, ok := response.(*proto.CapabilitiesResponse)
	if err != nil || !ok {
		return response, err
	}
	able, err := d.Capabilities()
	if err != nil {
		return nil, err
	}
	answer.Capabilities.DisableLogCollection = able.DisableLogCollection
	answer.Capabilities.MountConfigs = proto.DriverCapabilities_MountConfigs(able.MountConfigs)
	return answer, nil
}
