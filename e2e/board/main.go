// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Command board boots the emulated ARM board, an arm64 Debian whose KVM works,
// and runs a command on it, with its output here and its exit status as this
// program's. Without a command it gives a shell. `make board` builds what it
// boots.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// board is one boot of the board.
type board struct {
	files  string // folder of the kernel, the first program and the root
	host   string // folder that the board sees, read-only, as /host
	output string // folder that the board sees as /output and may write to; empty: none
	gic    string // version of the interrupt controller
	cgroup string // v1 or v2
	cpu    string // QEMU's model of the processor
	memory int    // MiB
	debug  bool
}

func main() {
	var b board
	flag.StringVar(&b.files, "files", "build/board", "folder that `make board` built")
	flag.StringVar(&b.host, "host", "build/board/host", "folder that the board sees as /host")
	flag.StringVar(&b.output, "output", "", "folder that the board sees as /output and may write to")
	flag.StringVar(&b.gic, "gic", "3", "interrupt controller: 3, or 2 for a board that offers its guests GICv2 only")
	flag.StringVar(&b.cgroup, "cgroup", "v2", "control groups: v1 or v2")
	flag.StringVar(&b.cpu, "cpu", "max,pauth-impdef=on", "QEMU's model of the processor, such as cortex-a76, a Raspberry Pi 5's")
	flag.IntVar(&b.memory, "memory", 3072, "memory in MiB")
	flag.BoolVar(&b.debug, "debug", false, "show the board's kernel log")
	timeout := flag.Duration("timeout", 0, "power the board off after this long; 0: never")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if *timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, *timeout)
		defer cancel()
	}
	status, err := b.run(ctx, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "board:", err)
		os.Exit(125)
	}
	os.Exit(status)
}

// run boots the board, hands the command over and returns its exit status.
func (b board) run(ctx context.Context, command []string) (int, error) {
	control, err := os.MkdirTemp("", "board-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(control)
	if len(command) > 0 {
		if err := os.WriteFile(filepath.Join(control, "command"), []byte(quote(command)+"\n"), 0o644); err != nil {
			return 0, err
		}
	}
	cmd := exec.CommandContext(ctx, "qemu-system-aarch64", b.args(control)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if len(command) == 0 {
		cmd.Stdin = os.Stdin
	}
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return 0, fmt.Errorf("powered off before its end: %w", context.Cause(ctx))
		}
		return 0, fmt.Errorf("running qemu-system-aarch64: %w", err)
	}
	return readStatus(filepath.Join(control, "status"))
}

// args is QEMU's command line. The usual processor's pauth-impdef spares the
// emulation a costly cipher in every function of the board's kernel.
func (b board) args(control string) []string {
	kernelLog := "quiet"
	if b.debug {
		kernelLog = "earlycon"
	}
	share := func(tag, path, options string) []string {
		return []string{
			"-fsdev", "local,id=" + tag + ",path=" + escape(path) + ",security_model=none" + options,
			"-device", "virtio-9p-device,fsdev=" + tag + ",mount_tag=" + tag,
		}
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "virt,virtualization=on,gic-version=" + b.gic,
		"-accel", "tcg,thread=multi", "-cpu", b.cpu,
		"-smp", "2", "-m", strconv.Itoa(b.memory),
		"-kernel", filepath.Join(b.files, "kernel"),
		"-initrd", filepath.Join(b.files, "initrd"),
		"-append", "console=ttyAMA0 mitigations=off panic=-1 " + kernelLog + " cgroup=" + b.cgroup,
		"-drive", "if=none,id=root,format=raw,snapshot=on,file=" + escape(filepath.Join(b.files, "root")),
		"-device", "virtio-blk-device,drive=root",
		"-netdev", "user,id=net,restrict=on,net=192.168.76.0/24,host=192.168.76.1", "-device", "virtio-net-device,netdev=net",
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
	}
	if b.output != "" {
		args = append(args, share("output", b.output, "")...)
	}
	args = append(args, share("control", control, "")...)
	return append(args, share("host", b.host, ",readonly=on")...)
}

// escape doubles commas, which end a value in QEMU's options.
func escape(value string) string { return strings.ReplaceAll(value, ",", ",,") }

// quote writes a command for a shell.
func quote(command []string) string {
	words := make([]string, 0, len(command))
	for _, word := range command {
		words = append(words, "'"+strings.ReplaceAll(word, "'", `'\''`)+"'")
	}
	return strings.Join(words, " ")
}

// readStatus reads the exit status that the board left.
func readStatus(path string) (int, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, errors.New("it ended without a result: boot it with -debug to see why")
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
