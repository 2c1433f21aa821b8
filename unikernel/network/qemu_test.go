// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package network

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// bootPatience is how long an emulated guest may take to listen.
const bootPatience = 60 * time.Second

var qemuBinaries = map[guest.Arch]string{guest.ARM64: "qemu-system-aarch64", guest.X86_64: "qemu-system-x86_64"}

// TestQEMU_Bridge boots the project's own unikernel behind a tap.
func TestQEMU_Bridge(t *testing.T) {
	for arch := range qemuBinaries {
		t.Run(string(arch), func(t *testing.T) {
			alloc, outside := newAlloc(t, 1500)
			nic := bridge(t, alloc, port("http", 8080), port("echo", 9000))
			stop := boot(t, alloc, arch, nic)

			for _, from := range []struct {
				netns ns.NetNS
				ip    string
			}{{outside, allocIP}, {alloc, "127.0.0.1"}, {alloc, allocIP}} {
				expectSteps(t, from.netns, from.ip+":8080", from.ip+":9000")
			}
			stop()
			must.Eq(t, []string{nic.Undo.Table}, leftovers(t, alloc)) // the tap went with QEMU
			must.NoError(t, nic.Undo.Undo(t.Context()))
			must.SliceEmpty(t, leftovers(t, alloc))
		})
	}
}

// TestQEMU_User boots the project's own unikernel in user-mode networking.
func TestQEMU_User(t *testing.T) {
	for arch := range qemuBinaries {
		t.Run(string(arch), func(t *testing.T) {
			host := newNetns(t) // so that no port of this machine is in the way
			nic, err := User(Config{Ports: []Port{{"http", loopback, 25000, 8080}, {"echo", loopback, 25001, 9000}}})
			must.NoError(t, err)
			defer boot(t, host, arch, nic)()
			expectSteps(t, host, "127.0.0.1:25000", "127.0.0.1:25001")
		})
	}
}

// boot starts QEMU in netns as an unprivileged user, as the driver does, and
// waits until the guest listens. The guest ends with the returned call.
func boot(t *testing.T, netns ns.NetNS, arch guest.Arch, nic *NIC) (stop func()) {
	t.Helper()
	kind, err := guest.For(guest.Unikraft, "", arch)
	must.NoError(t, err)
	line, err := kind.CommandLine(guest.Boot{Net: &nic.Net, Args: []string{"--port=8080", "--udp-echo=9000"}, Initrd: true})
	must.NoError(t, err)

	const firstFile = 5 // after standard error, kernel and initrd
	devices := kind.Devices()
	device := devices.Net + ",netdev=" + ID + ",mac=" + MAC
	if devices.NetProperties != "" {
		device += "," + devices.NetProperties
	}
	qemu := exec.Command(qemuBinaries[arch], "-nodefaults", "-no-user-config", "-display", "none", "-sandbox", "on",
		"-machine", devices.Machine, "-accel", "tcg,tb-size=32", "-cpu", devices.CPUTCG, "-m", "16M", "-serial", "stdio",
		"-kernel", "/proc/self/fd/3", "-initrd", "/proc/self/fd/4", "-append", line,
		"-netdev", nic.Netdev(firstFile), "-device", device)
	qemu.ExtraFiles = append([]*os.File{openBuilt(t, "steps-"+string(arch)), openBuilt(t, "steps.cpio")}, nic.Files...)
	qemu.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, Pdeathsig: syscall.SIGKILL}
	console, err := qemu.StdoutPipe()
	must.NoError(t, err)
	var stderr strings.Builder
	qemu.Stderr = &stderr
	run(t, netns, qemu.Start)
	stop = func() {
		_ = qemu.Process.Kill()
		_ = qemu.Wait()
	}
	t.Cleanup(stop)
	must.NoError(t, nic.Close())

	deadline := time.AfterFunc(bootPatience, func() { _ = qemu.Process.Kill() })
	defer deadline.Stop()
	must.NoError(t, awaitLine(console, "listening on port 8080"), must.Sprint(&stderr))
	return stop
}

func openBuilt(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Open("../../build/steps/" + name)
	must.NoError(t, err, must.Sprint("run: make steps"))
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// awaitLine reads r until a line holds text, and on without heed of what follows.
func awaitLine(r io.Reader, text string) error {
	lines := bufio.NewScanner(r)
	var seen strings.Builder
	for lines.Scan() {
		fmt.Fprintln(&seen, lines.Text())
		if strings.Contains(lines.Text(), text) {
			go func() { _, _ = io.Copy(io.Discard, r) }() // ends with QEMU
			return nil
		}
	}
	return fmt.Errorf("the guest ended before it said %q: %s", text, &seen)
}

// expectSteps asks the guest over TCP and UDP.
func expectSteps(t *testing.T, netns ns.NetNS, http, echo string) {
	t.Helper()
	conn, err := dial(netns, "tcp", http)
	must.NoError(t, err)
	_, err = io.WriteString(conn, "GET /healthz HTTP/1.0\r\n\r\n")
	must.NoError(t, err)
	answer, err := io.ReadAll(conn)
	must.NoError(t, err)
	must.NoError(t, conn.Close())
	must.StrHasPrefix(t, "HTTP/1.", string(answer))
	must.StrContains(t, string(answer), "200")

	conn, err = dial(netns, "udp", echo)
	must.NoError(t, err)
	defer func() { _ = conn.Close() }()
	expectEcho(t, conn)
}

func expectEcho(t *testing.T, conn net.Conn) {
	t.Helper()
	_, err := io.WriteString(conn, "steps?")
	must.NoError(t, err)
	buf := make([]byte, 64)
	n, err := conn.Read(buf)
	must.NoError(t, err)
	must.Eq(t, "steps?", string(buf[:n]))
}
