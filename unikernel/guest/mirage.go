// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package guest

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// mirage is MirageOS on a Unikraft kernel (mirage configure -t unikraft-qemu).
// Unikraft splits the line; mirage-bootvar joins all words but the first with
// spaces and splits again, by rules of its own (see mirageQuote). Its kernel
// takes library parameters, but no environment.
type mirage struct {
	arch Arch
}

func (m mirage) Family() Family { return Mirage }

// AnswersPowerButton is false: so it is for Unikraft.
func (m mirage) AnswersPowerButton() bool { return false }

// TakesIPv6 is true unless the user wants otherwise.
func (m mirage) TakesIPv6(args []string) bool { return mirageTakesIPv6(args) }

func (m mirage) Devices() Devices {
	devices := unikraftDevices(m.arch)
	devices.MinMemoryMiB = 16
	return devices
}

// Content: MirageOS has no file system of its host; some unikernels read disks.
func (m mirage) Content(t Transport, built []string) Content {
	if t != Block {
		return noContent(Mirage, t)
	}
	return unikraftContent(t, built)
}

// Tag fails: nothing would mount a share.
func (m mirage) Tag(int, Share) (string, error) { return "", errNoShares }

func (m mirage) Signs() Signs { return &console{signs: mirageSigns} }

func (m mirage) CommandLine(b Boot) (string, error) {
	if err := refuseEnv(b, "MirageOS"); err != nil {
		return "", err
	}
	named := m.arch == ARM64
	var words []string
	if named {
		name, err := applicationName(b)
		if err != nil {
			return "", err
		}
		words = append(words, name)
	}
	params, err := m.params(b)
	if err != nil {
		return "", err
	}
	words = append(words, params...)
	args, err := mirageArgs(b)
	if err != nil {
		return "", err
	}
	for _, arg := range args {
		word := mirageQuote(arg)
		if word == "--" { // Unikraft would drop the arguments before it
			word = `"--"`
		}
		words = append(words, shellQuote(word))
	}
	line := strings.Join(words, " ")
	front, err := wordsInFront(b, m.arch, named)
	if err != nil {
		return "", err
	}
	return line, fitsUnikraft(line, front, unikraftWords, unikraftBytes)
}

// params are the kernel's parameters, with the word that ends them.
func (m mirage) params(b Boot) ([]string, error) {
	raw, err := joinKernelArgs(b.KernelArgs)
	if err != nil || raw == "" {
		return nil, err
	}
	given, err := splitWords(raw)
	if err != nil {
		return nil, fmt.Errorf("kernel_args: %w", err)
	}
	return []string{raw, "--"}, checkUnikraftParams(given)
}

// refuseEnv tells which variable a family cannot carry.
func refuseEnv(b Boot, family string) error {
	vars, err := environment(b.Env)
	if err != nil || len(vars) == 0 {
		return err
	}
	key, _, _ := strings.Cut(vars[0], "=")
	return fmt.Errorf("env: %s has no environment, so %s cannot be passed: use args: %w", family, key, ErrNoRoom)
}

// ownAddress is an option by which a user gives the address himself, also with
// the name of a stack in front (--service-ipv4=). With --ipv6-only an IPv4
// address is not wanted; --ipv4-only gives none.
var ownAddress = regexp.MustCompile(`^--(?:[\w-]+-)?ipv(?:[46](?:-gateway)?|6-only)(?:=|$)`)

// mirageArgs are the options that tell the address, unless the user tells it
// himself, and the user's arguments after them. DNS servers and hostname are
// not told: a unikernel that has no such option would end with status 64.
func mirageArgs(b Boot) ([]string, error) {
	for i, arg := range b.Args {
		if err := checkWord(argField(i), arg); err != nil {
			return nil, err
		}
		if arg == "" {
			return nil, fmt.Errorf("%s is empty, which MirageOS's command line cannot carry", argField(i))
		}
	}
	if b.Net == nil || b.DHCP || slices.ContainsFunc(b.Args, ownAddress.MatchString) {
		return b.Args, nil
	}
	if !b.Net.Address.IsValid() {
		return nil, fmt.Errorf("network: MirageOS takes an address with its prefix length, not %s", b.Net.Address)
	}
	args := mirageAddress("--ipv4", b.Net.Address, b.Net.Gateway)
	if b.Net.Address.Addr().Is6() {
		args = mirageAddress("--ipv6", b.Net.Address, b.Net.Gateway)
	}
	if b.Net.Address6.IsValid() && mirageTakesIPv6(b.Args) {
		args = append(args, mirageAddress("--ipv6", b.Net.Address6, b.Net.Gateway6)...)
	}
	return append(args, b.Args...), nil
}

// optionName is an option in front of its value, as cmdliner reads it.
var optionName = regexp.MustCompile(`^--[A-Za-z0-9][\w-]*=`)

func mirageAddress(option string, address netip.Prefix, gateway netip.Addr) []string {
	args := []string{option + "=" + address.String()}
	if gateway.IsValid() {
		args = append(args, option+"-gateway="+gateway.String())
	}
	return args
}

// ipv4Only is an option by which a user wants no IPv6, also with the name of a
// stack in front.
var ipv4Only = regexp.MustCompile(`^--(?:[\w-]+-)?ipv4-only(?:=true)?$`)

// mirageTakesIPv6 tells whether a user leaves MirageOS its IPv6.
func mirageTakesIPv6(args []string) bool {
	return !slices.ContainsFunc(args, func(arg string) bool {
		return ipv4Only.MatchString(arg) || ownAddress.MatchString(arg)
	})
}

// mirageQuote writes a word as mirage-bootvar's parse_argv reads it: double
// quotes and backslashes are special, single quotes are not, and only a space
// ends a word. An option's quotes stand around its value, as MirageOS's own
// hint has them: images that take their words from Unikraft alone, and never
// look at these quotes, know the option all the same.
func mirageQuote(word string) string {
	if !strings.ContainsFunc(word, func(r rune) bool { return r <= ' ' || r == '"' || r == '\\' }) {
		return word
	}
	option := optionName.FindString(word)
	value := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(word[len(option):])
	return option + `"` + value + `"`
}
