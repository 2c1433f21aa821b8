// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/e2e/harness"
)

// splitGuests tells a guest's RAM from its QEMU's own memory.
func splitGuests(all []harness.ProcessMemory) []harness.ProcessMemory {
	var split []harness.ProcessMemory
	for _, p := range all {
		if p.Role == "qemu" {
			ram := guestRAM(p.PID)
			split = append(split, harness.ProcessMemory{PID: p.PID, Role: "guest's RAM", KiB: ram})
			p.KiB -= ram
		}
		split = append(split, p)
	}
	return split
}

// guestRAM is how much of a guest's RAM is there, in KiB: the one mapping of
// QEMU's that has its size and is nobody else's.
func guestRAM(pid int) int {
	smaps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return 0
	}
	size := 0
	for line := range strings.Lines(string(smaps)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "Size:":
			size, _ = strconv.Atoi(fields[1])
		case "Pss:":
			if size == guestMiB<<10 {
				kib, _ := strconv.Atoi(fields[1])
				return kib
			}
		}
	}
	return 0
}

// cpuOver tells how much of a core each group of processes takes while d
// passes, in percent.
func cpuOver(ctx context.Context, d time.Duration, groups ...[]int) ([]float64, error) {
	began := time.Now()
	before := make([]time.Duration, len(groups))
	for i, group := range groups {
		before[i] = cpuTime(group)
	}
	if err := pause(ctx, d); err != nil {
		return nil, err
	}
	took := time.Since(began)
	percent := make([]float64, len(groups))
	for i, group := range groups {
		percent[i] = 100 * float64(cpuTime(group)-before[i]) / float64(took)
	}
	return percent, nil
}

// cpuTime is how long all threads of processes have run. The scheduler counts
// nanoseconds, where /proc/PID/stat counts ticks.
func cpuTime(pids []int) time.Duration {
	var sum time.Duration
	for _, pid := range pids {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid)) // the pattern is well formed
		for _, thread := range threads {
			data, err := os.ReadFile(thread)
			if err != nil {
				continue // it ended
			}
			ran, _, _ := strings.Cut(string(data), " ")
			ns, _ := strconv.ParseInt(ran, 10, 64)
			sum += time.Duration(ns)
		}
	}
	return sum
}

// openFiles counts a process's descriptors.
func openFiles(pid int) int {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return 0
	}
	return len(entries)
}

// pssOf is a process's proportional set size in MiB.
func pssOf(pid int) (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "Pss:" {
			kib, err := strconv.ParseFloat(fields[1], 64)
			return kib / 1024, err
		}
	}
	return 0, errors.New("smaps_rollup has no Pss")
}
