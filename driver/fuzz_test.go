// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/helper/pluginutils/hclspecutils"
	"github.com/hashicorp/nomad/helper/pluginutils/hclutils"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/shoenig/test/must"
)

// FuzzTaskConfig: whatever a job's config block holds, it is refused in words
// or means what it says. The text is the block as JSON, as Nomad keeps jobs.
func FuzzTaskConfig(f *testing.F) {
	f.Add(`{"image": "local/x", "args": ["a"], "machine": [{"type": "virt", "cpu": "host,-pmu", "gic": "3"}]}`)
	f.Add(`{"image": "x", "mount": [{"source": "a", "target": "/b", "transport": "9p", "readonly": false}], "ports": ["p"], "ready": [{"port": "p", "timeout": "1s"}]}`)
	f.Add(`{"image": "x", "machine": [{"type": "virt,dumpdtb=/x", "cpu": "max -daemonize"}], "extra_args": ["-msg", "-s\n"], "network_mode": "user", "dhcp": true}`)
	f.Add(`{"image": 7, "args": [[]], "ready": {"pattern": "("}}`)
	spec, problems := hclspecutils.Convert(taskSpec)
	must.False(f, problems.HasErrors())
	allowed := []*regexp.Regexp{regexp.MustCompile(`\A(?:-msg|timestamp=on)\z`)}

	f.Fuzz(func(t *testing.T, text string) {
		var block map[string]any
		if json.Unmarshal([]byte(text), &block) != nil {
			return
		}
		value, problems, _ := hclutils.ParseHclInterface(block, spec, nil)
		if problems.HasErrors() {
			return
		}
		var task drivers.TaskConfig
		if task.EncodeDriverConfig(value) != nil {
			return
		}
		var config TaskConfig
		if task.DecodeDriverConfig(&config) != nil {
			return
		}
		w, err := config.check(allowed)
		if err != nil {
			must.StrContains(t, err.Error(), "config.")
			return
		}
		must.False(t, strings.ContainsAny(w.Machine.Type, ", =\n"), must.Sprintf("machine.type %q", w.Machine.Type))
		must.False(t, strings.ContainsAny(w.Machine.CPU, " \n\x00"), must.Sprintf("machine.cpu %q", w.Machine.CPU))
		must.Positive(t, w.readyTimeout)
		must.EqOp(t, len(config.Mounts), len(w.mounts))
		for _, arg := range w.ExtraArgs {
			must.SliceContains(t, []string{"-msg", "timestamp=on"}, arg)
		}
	})
}
