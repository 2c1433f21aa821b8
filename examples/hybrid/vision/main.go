// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Command vision finds faces in photographs and answers over HTTP. It stands
// for the heavy kind of edge application, the one that belongs in a container.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	listen := flag.String("listen", ":8080", "address to listen on")
	cascade := flag.String("cascade", "/facefinder", "file with pigo's face cascade")
	photo := flag.String("photo", "/sample.jpg", "photograph that GET /detect looks at")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, *cascade, *photo); err != nil {
		log.Fatalf("vision: %v", err)
	}
}

// run serves until ctx ends, then lets requests under way finish.
func run(ctx context.Context, listen, cascade, photo string) error {
	detector, err := loadDetector(cascade)
	if err != nil {
		return err
	}
	sample, err := os.ReadFile(photo)
	if err != nil {
		return fmt.Errorf("reading the photograph: %w", err)
	}
	server := &http.Server{
		Addr:              listen,
		Handler:           newHandler(detector, sample),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
	}
	drained := make(chan error, 1)
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		defer cancel()
		drained <- server.Shutdown(grace)
	}()
	log.Printf("vision: looking for faces on %s", listen)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-drained
}
