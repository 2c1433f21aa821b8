// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package guest

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/shoenig/test/must"
)

// Each fuzz test encodes what a job may say, reads the line back as the guest
// does, and wants the same. Lists come as one text, split at \x1f.

func split(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, "\x1f")
}

func splitEnv(text string) map[string]string {
	env := map[string]string{}
	for _, v := range split(text) {
		key, value, _ := strings.Cut(v, "=")
		env[key] = value
	}
	return env
}

// found gives the variables that the guest found.
func found(vars []string) map[string]string {
	env := map[string]string{}
	for _, v := range vars {
		key, value, _ := strings.Cut(v, "=")
		env[key] = value
	}
	return env
}

// wantEnv checks that the guest has all that it must have, and else only what
// was offered.
func wantEnv(t *testing.T, b Boot, got map[string]string) {
	t.Helper()
	for key, value := range b.Env {
		must.MapContainsKey(t, got, key)
		must.EqOp(t, value, got[key])
	}
	for key, value := range got {
		if _, required := b.Env[key]; !required {
			must.SliceContains(t, b.Offer, key+"="+value)
		}
	}
}

func FuzzUnikraft(f *testing.F) {
	f.Add(uint8(0), "steps", "a\x1f--\x1f'b \"c\\", "A=1\x1fB=x y]", "N=1\x1fM=2", "host", true)
	f.Add(uint8(1), "a.b=[", "x.y=[\x1f--\x1fz", "", "N=1", "", false)
	f.Add(uint8(2), "", "--\x1fhelp", "=\x1f]", "", "h", true)
	f.Add(uint8(3), "n", "a\n\x1f\\\x1f''", "K=\\ \n'", "K=2", "", true)
	releases := []string{"0.17.0", "0.18.0", "", "0.16.0"}
	f.Fuzz(func(t *testing.T, kind uint8, name, args, env, offer, hostname string, network bool) {
		arch := Arches[kind>>2&1]
		text := releases[kind&3]
		guest, err := For(Unikraft, text, arch)
		must.NoError(t, err)
		b := Boot{Name: name, Args: split(args), Env: splitEnv(env), Offer: split(offer), Kernel: "/k"}
		if network {
			b.Net = userNet()
			b.Net.Hostname = hostname
		}
		line, err := guest.CommandLine(b)
		if err != nil {
			return
		}

		front := "/k"
		if arch == ARM64 {
			front = map[string]string{"0.17.0": "build", "0.16.0": "build"}[text]
		}
		got, ok := bootUnikraft(front, line, true)
		must.True(t, ok, must.Sprintf("the guest does not boot: %q", line))
		must.SliceEqFunc(t, b.Args, got.args, func(a, b string) bool { return a == b }, must.Sprintf("line %q", line))
		wantEnv(t, b, found(got.values("env.vars")))
		must.LessEq(t, unikraftVars, len(got.values("env.vars")))
		if front == "" && name != "" {
			must.EqOp(t, name, got.name)
		}
		switch {
		case network && text == "0.16.0":
			must.Eq(t, []string{"10.0.2.15"}, got.values("netdev.ipv4_addr"))
		case network:
			want := strings.TrimRight("10.0.2.15/24:10.0.2.2:10.0.2.3::"+hostname, ":")
			must.Eq(t, []string{want}, got.values("netdev.ip"))
		}
	})
}

// FuzzUnikraftWords: what is not written by the encoder is counted by
// splitWords, which has to see what the guest sees.
func FuzzUnikraftWords(f *testing.F) {
	f.Add(`a 'b c' "d\"e" \f g\ h ''`)
	f.Add(`"\a" '\' \\ ""x`)
	f.Fuzz(func(t *testing.T, line string) {
		words, err := splitWords(line)
		if err != nil || strings.ContainsRune(line, 0) {
			return
		}
		must.Eq(t, argnparse(line, len(words)+1), words)
	})
}

// FuzzUnikraftKernelArgs: whatever the kernel's parameters are, they never
// swallow the arguments.
func FuzzUnikraftKernelArgs(f *testing.F) {
	f.Add("a.b=[ 1 2 ]", "x\x1fy")
	f.Add("a.b=[\x1f1 ] --", "--\x1fy")
	f.Add("'help' .=[]", "")
	f.Fuzz(func(t *testing.T, kernelArgs, args string) {
		b := Boot{Name: "n", KernelArgs: split(kernelArgs), Args: split(args), Net: userNet()}
		guest, err := For(Unikraft, "", ARM64)
		must.NoError(t, err)
		line, err := guest.CommandLine(b)
		if err != nil {
			return
		}
		got, ok := bootUnikraft("", line, true)
		must.True(t, ok, must.Sprintf("the guest does not boot: %q", line))
		must.SliceEqFunc(t, b.Args, got.args, func(a, b string) bool { return a == b }, must.Sprintf("line %q", line))
	})
}

// ownArgs are the arguments behind those that the encoder adds.
func ownArgs(t *testing.T, b Boot, got []string) {
	t.Helper()
	want := b.Args
	if b.Net != nil && !slices.ContainsFunc(b.Args, ownAddress.MatchString) {
		want = append([]string{"--ipv4=10.0.2.15/24", "--ipv4-gateway=10.0.2.2"}, want...)
	}
	must.SliceEqFunc(t, want, got, func(a, b string) bool { return a == b })
}

func FuzzMirage(f *testing.F) {
	f.Add(false, "web", "-l\x1fdebug\x1f--\x1f--hello=a \"b\\ 'c", true)
	f.Add(true, "", "\"\"\x1f\\", false)
	f.Fuzz(func(t *testing.T, x86 bool, name, args string, network bool) {
		arch, front := ARM64, ""
		if x86 {
			arch, front = X86_64, "/k"
		}
		b := Boot{Name: name, Args: split(args), Kernel: "/k"}
		if network {
			b.Net = userNet()
		}
		guest, err := For(Mirage, "", arch)
		must.NoError(t, err)
		line, err := guest.CommandLine(b)
		if err != nil {
			return
		}
		first, ok := bootUnikraft(front, line, true)
		must.True(t, ok, must.Sprintf("the guest does not boot: %q", line))
		got, ok := parseArgv(strings.Join(first.args, " "))
		must.True(t, ok, must.Sprintf("MirageOS cannot read %q", line))
		ownArgs(t, b, got)
	})
}

func FuzzSolo5(f *testing.F) {
	f.Add("--solo5:quiet\x1f--hello=a \"b\\ 'c", true, true)
	f.Add("\n\x1f \x1f--solo5:debug", false, false)
	f.Fuzz(func(t *testing.T, args string, network, debug bool) {
		b := Boot{Args: split(args), Kernel: "/k"}
		if network {
			b.Net = userNet()
		}
		if debug {
			b.KernelArgs = []string{"--solo5:debug"}
		}
		guest, err := For(Solo5, "", X86_64)
		must.NoError(t, err)
		line, err := guest.CommandLine(b)
		if err != nil {
			return
		}
		got, ok := parseArgv(bootSolo5("/k", line))
		must.True(t, ok, must.Sprintf("MirageOS cannot read %q", line))
		ownArgs(t, b, got)
	})
}

func FuzzLinux(f *testing.F) {
	f.Add("A=1\x1fB=x y", "C=3", "a\x1fb=c d\x1fà", true)
	f.Add("", "", "=\x1f= \x1fa=", false)
	f.Fuzz(func(t *testing.T, env, offer, args string, network bool) {
		b := Boot{Env: splitEnv(env), Offer: split(offer), Args: split(args)}
		for _, name := range []string{"console", "panic", "ip"} {
			delete(b.Env, name)
			b.Offer = slices.DeleteFunc(b.Offer, func(v string) bool { return strings.HasPrefix(v, name+"=") })
		}
		if network {
			b.Net = userNet()
		}
		guest, err := For(Linux, "", ARM64)
		must.NoError(t, err)
		line, err := guest.CommandLine(b)
		if err != nil {
			return
		}
		params, vars, initArgs := bootLinux(line)
		must.EqOp(t, "ttyAMA0", params["console"])
		must.EqOp(t, network, params["ip"] != "")
		wantEnv(t, b, vars)
		must.SliceEqFunc(t, b.Args, initArgs, func(a, b string) bool { return a == b }, must.Sprintf("line %q", line))
	})
}

func FuzzSigns(f *testing.F) {
	f.Add("Info: main returned 99999999999999999999\nCRIT: x\n\x1b[")
	f.Fuzz(func(t *testing.T, text string) {
		for _, family := range Families {
			signs := mustFor(t, family, "", X86_64).Signs()
			for line := range strings.SplitSeq(text, "\n") {
				signs.Line(line)
			}
			end, told := signs.End()
			must.EqOp(t, told, end.Evidence != "")
			must.LessEq(t, 2*longestEvidence+2, len(end.Evidence))
		}
	})
}

func TestIPv4Helpers(t *testing.T) {
	must.EqOp(t, "255.255.240.0", ipv4Mask(netip.MustParsePrefix("10.0.0.1/20")))
	must.Eq(t, []string(nil), firstIPv4(nil, 2))
}
