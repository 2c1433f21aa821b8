// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/shoenig/test/must"
	"golang.org/x/sys/unix"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

// status reads a line of a process's status, such as CapEff.
func status(t *testing.T, pid int, name string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must.NoError(t, err)
	match := regexp.MustCompile(`(?m)^` + name + `:\s*(.*)$`).FindStringSubmatch(string(text))
	must.Len(t, 2, match, must.Sprintf("no %s in %s", name, text))
	return strings.TrimSpace(match[1])
}

func TestMachine_IsConfined(t *testing.T) {
	for _, user := range []*syscall.Credential{nil, {Uid: 65534, Gid: 65534, Groups: []uint32{4242}}} {
		t.Run(fmt.Sprint(user), func(t *testing.T) {
			config, watch := steps(t, guest.ARM64, "--hang")
			config.User = user
			m := start(t, config, watch)
			pid := m.State().PID

			for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
				must.Eq(t, "0000000000000000", status(t, pid, set), must.Sprint(set))
			}
			must.Eq(t, "1", status(t, pid, "NoNewPrivs"))
			must.Eq(t, "2", status(t, pid, "Seccomp"))
			if user != nil {
				must.Eq(t, "4242", status(t, pid, "Groups"))
				must.Eq(t, "65534\t65534\t65534\t65534", status(t, pid, "Uid"))
			}
			for _, own := range []string{"ipc", "mnt"} {
				must.NotEq(t, namespace(t, "self", own), namespace(t, fmt.Sprint(pid), own), must.Sprint(own))
			}
			must.Eq(t, namespace(t, "self", "net"), namespace(t, fmt.Sprint(pid), "net"))
			if user == nil { // another user's limits need a capability that root in containers may lack
				limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
				must.NoError(t, err)
				must.RegexMatch(t, regexp.MustCompile(`Max core file size\s+0\s+0\s`), string(limits))
				must.RegexMatch(t, regexp.MustCompile(`Max open files\s+1024\s+1024\s`), string(limits))
			}
		})
	}
}

// What whoever started the agent left open is not QEMU's.
func TestMachine_InheritsNoMore(t *testing.T) {
	secret, err := os.Create(filepath.Join(t.TempDir(), "secret"))
	must.NoError(t, err)
	t.Cleanup(func() { secret.Close() })
	leaked, err := unix.Dup(int(secret.Fd())) // without O_CLOEXEC
	must.NoError(t, err)
	t.Cleanup(func() { _ = unix.Close(leaked) })

	config, watch := steps(t, guest.ARM64, "--hang")
	m := start(t, config, watch)
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", m.State().PID))
	must.NoError(t, err)
	must.SliceNotEmpty(t, links)
	for _, link := range links {
		target, err := os.Readlink(link)
		if err == nil { // else closed meanwhile
			must.NotEq(t, secret.Name(), target)
		}
	}
}

func namespace(t *testing.T, process, kind string) string {
	t.Helper()
	link, err := os.Readlink(fmt.Sprintf("/proc/%s/ns/%s", process, kind))
	must.NoError(t, err)
	return link
}

func TestMachine_SeesLittleOfTheHost(t *testing.T) {
	config, watch := steps(t, guest.ARM64, "--hang")
	m := start(t, config, watch)
	root := fmt.Sprintf("/proc/%d/root", m.State().PID)

	seen := names(t, root)
	for _, hidden := range []string{"home", "root", "tmp", "var", "sys", "boot"} {
		must.SliceNotContains(t, seen, hidden)
	}
	must.SliceContainsAll(t, names(t, filepath.Join(root, "dev")), existing(seenDevices))
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", m.State().PID))
	must.NoError(t, err)
	for line := range strings.Lines(string(mounts)) {
		must.StrContains(t, line, " ro,nosuid", must.Sprint("a mount that can be written"))
	}
	t.Logf("root: %v\n%s", seen, mounts)
}

// existing are the names of those files that this machine has.
func existing(paths []string) []string {
	var names []string
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			names = append(names, filepath.Base(path))
		}
	}
	return names
}

// Arguments that an operator allows may name files.
func TestMachine_ExtraArgumentsSeeTheHost(t *testing.T) {
	config, watch := steps(t, guest.ARM64, "--hang")
	config.ExtraArgs = []string{"-msg", "timestamp=off"}
	m := start(t, config, watch)
	must.SliceContains(t, names(t, fmt.Sprintf("/proc/%d/root", m.State().PID)), "tmp")
}

// A QEMU that is installed apart from the system, here by a script in front of
// the system's, is seen, and so is what a link leads to.
func TestMachine_QEMUElsewhere(t *testing.T) {
	for _, how := range []string{"script", "link"} {
		t.Run(how, func(t *testing.T) {
			config, watch := steps(t, guest.X86_64, "--exit=0")
			bin := filepath.Join(t.TempDir(), "bin")
			must.NoError(t, os.Mkdir(bin, 0o755))
			for dir := bin; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
				must.NoError(t, os.Chmod(dir, 0o755)) // QEMU's user starts it
			}
			own := filepath.Join(bin, "qemu")
			if how == "link" {
				must.NoError(t, os.Symlink(config.QEMU, own))
			} else {
				must.NoError(t, os.WriteFile(own, []byte("#!/bin/sh\nexec "+config.QEMU+" \"$@\"\n"), 0o755))
			}
			config.QEMU = own
			m := start(t, config, watch)
			must.Eq(t, 0, awaitEnd(t, m).ExitCode, must.Sprint(m.Result().Message))
		})
	}
}

// The command line holds the task's environment.
func TestMachine_CommandLineIsNotShown(t *testing.T) {
	const secret = "SECRET=a-value-of-its-own"
	config, watch := steps(t, guest.ARM64, "env.vars=[ "+secret+" ] -- --hang")
	m := start(t, config, watch)
	for _, file := range []string{"cmdline", "environ"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", m.State().PID, file))
		must.NoError(t, err)
		must.StrNotContains(t, string(text), "a-value-of-its-own")
	}
}

func TestFolderOf(t *testing.T) {
	cases := map[string][]string{
		"/usr/bin/qemu-system-aarch64":    nil,
		"/opt/qemu/bin/qemu":              {"/opt/qemu"},
		"/home/me/qemu/build/qemu-system": {"/home/me/qemu/build"},
		"/bin/qemu":                       nil,
		"/qemu":                           nil,
		"/nix/store/x-qemu/bin/qemu":      nil,
		"/usrlocal/bin/qemu":              {"/usrlocal"},
	}
	for program, want := range cases {
		must.Eq(t, want, folderOf(program), must.Sprint(program))
	}
}

// What confinement costs of a start.
func BenchmarkStartConfined(b *testing.B) {
	program := func() *exec.Cmd { return exec.Command("/bin/true") }
	b.Run("with", func(b *testing.B) {
		for b.Loop() {
			cmd := program()
			must.NoError(b, startConfined(Config{QEMU: cmd.Path, RunDir: b.TempDir()}, cmd))
			must.NoError(b, cmd.Wait())
		}
	})
	b.Run("without", func(b *testing.B) {
		for b.Loop() {
			must.NoError(b, program().Run())
		}
	})
}
