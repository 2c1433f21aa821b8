// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/helper/pluginutils/hclspecutils"
	"github.com/hashicorp/nomad/helper/pluginutils/hclutils"
	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/shoenig/test/must"
)

// FuzzTaskConfig: whatever a job's config block holds, it is refused in words
// that name the field, or means what it says. The text is the block as JSON, as
// Nomad keeps jobs; it goes the way that Nomad's client sends it.
func FuzzTaskConfig(f *testing.F) {
	f.Add(`{"image": "local/x", "args": ["a"], "machine": [{"type": "virt", "cpu": "host,-pmu", "gic": "3"}]}`)
	f.Add(`{"image": "x", "mount": [{"source": "a", "target": "/b", "transport": "9p", "readonly": false}], "ports": ["p"], "ready": [{"port": "p", "timeout": "1s"}]}`)
	f.Add(`{"image": "x", "machine": [{"type": "virt,dumpdtb=/x", "cpu": "max -daemonize"}], "extra_args": ["-msg", "-s\n"], "network_mode": "user", "dhcp": true}`)
	f.Add(`{"image": 7, "args": [[]], "ready": {"pattern": "("}}`)
	spec, problems := hclspecutils.Convert(taskSpec)
	must.False(f, problems.HasErrors())

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
		refusedOrMeant(t, config)
	})
}

// FuzzTaskConfig_Encoded is the same for what a client sends, whatever made it.
func FuzzTaskConfig_Encoded(f *testing.F) {
	for _, config := range []TaskConfig{
		{},
		{Image: "local/x", Args: []string{"a"}, Machine: MachineConfig{Type: "virt", CPU: "host,-pmu", GIC: "3"}},
		{Image: "x", Ports: []string{"p"}, Ready: ReadyConfig{Port: "p", Timeout: "1s"}, Mounts: []MountConfig{{Source: "a", Target: "/b"}}},
		{Machine: MachineConfig{Type: "virt,dumpdtb=/x", CPU: "max -daemonize"}, ExtraArgs: []string{"-msg", "-s\n"}},
	} {
		var data []byte
		must.NoError(f, base.MsgPackEncode(&data, &config))
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var config TaskConfig
		if base.MsgPackDecode(data, &config) == nil {
			refusedOrMeant(t, config)
		}
	})
}

// refusedOrMeant checks what comes of a config that could be decoded.
func refusedOrMeant(t *testing.T, config TaskConfig) {
	t.Helper()
	w, err := config.check([]*regexp.Regexp{regexp.MustCompile(`\A(?:-msg|timestamp=on)\z`)})
	if err != nil {
		for _, each := range err.(interface{ Unwrap() []error }).Unwrap() {
			field, named := strings.CutPrefix(each.Error(), "config.")
			must.True(t, named && isField(field), must.Sprintf("which field? %v", each))
		}
		return
	}
	must.False(t, strings.ContainsAny(w.Machine.Type, ", =\n"), must.Sprintf("machine.type %q", w.Machine.Type))
	must.False(t, strings.ContainsAny(w.Machine.CPU, " \n\x00"), must.Sprintf("machine.cpu %q", w.Machine.CPU))
	must.Positive(t, w.readyTimeout)
	must.EqOp(t, len(config.Mounts), len(w.mounts))
	for _, arg := range w.ExtraArgs {
		must.SliceContains(t, []string{"-msg", "timestamp=on"}, arg)
	}
}

// isField tells whether a message begins with the name of a field of a task's
// config, or of one of its blocks.
func isField(message string) bool {
	path, _, _ := strings.Cut(message, ":")
	path, _, _ = strings.Cut(path, " ")
	at := reflect.TypeFor[TaskConfig]()
	for name := range strings.SplitSeq(path, ".") {
		if at.Kind() == reflect.Slice {
			at = at.Elem()
		}
		if at.Kind() != reflect.Struct {
			return false
		}
		fields := reflect.VisibleFields(at)
		i := slices.IndexFunc(fields, func(f reflect.StructField) bool { return f.Tag.Get("codec") == name })
		if i < 0 {
			return false
		}
		at = fields[i].Type
	}
	return true
}
