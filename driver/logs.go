// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/shared/hclspec"

	"golang.org/x/sys/unix"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/output"
)

// LogsConfig says who writes the logs that operators read.
type LogsConfig struct {
	Collector   string `codec:"collector"`
	MaxFiles    int    `codec:"max_files"`
	MaxFileSize string `codec:"max_file_size"`
}

// Who writes logs: a process of Nomad's for each task (logmon), or the driver.
const (
	collectorNomad  = "nomad"
	collectorDriver = "driver"
)

// The driver's log files are as many and as large as Nomad's own are by
// default. It is not told of the job's logs block.
const (
	defaultMaxFiles    = 10
	defaultMaxFileSize = "10MiB"
)

var logsSpec = hclspec.NewObject(map[string]*hclspec.Spec{
	"collector":     text("collector", collectorNomad),
	"max_files":     number("max_files", defaultMaxFiles),
	"max_file_size": text("max_file_size", defaultMaxFileSize),
})

// check tells the limits of log files that the driver writes.
func (c LogsConfig) check() (output.Limits, error) {
	if c.Collector == "" { // no logs block at all
		c = LogsConfig{collectorNomad, defaultMaxFiles, defaultMaxFileSize}
	}
	if c.Collector != collectorNomad && c.Collector != collectorDriver {
		return output.Limits{}, fmt.Errorf("logs.collector: %q is unknown: use nomad or driver", c.Collector)
	}
	if c.MaxFiles < 1 {
		return output.Limits{}, fmt.Errorf("logs.max_files: %d is too few: use 1 or more", c.MaxFiles)
	}
	size, err := mebibytes("logs.max_file_size", c.MaxFileSize)
	if err != nil {
		return output.Limits{}, err
	}
	if size < 1 {
		return output.Limits{}, fmt.Errorf("logs.max_file_size: %q is too small: use 1MiB or more", c.MaxFileSize)
	}
	return output.Limits{MaxFiles: c.MaxFiles, MaxBytes: size << 20}, nil
}

// lastOutputTimeout bounds the wait for the last output to be taken at a
// task's end. It takes a moment, unless nobody reads.
const lastOutputTimeout = 500 * time.Millisecond

// spoolPath is the file into which QEMU writes a task's console. It lies in
// the task's folder, which no other task can enter, and on its disk: in the
// run directory its pages would count as the task's memory.
func spoolPath(config *drivers.TaskConfig) string {
	return filepath.Join(config.TaskDir().Dir, ".console."+machineID(config.ID))
}

// logs carry a task's output: the guest's console to stdout, and what QEMU has
// to say of its own, when it has ended, to stderr.
type logs struct {
	path   string // of the spool
	spool  *output.Spool
	sinks  sinks
	pump   *output.Pump
	forget func(path string)
}

// held are the log pipes, where there are such, opened for QEMU to hold: while
// it lives they have a writer, and a logmon that reads them does not take the
// end of the plugin for the end of the task.
func (l *logs) held() ([]*os.File, error) {
	var files []*os.File
	for _, sink := range []output.Sink{l.sinks.stdout, l.sinks.stderr} {
		pipe, ok := sink.(*os.File)
		if !ok {
			continue
		}
		file, err := openAgain(pipe)
		if err != nil {
			closeAll(files)
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

// openAgain opens a pipe once more, for writing only.
func openAgain(pipe *os.File) (*os.File, error) {
	raw, err := pipe.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("opening the task's log pipe for QEMU: %w", err)
	}
	var fd int
	cerr := raw.Control(func(own uintptr) {
		fd, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", own), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	})
	if err := errors.Join(cerr, err); err != nil {
		return nil, fmt.Errorf("opening the task's log pipe for QEMU: %w", err)
	}
	return os.NewFile(uintptr(fd), pipe.Name()), nil
}

func closeAll(files []*os.File) {
	for _, file := range files {
		file.Close()
	}
}

// sinks are where Nomad wants a task's output.
type sinks struct{ stdout, stderr output.Sink }

// openLogs opens where a task's output goes; openSpool makes or finds its spool.
func openLogs(config *drivers.TaskConfig, settings *settings, openSpool func(string) (*output.Spool, error)) (*logs, error) {
	l := &logs{path: spoolPath(config)}
	var err error
	if l.sinks, err = openSinks(config, settings); err != nil {
		return nil, err
	}
	if l.spool, err = openSpool(l.path); err != nil {
		l.sinks.close()
		return nil, err
	}
	return l, nil
}

func openSinks(config *drivers.TaskConfig, settings *settings) (sinks, error) {
	stdout, err := openSink(config, settings, config.StdoutPath, "stdout")
	if err != nil {
		return sinks{}, err
	}
	stderr, err := openSink(config, settings, config.StderrPath, "stderr")
	if err != nil {
		stdout.Close()
		return sinks{}, err
	}
	return sinks{stdout, stderr}, nil
}

func openSink(config *drivers.TaskConfig, settings *settings, path, stream string) (output.Sink, error) {
	switch {
	case path == os.DevNull: // the job turned logs off
		return output.Discard{}, nil
	case settings.Logs.Collector == collectorDriver:
		return output.OpenRotated(config.TaskDir().LogDir, config.Name+"."+stream, settings.logLimits)
	}
	return openLogPipe(path)
}

// openLogPipe opens the pipe from which Nomad's logmon reads: for reading and
// writing, so that opening waits for nobody, and a reader that went away
// (logmon is started again when it dies) is not the end of the pipe. Anything
// but a pipe, such as a link that a task put in its place, is refused.
func openLogPipe(path string) (output.Sink, error) {
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the task's log pipe: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("opening the task's log pipe: %w", err)
	}
	if info.Mode()&os.ModeNamedPipe == 0 {
		file.Close()
		return nil, fmt.Errorf("the task's log pipe %s is no pipe: something replaced it", path)
	}
	return file, nil
}

func (s sinks) close() {
	s.stdout.Close()
	s.stderr.Close()
}

// watcher serves all tasks of this process.
var watcher = sync.OnceValues(output.NewWatcher)

// lastLines are the last lines that the guest printed. It may be called on nil.
func (l *logs) lastLines() []string {
	if l == nil {
		return nil
	}
	return l.spool.LastLines()
}

// start begins to carry output. It may be called on nil.
func (l *logs) start() error {
	if l == nil {
		return nil
	}
	watcher, err := watcher()
	if err != nil {
		return err
	}
	events, err := watcher.Watch(l.path)
	if err != nil {
		return err
	}
	l.forget = watcher.Forget
	l.pump = output.Start(l.spool, l.sinks.stdout, events)
	return nil
}

// finish carries the last output, and QEMU's own words. It may be called on
// nil.
func (l *logs) finish(qemuLog string) {
	if l == nil {
		return
	}
	if l.pump == nil {
		l.spool.Close()
		l.sinks.close()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastOutputTimeout)
	defer cancel()
	l.pump.Finish(ctx)
	l.forget(l.path)
	if qemuLog != "" {
		_ = l.sinks.stderr.SetWriteDeadline(time.Now().Add(lastOutputTimeout))
		_, _ = io.WriteString(l.sinks.stderr, qemuLog)
	}
	l.sinks.stderr.Close()
}

// releaseLogmon opens and closes the pipes of a task that is not going to
// start: Nomad's logmon waits four seconds for pipes that nobody opened.
func (d *Driver) releaseLogmon(config *drivers.TaskConfig) {
	settings, _, err := d.configured()
	if err != nil {
		return
	}
	if sinks, err := openSinks(config, settings); err == nil {
		sinks.close()
	}
}
