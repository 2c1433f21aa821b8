// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"os"
	"strings"
	"testing"

	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// parsed reads an option's value as QEMU does: parameters end at a comma, and
// two of them are one in a value. A parameter without "=" is named by itself.
// Source: QEMU, util/qemu-option.c, get_opt_value and opts_do_parse.
func parsed(value string) map[string]string {
	found := map[string]string{}
	for value != "" {
		name := value[:strings.IndexAny(value+",", "=,")]
		value = value[len(name):]
		var text strings.Builder
		for value = strings.TrimPrefix(value, "="); value != ""; {
			part, rest, comma := strings.Cut(value, ",")
			text.WriteString(part)
			value = rest
			if !comma || !strings.HasPrefix(rest, ",") {
				break
			}
			text.WriteByte(',')
			value = rest[1:]
		}
		found[name] = text.String()
	}
	return found
}

// FuzzOptions: whatever a value holds, QEMU reads that value and no other
// parameter.
func FuzzOptions(f *testing.F) {
	f.Add("virt", "3", "net0", "52:54:00:12:34:56", "conf", "disk-0")
	f.Add("virt,dumpdtb=/tmp/x", "3,accel=kvm", "a,,b", ",", "tag,readonly=off", ",,,x=")
	f.Add("=", "", "=,=", ",,=", "a=b,c=d,,", "\x00\n'\"\\")
	f.Fuzz(func(t *testing.T, board, gic, id, mac, tag, serial string) {
		config := Config{
			ID: id, Arch: guest.ARM64, Accelerator: TCG, Type: board, GIC: gic, Kernel: os.Stdin,
			NICs: []NIC{{
				ID: id, Device: "virtio-net-device", MAC: mac,
				Netdev: func(int) string { return "user" },
			}},
			Disks:  []Disk{{File: os.Stdin, Device: "virtio-blk-device", Format: "raw", Serial: serial}},
			Shares: []Share{{Folder: os.Stdin, Device: "virtio-9p-device", Tag: tag}},
		}
		args := config.argv(&sockets{qmp: listener{os.Stdin}, console: listener{os.Stdin}}, new(files))

		must.Eq(t, optional(map[string]string{"type": board}, "gic-version", gic), parsed(after(t, args, "-machine")))
		must.EqOp(t, id, parsed("id=" + after(t, args, "-name"))["id"])
		var devices []map[string]string
		for i, arg := range args {
			if arg == "-device" {
				devices = append(devices, parsed(args[i+1]))
			}
		}
		must.Eq(t, []map[string]string{
			{"virtio-net-device": "", "netdev": id, "mac": mac},
			optional(map[string]string{"virtio-blk-device": "", "drive": "disk0"}, "serial", serial),
			{"virtio-9p-device": "", "fsdev": "share0", "mount_tag": tag},
		}, devices)
	})
}

// optional adds a parameter that is given only where it has a value.
func optional(params map[string]string, name, value string) map[string]string {
	if value != "" {
		params[name] = value
	}
	return params
}
