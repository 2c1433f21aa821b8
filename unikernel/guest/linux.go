// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package guest

import (
	"fmt"
	"strings"
)

// Limits of Linux's command line on arm64 and x86: COMMAND_LINE_SIZE with its
// NUL byte, and CONFIG_INIT_ENV_ARG_LIMIT, of which the kernel takes HOME and
// TERM, or init's own name.
const (
	linuxBytes = 2048
	linuxVars  = 32 - 2
	linuxArgs  = 32 - 1
)

// linux is a plain Linux kernel, with an initrd whose /init is the application.
// It hands unknown KEY=VALUE parameters to init as environment and the words
// after "--" as arguments.
type linux struct {
	arch Arch
}

func (l linux) Family() Family { return Linux }

// AnswersPowerButton is false: the kernel leaves the answer to user space, and
// an initrd with one application has nothing that listens.
func (l linux) AnswersPowerButton() bool { return false }

// TakesIPv6 is false: ip= carries IPv4 only (net/ipv4/ipconfig.c).
func (l linux) TakesIPv6([]string) bool { return false }

func (l linux) Devices() Devices {
	if l.arch == ARM64 {
		return Devices{Machine: "virt", Net: "virtio-net-device", Share: "virtio-9p-device", Disk: "virtio-blk-device", CPUKVM: "host", CPUTCG: "max"}
	}
	return Devices{
		Machine: "pc",
		Net:     "virtio-net-pci",
		Share:   "virtio-9p-pci",
		Disk:    "virtio-blk-pci",
		CPUKVM:  "host",
		CPUTCG:  "max",
		Panic:   "pvpanic",
	}
}

// Content: the kernel may be built without drivers, and does not tell.
func (l linux) Content(t Transport, _ []string) Content {
	switch t {
	case NineP:
		return Content{Unknown, "shares that its init mounts, each named by its target (mount -t 9p -o trans=virtio,version=9p2000.L /data /data), if its kernel has virtio-9p"}
	case Block:
		return Content{Unknown, "virtio disks vda, vdb, …; the one whose target is / becomes its root; if its kernel has virtio-blk"}
	}
	return Content{Yes, "an initrd"}
}

// Tag is the target itself, so that an init can mount what it finds.
func (l linux) Tag(_ int, share Share) (string, error) {
	if len(share.Target) > shareTag {
		return "", fmt.Errorf("mount target %q: Linux finds a share by its target, of at most %d bytes", share.Target, shareTag)
	}
	return share.Target, nil
}

func (l linux) Signs() Signs { return &console{signs: linuxSigns} }

func (l linux) CommandLine(b Boot) (string, error) {
	line, err := l.encode(b, nil)
	if err != nil {
		return "", err
	}
	var taken []string
	for _, offer := range b.Offer {
		key, _, _ := strings.Cut(offer, "=")
		if _, given := b.Env[key]; given {
			continue
		}
		more, err := l.encode(b, append(taken, offer))
		if err != nil {
			continue // it was only offered
		}
		taken, line = append(taken, offer), more
	}
	return line, nil
}

func (l linux) encode(b Boot, offers []string) (string, error) {
	raw, err := joinKernelArgs(b.KernelArgs)
	if err != nil {
		return "", err
	}
	if strings.Count(raw, `"`)%2 != 0 {
		return "", fmt.Errorf("kernel_args: %q leaves a quote open", raw)
	}
	given := strings.Fields(raw)
	var words []string
	if !hasParam(given, "console") {
		words = append(words, "console="+l.serial())
	}
	if !hasParam(given, "panic") {
		words = append(words, "panic=-1") // a panic ends the guest, so that it is seen
	}
	if b.Net != nil && !hasParam(given, "ip") {
		ip, err := linuxAddress(b.Net, b.DHCP)
		if err != nil {
			return "", err
		}
		words = append(words, ip)
	}
	if root := linuxRoot(b.Disks); root != nil && !hasParam(given, "root") {
		words = append(words, root...)
	}
	if raw != "" {
		words = append(words, raw)
	}
	env, err := linuxEnv(b.Env, offers)
	if err != nil {
		return "", err
	}
	args, err := linuxInitArgs(b.Args)
	if err != nil {
		return "", err
	}
	line := strings.Join(append(append(words, env...), args...), " ")
	if len(line) > linuxBytes-1 {
		return "", fmt.Errorf("args, env and kernel_args make a command line of %d bytes: the guest takes %d: %w", len(line), linuxBytes-1, ErrNoRoom)
	}
	return line, nil
}

// linuxRoot makes the disk whose target is / the root. Without an initrd, the
// kernel mounts it itself.
func linuxRoot(disks []Disk) []string {
	for i, disk := range disks {
		if disk.Target != "/" {
			continue
		}
		mode := "rw"
		if disk.ReadOnly {
			mode = "ro"
		}
		return []string{"root=/dev/vd" + string(rune('a'+i)), mode}
	}
	return nil
}

// serial is the first serial port's name.
func (l linux) serial() string {
	if l.arch == ARM64 {
		return "ttyAMA0"
	}
	return "ttyS0"
}

// linuxAddress is ip=ADDRESS::GATEWAY:MASK:HOSTNAME::off:DNS:DNS (the kernel's
// Documentation/admin-guide/nfs/nfsroot.rst), which needs CONFIG_IP_PNP; and
// CONFIG_IP_PNP_DHCP where the guest asks by DHCP.
func linuxAddress(n *Net, dhcp bool) (string, error) {
	if dhcp {
		return "ip=dhcp", nil
	}
	if !n.Address.Addr().Is4() {
		return "", fmt.Errorf("network: Linux's ip= takes an IPv4 address, not %s", n.Address)
	}
	if n.Gateway.IsValid() && !n.Gateway.Is4() {
		return "", fmt.Errorf("network: Linux's ip= takes an IPv4 gateway, not %s", n.Gateway)
	}
	if n.Hostname != "" && (linuxQuote(n.Hostname) != n.Hostname || strings.ContainsAny(n.Hostname, ":\"")) {
		return "", fmt.Errorf("network: hostname %q has a space, a quote or a colon, which ip= cannot carry", n.Hostname)
	}
	fields := []string{n.Address.Addr().String(), "", "", ipv4Mask(n.Address), n.Hostname, "", "off"}
	if n.Gateway.IsValid() {
		fields[2] = n.Gateway.String()
	}
	fields = append(fields, firstIPv4(n.DNS, 2)...)
	return "ip=" + strings.Join(fields, ":"), nil
}

// linuxEnv writes the environment. A name with a dot would be a module's.
func linuxEnv(env map[string]string, offers []string) ([]string, error) {
	vars, err := environment(env)
	if err != nil {
		return nil, err
	}
	for _, offer := range offers {
		if err := checkVariable(offer); err != nil {
			return nil, err
		}
		vars = append(vars, offer)
	}
	if len(vars) > linuxVars {
		return nil, fmt.Errorf("env: %d variables are too many: Linux takes %d on its command line: %w", len(vars), linuxVars, ErrNoRoom)
	}
	var words []string
	for _, v := range vars {
		key, value, _ := strings.Cut(v, "=")
		if strings.ContainsAny(key, ".\"'\\") || linuxQuote(key) != key {
			return nil, fmt.Errorf("env: %q is not a variable's name on Linux's command line", key)
		}
		if strings.Contains(value, `"`) {
			return nil, fmt.Errorf("env: %s has a double quote, which Linux's command line cannot carry", key)
		}
		words = append(words, key+"="+linuxQuote(value))
	}
	return words, nil
}

// linuxInitArgs writes init's arguments, with the word that starts them.
func linuxInitArgs(args []string) ([]string, error) {
	if len(args) == 0 {
		return nil, nil
	}
	if len(args) > linuxArgs {
		return nil, fmt.Errorf("args: %d arguments are too many: Linux hands init %d: %w", len(args), linuxArgs, ErrNoRoom)
	}
	words := []string{"--"}
	for i, arg := range args {
		if err := checkWord(argField(i), arg); err != nil {
			return nil, err
		}
		switch {
		case arg == "":
			return nil, fmt.Errorf("%s is empty, which Linux's command line cannot carry", argField(i))
		case arg == "--":
			return nil, fmt.Errorf(`%s is "--", where Linux would stop reading`, argField(i))
		case strings.Contains(arg, `"`):
			return nil, fmt.Errorf("%s is %q: Linux's command line cannot carry a double quote", argField(i), arg)
		}
		words = append(words, linuxQuote(arg))
	}
	return words, nil
}

// linuxQuote writes a word as the kernel's next_arg reads it: double quotes
// around white space, to which it counts the byte 0xA0, also inside UTF-8.
func linuxQuote(word string) string {
	for i := range len(word) {
		if word[i] <= ' ' || word[i] == 0xa0 {
			return `"` + word + `"`
		}
	}
	return word
}
