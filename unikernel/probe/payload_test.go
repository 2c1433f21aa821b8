// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package probe

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

func TestPayloads_AreTheirSources(t *testing.T) {
	out := t.TempDir()
	told, err := exec.Command("make", "-C", "payload", "OUT="+out).CombinedOutput()
	must.NoError(t, err, must.Sprint(string(told)))
	for _, name := range []string{"arm64.bin", "x86_64.bin"} {
		built, err := os.ReadFile(filepath.Join(out, name))
		must.NoError(t, err)
		committed, err := os.ReadFile(filepath.Join("payload", name))
		must.NoError(t, err)
		must.True(t, bytes.Equal(built, committed),
			must.Sprintf("payload/%s is not what its source makes: run go generate and commit it", name))
	}
}

// Emulation runs everything, so that there the payloads must pass.
func TestPayload_PassesUnderEmulation(t *testing.T) {
	for _, arch := range guest.Arches {
		t.Run(string(arch), func(t *testing.T) {
			qemu, err := lookUp(arch, "")
			must.NoError(t, err)
			must.NoError(t, payloads[arch].run(t.Context(), qemu, TCG, nil))
		})
	}
}

// A payload whose checks fail, or that never gets to them, must not pass.
func TestPayload_BrokenOneFails(t *testing.T) {
	for _, arch := range guest.Arches {
		t.Run(string(arch), func(t *testing.T) {
			qemu, err := lookUp(arch, "")
			must.NoError(t, err)
			broken := payloads[arch]
			broken.kernel = spoil(t, broken.kernel, arch)
			must.ErrorContains(t, broken.run(t.Context(), qemu, TCG, nil), "computed wrongly or was reset")
		})
	}
}

// spoil changes a constant that a payload's check compares with.
func spoil(t *testing.T, kernel []byte, arch guest.Arch) []byte {
	t.Helper()
	was := map[guest.Arch][]byte{
		guest.ARM64:  {0x3f, 0xc4, 0x00, 0xf1},       // cmp x1, #49
		guest.X86_64: {0x48, 0x83, 0xf8, 0x31, 0x75}, // cmp $49, %rax
	}[arch]
	becomes := map[guest.Arch][]byte{
		guest.ARM64:  {0x3f, 0xc8, 0x00, 0xf1},
		guest.X86_64: {0x48, 0x83, 0xf8, 0x32, 0x75},
	}[arch]
	must.Eq(t, 1, bytes.Count(kernel, was))
	return bytes.Replace(kernel, was, becomes, 1)
}

func TestRun_TellsWhatFailed(t *testing.T) {
	cases := map[string]struct {
		body string
		want string
	}{
		"internal error, paused for ever": {"echo 'KVM internal error. Suberror: 1' >&2; exec sleep 1000", "KVM cannot run the instructions"},
		"abort":                           {"echo 'error: failed to set MSR 0x10a to 0x69' >&2; kill -ABRT $$", "failed to set MSR 0x10a"},
		"no permission":                   {"echo 'Could not access KVM kernel module: Permission denied' >&2; exit 1", "no permission"},
		"busy":                            {"echo 'ioctl(KVM_CREATE_VM) failed: 16 Device or resource busy' >&2; exit 1", "Device or resource busy"},
		"killed":                          {"kill -KILL $$", "signal 9"},
		"a check failed":                  {"exit 131", "computed wrongly"},
		"reset":                           {"exit 0", "computed wrongly or was reset"},
		"talks without end":               {"yes | head -c 1000000; exit 0", "computed wrongly"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			qemu := fakeQEMU(t, goodVersion, tc.body)
			err := payloads[guest.X86_64].run(t.Context(), qemu, KVM, nil)
			must.ErrorContains(t, err, tc.want)
		})
	}
}

// A crash of QEMU's own is believed when it comes again and again.
func TestRun_CrashesNowAndThen(t *testing.T) {
	for _, tc := range []struct {
		often int
		want  string // empty: the payload passes
	}{{crashes - 1, ""}, {crashes, "signal 11"}} {
		runs := filepath.Join(t.TempDir(), "runs")
		qemu := fakeQEMU(t, goodVersion, fmt.Sprintf("echo run >> %s; [ $(wc -l < %[1]s) -gt %d ] || kill -SEGV $$; exit 99", runs, tc.often))
		err := payloads[guest.X86_64].run(t.Context(), qemu, KVM, nil)
		if tc.want == "" {
			must.NoError(t, err)
		} else {
			must.ErrorContains(t, err, tc.want)
		}
		counted, err := os.ReadFile(runs)
		must.NoError(t, err)
		must.Eq(t, crashes, bytes.Count(counted, []byte("run\n")))
	}
}

func TestRun_EndsWhatHangs(t *testing.T) {
	qemu := fakeQEMU(t, goodVersion, "exec sleep 1000")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	must.ErrorContains(t, payloads[guest.ARM64].run(ctx, qemu, KVM, nil), "did not end")
}

func TestRun_NoSuchProgram(t *testing.T) {
	err := payloads[guest.ARM64].run(t.Context(), filepath.Join(t.TempDir(), "none"), KVM, nil)
	must.ErrorContains(t, err, "starting QEMU")
}
