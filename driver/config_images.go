// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/plugins/shared/hclspec"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/image"
)

// CacheConfig is about images from registries.
type CacheConfig struct {
	Dir                string         `codec:"dir"`
	MaxSize            string         `codec:"max_size"`
	Offline            bool           `codec:"offline"`
	InsecureRegistries []string       `codec:"insecure_registries"`
	Mirrors            []MirrorConfig `codec:"mirror"`
	AuthFile           string         `codec:"auth_file"`
}

// MirrorConfig names the hosts that are asked before a registry.
type MirrorConfig struct {
	Registry string   `codec:"registry"`
	Hosts    []string `codec:"hosts"`
}

// VerifyConfig says what the images of some names need to run.
type VerifyConfig struct {
	Image    string   `codec:"image"` // a pattern
	Keys     []string `codec:"keys"`
	Unsigned bool     `codec:"unsigned"`
}

var cacheSpec = hclspec.NewObject(map[string]*hclspec.Spec{
	"dir":                 text("dir", ""),
	"max_size":            text("max_size", "2GiB"),
	"offline":             flag("offline", false),
	"insecure_registries": list("insecure_registries"),
	"auth_file":           text("auth_file", ""),
	"mirror": hclspec.NewBlockList("mirror", hclspec.NewObject(map[string]*hclspec.Spec{
		"registry": hclspec.NewAttr("registry", "string", true),
		"hosts":    hclspec.NewAttr("hosts", "list(string)", true),
	})),
})

var verifySpec = hclspec.NewObject(map[string]*hclspec.Spec{
	"image":    hclspec.NewAttr("image", "string", true),
	"keys":     list("keys"),
	"unsigned": flag("unsigned", false),
})

// imageOptions are the options of the store that opens tasks' images.
func (s *settings) imageOptions(log hclog.Logger) image.Options {
	options := image.Options{
		CacheDir:           s.Cache.Dir,
		MaxSizeMiB:         s.cacheSizeMiB,
		Offline:            s.Cache.Offline,
		InsecureRegistries: s.Cache.InsecureRegistries,
		Mirrors:            map[string][]string{},
		AuthFile:           s.Cache.AuthFile,
		Logger:             log,
	}
	for _, m := range s.Cache.Mirrors {
		options.Mirrors[m.Registry] = append(options.Mirrors[m.Registry], m.Hosts...)
	}
	for _, v := range s.Verify {
		options.Verify = append(options.Verify, image.Rule(v))
	}
	return options
}
