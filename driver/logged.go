// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/nomad/plugins/drivers"
)

// loggedLines are the last console lines that Nomad has logged of a task: what
// the driver missed while it was away. Nothing readable means no lines.
func loggedLines(config *drivers.TaskConfig) []string {
	const most = 8 << 10
	path := newestLog(config)
	if path == "" {
		return nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	text := make([]byte, min(info.Size(), most))
	n, _ := file.ReadAt(text, info.Size()-int64(len(text)))
	return strings.Split(strings.ReplaceAll(string(text[:n]), "\r", ""), "\n")
}

// newestLog is the log file with the highest number: TASK.stdout.N.
func newestLog(config *drivers.TaskConfig) string {
	prefix := config.Name + ".stdout."
	dir := config.TaskDir().LogDir
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	var numbers []int
	for _, entry := range entries {
		suffix, ok := strings.CutPrefix(entry.Name(), prefix)
		if n, err := strconv.Atoi(suffix); ok && err == nil {
			numbers = append(numbers, n)
		}
	}
	if len(numbers) == 0 {
		return ""
	}
	return filepath.Join(dir, prefix+strconv.Itoa(slices.Max(numbers)))
}
