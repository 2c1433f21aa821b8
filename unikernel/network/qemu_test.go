// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package network

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/miekg/dns"
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
			for _, dhcp := range []bool{false, true} {
				told := guest.Boot{Net: &nic.Net, DHCP: dhcp, Args: []string{"--port=8080", "--udp-echo=9000"}}
				stop, console := start(t, host, arch, guest.Unikraft, told, nic)
				_, err = awaitLine(console, "listening on port 8080")
				must.NoError(t, err)
				expectSteps(t, host, "127.0.0.1:25000", "127.0.0.1:25001")
				stop()
			}
		})
	}
}

// boot starts the project's unikernel in netns and waits until it listens. The
// guest ends with the returned call.
func boot(t *testing.T, netns ns.NetNS, arch guest.Arch, nic *NIC) (stop func()) {
	t.Helper()
	told := guest.Boot{Net: &nic.Net, Args: []string{"--port=8080", "--udp-echo=9000"}, Initrd: true}
	stop, console := start(t, netns, arch, guest.Unikraft, told, nic)
	_, err := awaitLine(console, "listening on port 8080")
	must.NoError(t, err)
	return stop
}

// start starts QEMU in netns as an unprivileged user, as the driver does, with
// the project's unikernel as a guest of any family whose arguments it knows.
func start(t *testing.T, netns ns.NetNS, arch guest.Arch, family guest.Family, told guest.Boot, nic *NIC) (stop func(), console io.Reader) {
	t.Helper()
	kind, err := guest.For(family, "", arch)
	must.NoError(t, err)
	line, err := kind.CommandLine(told)
	must.NoError(t, err)

	const firstFile = 5 // after standard error, kernel and initrd
	devices := kind.Devices()
	device := devices.Net + ",netdev=" + ID + ",mac=" + MAC
	if devices.PCIProperties != "" {
		device += "," + devices.PCIProperties
	}
	if nic.MTU < DefaultMTU {
		device += fmt.Sprintf(",host_mtu=%d", nic.MTU)
	}
	qemu := exec.Command(qemuBinaries[arch], "-nodefaults", "-no-user-config", "-display", "none", "-sandbox", "on",
		"-machine", devices.Machine, "-accel", "tcg,tb-size=32", "-cpu", devices.CPUTCG, "-m", "16M", "-serial", "stdio",
		"-kernel", "/proc/self/fd/3", "-initrd", "/proc/self/fd/4", "-append", line,
		"-netdev", nic.Netdev(firstFile), "-device", device)
	qemu.ExtraFiles = append([]*os.File{openBuilt(t, "steps-"+string(arch)), openBuilt(t, "steps.cpio")}, nic.Files...)
	qemu.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, Pdeathsig: syscall.SIGKILL}
	console, err = qemu.StdoutPipe()
	must.NoError(t, err)
	qemu.Stderr = os.Stderr
	run(t, netns, qemu.Start)
	stop = func() {
		_ = qemu.Process.Kill()
		_ = qemu.Wait()
	}
	t.Cleanup(stop)
	must.NoError(t, nic.Close())

	deadline := time.AfterFunc(bootPatience, func() { _ = qemu.Process.Kill() })
	t.Cleanup(func() { deadline.Stop() })
	return stop, console
}

func openBuilt(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Open("../../build/steps/" + name)
	must.NoError(t, err, must.Sprint("run: make steps"))
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// awaitLine reads r until a line holds text, and on without heed of what
// follows. It returns what it read.
func awaitLine(r io.Reader, text string) (string, error) {
	lines := bufio.NewScanner(r)
	var seen strings.Builder
	for lines.Scan() {
		fmt.Fprintln(&seen, lines.Text())
		if strings.Contains(lines.Text(), text) {
			go func() { _, _ = io.Copy(io.Discard, r) }() // ends with QEMU
			return seen.String(), nil
		}
	}
	return "", fmt.Errorf("the guest ended before it said %q: %s", text, &seen)
}

// TestQEMU_BridgeOut has a guest look up a name and fetch a page from outside,
// over a way that takes small packets only, and reaches it by IPv6.
func TestQEMU_BridgeOut(t *testing.T) {
	for arch := range qemuBinaries {
		t.Run(string(arch), func(t *testing.T) {
			alloc, outside := newDualAlloc(t, 1400)
			serveName(t, outside, outsideIP+":53", "pages.test.", outsideIP)
			servePage(t, outside, ":9000")
			nic, err := Bridge(t.Context(), pathOf(alloc), Config{
				Ports: []Port{port("http", 8080), port("echo", 9000)}, IPv6: true, DNS: []netip.Addr{netip.MustParseAddr(outsideIP)},
			})
			must.NoError(t, err)
			dhcp, err := nic.Undo.ServeDHCP(t.Context())
			must.NoError(t, err)
			defer dhcp.Close()
			cases := []struct {
				name string
				told guest.Boot
				url  string
				say  []string
			}{
				{"by DHCP", guest.Boot{Net: &nic.Net, DHCP: true}, "http://pages.test:9000/page", []string{"address 198.19.16.15/24 gateway 198.19.16.2 dns " + outsideIP, "mtu 1400"}},
				{"by arguments", guest.Boot{Net: &nic.Net}, "http://[" + outsideIP6 + "]:9000/page", []string{"address 198.19.16.15/24", "address fdc6:1f4e:2b90::f/64", "mtu 1400"}},
			}
			for _, tc := range cases {
				t.Run(tc.name, func(t *testing.T) {
					tc.told.Args = []string{"--port=8080", "--udp-echo=9000", "--fetch=" + tc.url}
					held := duplicate(t, nic.Files[0]) // for the next guest
					_, console := start(t, alloc, arch, guest.Mirage, tc.told, nic)
					nic.Files = []*os.File{held}
					said, err := awaitLine(console, "fetched "+tc.url+": HTTP/1.0 200 OK, ")
					must.NoError(t, err)
					for _, say := range tc.say {
						must.StrContains(t, said, say)
					}
					expectSteps(t, outside, allocIP+":8080", allocIP+":9000")
					if !tc.told.DHCP {
						expectSteps(t, outside, "["+allocIP6+"]:8080", "["+allocIP6+"]:9000")
					}
				})
			}
		})
	}
}

// serveName answers DNS for one name.
func serveName(t *testing.T, netns ns.NetNS, at, name, address string) {
	t.Helper()
	server := &dns.Server{Handler: dns.HandlerFunc(func(w dns.ResponseWriter, request *dns.Msg) {
		reply := new(dns.Msg).SetReply(request)
		if q := request.Question[0]; q.Qtype == dns.TypeA && q.Name == name {
			reply.Answer = append(reply.Answer, &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.ParseIP(address)})
		}
		_ = w.WriteMsg(reply)
	})}
	run(t, netns, func() (err error) {
		server.PacketConn, err = net.ListenPacket("udp", at)
		return err
	})
	go func() { _ = server.ActivateAndServe() }()
	t.Cleanup(func() { _ = server.Shutdown() })
}

// servePage serves a page of more than one packet.
func servePage(t *testing.T, netns ns.NetNS, at string) {
	t.Helper()
	var listener net.Listener
	run(t, netns, func() (err error) {
		listener, err = net.Listen("tcp", at)
		return err
	})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 10*DefaultMTU))
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
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
