// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Proxy is a sidecar: it answers on a port with what another in its network
// namespace answers, as Envoy does. Without arguments it holds the namespace
// and does nothing, as Nomad's pause image does.
//
//	proxy LISTEN UPSTREAM-URL
//
// With the one argument - it copies its input to its output, for a test of exec.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if len(os.Args) == 1 {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		<-ctx.Done()
		return
	}
	do := serve
	if len(os.Args) == 2 && os.Args[1] == "-" {
		do = echo
	}
	if err := do(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func echo([]string) error {
	_, err := io.Copy(os.Stdout, os.Stdin)
	return err
}

func serve(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("want two arguments, an address to listen on and a URL, got %q", args)
	}
	upstream, err := url.Parse(args[1])
	if err != nil {
		return err
	}
	return http.ListenAndServe(args[0], httputil.NewSingleHostReverseProxy(upstream))
}
