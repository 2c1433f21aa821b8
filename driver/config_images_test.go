// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/helper/pluginutils/hclutils"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/image"
)

func TestImageOptions(t *testing.T) {
	var plugin PluginConfig
	hclutils.NewConfigParser(pluginSpec).ParseHCL(t, `config {
		cache {
			dir                 = "/cache"
			max_size            = "1GiB"
			insecure_registries = ["plain.example"]
			mirror {
				registry = "docker.io"
				hosts    = ["near.example:5000", "far.example"]
			}
		}
		verify {
			image = "registry.example/acme/**"
			keys  = ["/keys/a.pub", "/keys/b.pub"]
		}
		verify {
			image    = "local/**"
			unsigned = true
		}
	}`, &plugin)
	settings, err := plugin.check()
	must.NoError(t, err)
	log := hclog.NewNullLogger()
	must.Eq(t, image.Options{
		CacheDir: "/cache", MaxSizeMiB: 1024, InsecureRegistries: []string{"plain.example"},
		Mirrors: map[string][]string{"docker.io": {"near.example:5000", "far.example"}},
		Verify: []image.Rule{
			{Image: "registry.example/acme/**", Keys: []string{"/keys/a.pub", "/keys/b.pub"}},
			{Image: "local/**", Keys: []string{}, Unsigned: true},
		},
		Logger: log,
	}, settings.imageOptions(log))
}
