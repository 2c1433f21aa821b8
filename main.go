// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// nomad-driver-unikernel is a Nomad task driver plugin that boots unikernels
// under QEMU. It is started by a Nomad client.
package main

import (
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/plugins"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/driver"
)

func main() {
	plugins.Serve(func(log hclog.Logger) any { return driver.New(log) })
}
