// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

const loadFor = "2s"

var (
	wrkRate    = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)
	wrkLatency = regexp.MustCompile(`(?m)^\s+(50|99)%\s+([0-9.]+)(us|ms|s)$`)
)

// loadTest asks as fast as the application answers. wrk is a program of its
// own, small enough to leave the machine to what it measures.
func loadTest(ctx context.Context, address string, s *sample) error {
	wrk := exec.CommandContext(ctx, "wrk", "-t1", "-c8", "-d"+loadFor, "--latency", "http://"+address+question)
	out, err := wrk.CombinedOutput()
	if err != nil {
		return fmt.Errorf("wrk, which `make bench` installs: %w\n%s", err, out)
	}
	if err := readWrk(out, s); err != nil {
		return fmt.Errorf("%w:\n%s", err, out)
	}
	return nil
}

func readWrk(out []byte, s *sample) error {
	match := wrkRate.FindSubmatch(out)
	if match == nil {
		return errors.New("wrk tells no rate")
	}
	var err error
	if s.Values[rate], err = strconv.ParseFloat(string(match[1]), 64); err != nil {
		return err
	}
	for _, match := range wrkLatency.FindAllSubmatch(out, -1) {
		d, err := time.ParseDuration(string(match[2]) + string(match[3]))
		if err != nil {
			return fmt.Errorf("wrk's latency: %w", err)
		}
		s.Values[metric("latency_p"+string(match[1])+"_ms")] = ms(d)
	}
	return nil
}
