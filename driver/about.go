// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Package driver is Nomad's side of the plugin: it implements Nomad's task
// driver interface over the packages of unikernel/, and is the only package
// that imports Nomad's plugin framework. This file tells all that the plugin
// declares to Nomad.
package driver

import (
	"strconv"

	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/drivers/fsisolation"
	"github.com/hashicorp/nomad/plugins/shared/hclspec"
)

const (
	// Name is the driver's name in jobs.
	Name = "unikernel"
	// Version is the plugin's version.
	Version = "0.1.0"

	// handleVersion is the version of taskState in task handles.
	handleVersion = 1
)

var pluginInfo = &base.PluginInfoResponse{
	Type:              base.PluginTypeDriver,
	PluginApiVersions: []string{drivers.ApiVersion010},
	PluginVersion:     Version,
	Name:              Name,
}

// capabilities says only what works.
var capabilities = &drivers.Capabilities{
	SendSignals: true,
	Exec:        true, // the console, and nothing else
	// A guest sees none of the host's files, so paths in its environment are
	// those of a container (/local, /secrets, /alloc).
	FSIsolation: fsisolation.Image,
	NetIsolationModes: []drivers.NetIsolationMode{
		drivers.NetIsolationModeHost,
		drivers.NetIsolationModeGroup,
		drivers.NetIsolationModeNone,
	},
	MustInitiateNetwork:  false,
	MountConfigs:         drivers.MountConfigSupportAll,
	DisableLogCollection: false, // unless the operator asks for it: see LogsConfig
	DynamicWorkloadUsers: false,
}

// pluginSpec is the schema of the plugin's config block. Every option has a
// default that works.
var pluginSpec = hclspec.NewObject(map[string]*hclspec.Spec{
	"image_paths":     list("image_paths"),
	"user":            text("user", "nobody"),
	"emulation":       flag("emulation", true),
	"memory_overhead": text("memory_overhead", "32MiB"),
	"args_allowlist":  list("args_allowlist"),
	"qemu": hclspec.NewBlock("qemu", false, hclspec.NewObject(map[string]*hclspec.Spec{
		"arm64":  text("arm64", ""),
		"x86_64": text("x86_64", ""),
	})),
	"cache":  hclspec.NewBlock("cache", false, cacheSpec),
	"verify": hclspec.NewBlockList("verify", verifySpec),
	"logs":   hclspec.NewBlock("logs", false, logsSpec),
	"warm":   hclspec.NewBlock("warm", false, warmSpec),
	"gc": hclspec.NewBlock("gc", false, hclspec.NewObject(map[string]*hclspec.Spec{
		"orphans": flag("orphans", true),
	})),
})

// taskSpec is the schema of a task's config block.
var taskSpec = hclspec.NewObject(map[string]*hclspec.Spec{
	"image":         hclspec.NewAttr("image", "string", true),
	"pull":          text("pull", ""),
	"initrd":        text("initrd", ""),
	"guest":         text("guest", "auto"),
	"guest_version": text("guest_version", ""),
	"arch":          text("arch", ""),
	"args":          hclspec.NewAttr("args", "list(string)", false),
	"kernel_args":   list("kernel_args"),
	"ports":         list("ports"),
	"network_mode":  text("network_mode", ""),
	"dhcp":          flag("dhcp", false),
	"accelerator":   text("accelerator", "auto"),
	"machine": hclspec.NewBlock("machine", false, hclspec.NewObject(map[string]*hclspec.Spec{
		"type": text("type", ""),
		"cpu":  text("cpu", ""),
		"gic":  text("gic", ""),
	})),
	"ready": hclspec.NewBlock("ready", false, hclspec.NewObject(map[string]*hclspec.Spec{
		"pattern": text("pattern", ""),
		"port":    text("port", ""),
		"timeout": text("timeout", ""),
	})),
	"warm": flag("warm", false),
	"mount": hclspec.NewBlockList("mount", hclspec.NewObject(map[string]*hclspec.Spec{
		"source":    hclspec.NewAttr("source", "string", true),
		"target":    hclspec.NewAttr("target", "string", true),
		"readonly":  flag("readonly", true),
		"transport": text("transport", "auto"),
		"format":    text("format", ""),
	})),
	"extra_args": list("extra_args"),
})

func text(name, def string) *hclspec.Spec {
	return hclspec.NewDefault(hclspec.NewAttr(name, "string", false), hclspec.NewLiteral(`"`+def+`"`))
}

func number(name string, def int) *hclspec.Spec {
	return hclspec.NewDefault(hclspec.NewAttr(name, "number", false), hclspec.NewLiteral(strconv.Itoa(def)))
}

func flag(name string, def bool) *hclspec.Spec {
	literal := "false"
	if def {
		literal = "true"
	}
	return hclspec.NewDefault(hclspec.NewAttr(name, "bool", false), hclspec.NewLiteral(literal))
}

func list(name string) *hclspec.Spec {
	return hclspec.NewDefault(hclspec.NewAttr(name, "list(string)", false), hclspec.NewLiteral("[]"))
}
