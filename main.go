// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// nomad-driver-unikernel is a Nomad task driver plugin that boots unikernels
// under QEMU. A Nomad client starts it. Operators run it themselves for
// `nomad-driver-unikernel cache`, which looks into the image cache.
package main

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/hashicorp/go-hclog"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/driver"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/image"
	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/image/cache"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "cache" {
		os.Exit(cache.Main(os.Args[2:], image.DefaultCacheDir(), os.Stdout, os.Stderr))
	}
	log := hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, JSONFormat: true}) // the agent filters
	// An agent that was killed no longer reads this plugin's log. The next one
	// takes the plugin up as it is, and writing to nobody must not end it then.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	driver.Serve(driver.New(log), log)
}
