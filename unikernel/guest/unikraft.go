// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package guest

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Unikraft reads its command line in two steps (lib/ukargparse and
// lib/uklibparam, called by lib/ukboot): words, as a shell splits them; then,
// if one of them is "--" and a word stands between argv[0] and it, library
// parameters up to there and the application's arguments from there on. Only
// those builds that have uklibparam do the second step.
const (
	unikraftWords = 60   // CONFIG_LIBUKBOOT_MAXNBARGS
	unikraftBytes = 4096 // CONFIG_LIBUKBOOT_CMDLINE_MAX_LEN
	unikraftVars  = 8    // CONFIG_LIBPOSIX_ENVIRON_LIBPARAM_MAXCOUNT

	// Room for what stands in front of our words, where it is not known.
	unknownKernelPath = 255
	unknownBuildName  = 64

	// filler is a word that uklibparam passes over without a message.
	filler = "unikernel"

	// The commit that release 0.17.0 was made from: later builds that call
	// themselves 0.17.0 already name their application as 0.18 does.
	commit0170 = "484ff209"
)

// unikraft is a Unikraft kernel with an application of its own.
type unikraft struct {
	release release
	arch    Arch
}

func newUnikraft(text string, arch Arch) (Guest, error) {
	r, err := parseRelease(text)
	if err != nil {
		return nil, err
	}
	if r.before(0, 13, 0) {
		return nil, fmt.Errorf("guest release %q: Unikraft before 0.13.0 reads its parameters in another way, which is not known here: build the image with a newer one", text)
	}
	return unikraft{release: r, arch: arch}, nil
}

func (u unikraft) Family() Family { return Unikraft }

// AnswersPowerButton is false: builds were seen to ignore it on both
// architectures, even with LIBUKBOOT_SHUTDOWNREQ_HANDLER.
func (u unikraft) AnswersPowerButton() bool { return false }

// TakesIPv6 is false: netdev.ip carries IPv4 only (lib/uknetdev/netdev.c), also
// in builds whose lwIP has IPv6.
func (u unikraft) TakesIPv6([]string) bool { return false }

// Content is as the build options tell.
func (u unikraft) Content(t Transport, built []string) Content { return unikraftContent(t, built) }

// Tag is one that images have compiled in.
func (u unikraft) Tag(n int, _ Share) (string, error) { return unikraftTag(n), nil }

func (u unikraft) Devices() Devices { return unikraftDevices(u.arch) }

func unikraftDevices(arch Arch) Devices {
	if arch == ARM64 {
		// virtio-mmio: two virtio-pci devices can deadlock (unikraft#1622).
		return Devices{
			Machine:      "virt",
			Net:          "virtio-net-device",
			Share:        "virtio-9p-device",
			Disk:         "virtio-blk-device",
			CPUKVM:       "host",
			CPUTCG:       "max", // musl and lwip want FEAT_RNG
			MinMemoryMiB: 8,
		}
	}
	return Devices{
		Machine:      "pc",
		Net:          "virtio-net-pci",
		Share:        "virtio-9p-pci",
		Disk:         "virtio-blk-pci",
		CPUKVM:       "host,+x2apic,-pmu",
		CPUTCG:       "max", // RDRAND is wanted; max asks TCG for nothing that it lacks
		Panic:        "pvpanic",
		MinMemoryMiB: 4,
	}
}

func (u unikraft) CommandLine(b Boot) (string, error) {
	line, err := u.encode(b, nil)
	if err != nil || !u.takesOffers(b) {
		return line, err
	}
	var taken []string
	for _, offer := range b.Offer {
		key, _, _ := strings.Cut(offer, "=")
		if _, given := b.Env[key]; given {
			continue
		}
		more, err := u.encode(b, append(taken, offer))
		if err != nil {
			continue // it was only offered
		}
		taken, line = append(taken, offer), more
	}
	return line, nil
}

// takesOffers tells whether offered environment may be written: an image that
// has no uklibparam would take the parameters for the application's arguments,
// so they are not written for the sake of an offer alone.
func (u unikraft) takesOffers(b Boot) bool {
	if features(b.Features).told() {
		return features(b.Features).has("LIBPOSIX_ENVIRON_LIBPARAM")
	}
	return b.Net != nil || len(b.Env) > 0 || len(b.KernelArgs) > 0
}

// encode writes the line with the offered variables added to the environment.
func (u unikraft) encode(b Boot, offers []string) (string, error) {
	params, err := u.params(b, offers)
	if err != nil {
		return "", err
	}
	if len(params) == 0 && u.hidesArgs(b) {
		params = []string{filler}
	}
	if len(params) > 0 && features(b.Features).lacks("LIBUKLIBPARAM") {
		return "", fmt.Errorf("the image was built without CONFIG_LIBUKLIBPARAM, so it takes no kernel parameters: %q cannot be passed", params)
	}

	var words []string
	if u.wantsName() {
		name, err := applicationName(b)
		if err != nil {
			return "", err
		}
		words = append(words, name)
	}
	if len(params) > 0 {
		words = append(append(words, params...), "--")
	}
	for i, arg := range b.Args {
		if err := checkWord(argField(i), arg); err != nil {
			return "", err
		}
		if arg == "" {
			return "", fmt.Errorf("%s is empty, which Unikraft's command line cannot carry", argField(i))
		}
		words = append(words, shellQuote(arg))
	}
	line := strings.Join(words, " ")
	return line, u.fits(b, line)
}

// wantsName tells whether the first word of the line becomes argv[0]. On
// x86_64 QEMU's multiboot loader puts the kernel's path there; on arm64 the
// build's own name was put there until 0.17.0.
func (u unikraft) wantsName() bool {
	if u.arch != ARM64 {
		return false
	}
	if u.release.before(0, 17, 0) {
		return false
	}
	later := u.release.commit != "" && !strings.HasPrefix(u.release.commit, commit0170[:7])
	return !u.release.before(0, 18, 0) || later
}

// hidesArgs tells whether an argument "--" would make the guest take the ones
// before it for parameters, and lose them.
func (u unikraft) hidesArgs(b Boot) bool {
	if features(b.Features).lacks("LIBUKLIBPARAM") {
		return false
	}
	return slices.Index(b.Args, "--") > 0
}

// params writes the library parameters, a word each.
func (u unikraft) params(b Boot, offers []string) ([]string, error) {
	raw, err := joinKernelArgs(b.KernelArgs)
	if err != nil {
		return nil, err
	}
	given, err := splitWords(raw)
	if err != nil {
		return nil, fmt.Errorf("kernel_args: %w", err)
	}
	if err := checkUnikraftParams(given); err != nil {
		return nil, err
	}

	params, err := u.netParams(b, given)
	if err != nil {
		return nil, err
	}
	mounts, err := fstabParams(b, given)
	if err != nil {
		return nil, err
	}
	params = append(params, mounts...)
	env, err := u.envParams(b, offers)
	if err != nil {
		return nil, err
	}
	params = append(params, env...)
	if raw != "" {
		params = append(params, raw)
	}
	return params, nil
}

// checkUnikraftParams refuses parameters that would end the boot, or take in
// what follows them.
func checkUnikraftParams(words []string) error {
	list := ""
	for _, word := range words {
		switch {
		case list == "" && word == "--":
			return fmt.Errorf(`kernel_args: "--" ends the kernel's parameters: put the application's arguments into args`)
		case list == "" && word == "help":
			return fmt.Errorf(`kernel_args: "help" makes Unikraft print its parameters and stop`)
		case list == "" && opensList(word):
			list = word
		}
		if strings.HasSuffix(word, "]") {
			list = ""
		}
	}
	if list != "" {
		return fmt.Errorf(`kernel_args: the list %q is not closed: end it with a word "]"`, list)
	}
	return nil
}

// opensList tells whether a parameter's value is the start of a list.
func opensList(word string) bool {
	_, name, _ := strings.Cut(word, ".")
	_, value, _ := strings.Cut(name, "=")
	return strings.HasPrefix(value, "[")
}

// hasParam tells whether the user gave one of the parameters himself.
func hasParam(words []string, names ...string) bool {
	return slices.ContainsFunc(words, func(word string) bool {
		name, _, _ := strings.Cut(word, "=")
		return slices.Contains(names, name)
	})
}

// netParams tells the guest its address. An image that is known to take none
// gets none: it asks DHCP or has an address of its own.
func (u unikraft) netParams(b Boot, given []string) ([]string, error) {
	if b.Net == nil || b.DHCP || hasParam(given, "netdev.ip", "netdev.ipv4_addr") {
		return nil, nil
	}
	if built := features(b.Features); built.lacks("LIBUKNETDEV_EINFO_LIBPARAM") && !u.release.before(0, 16, 1) {
		if b.Served && built.has("LIBLWIP") && built.lacks("LWIP_DHCP") {
			return nil, fmt.Errorf("the image was built without CONFIG_LIBUKNETDEV_EINFO_LIBPARAM and without CONFIG_LWIP_DHCP: it can neither be told its address nor ask for it, so its ports would not be reached: build it with one of them, or, if it gives itself an address, set dhcp = true")
		}
		return nil, nil
	}
	address, gateway := b.Net.Address, b.Net.Gateway
	if !address.Addr().Is4() {
		return nil, fmt.Errorf("network: Unikraft takes an IPv4 address, not %s", address)
	}
	if gateway.IsValid() && !gateway.Is4() {
		return nil, fmt.Errorf("network: Unikraft takes an IPv4 gateway, not %s", gateway)
	}
	if u.release.before(0, 16, 1) {
		return oldNetParams(address, gateway), nil
	}
	if strings.ContainsAny(b.Net.Hostname, ":\x00") {
		return nil, fmt.Errorf("network: hostname %q has a colon or a NUL byte, which netdev.ip cannot carry", b.Net.Hostname)
	}
	// netdev.ip=CIDR[:gateway[:dns0[:dns1[:hostname[:domain]]]]]
	fields := []string{address.String(), "", "", "", b.Net.Hostname}
	if gateway.IsValid() {
		fields[1] = gateway.String()
	}
	copy(fields[2:4], firstIPv4(b.Net.DNS, 2))
	value := strings.TrimRight(strings.Join(fields, ":"), ":")
	return []string{shellQuote("netdev.ip=" + value)}, nil
}

// oldNetParams are the ones of releases up to 0.16.0.
func oldNetParams(address netip.Prefix, gateway netip.Addr) []string {
	params := []string{"netdev.ipv4_addr=" + address.Addr().String()}
	if gateway.IsValid() {
		params = append(params, "netdev.ipv4_gw_addr="+gateway.String())
	}
	return append(params, "netdev.ipv4_subnet_mask="+ipv4Mask(address))
}

// fstabParams mount what is attached, unless the user says what to mount.
func fstabParams(b Boot, given []string) ([]string, error) {
	if hasParam(given, "vfs.fstab") {
		return nil, nil
	}
	entries, err := fstabEntries(b)
	if err != nil || len(entries) == 0 {
		return nil, err
	}
	return append(append([]string{"vfs.fstab=["}, entries...), "]"), nil
}

// envParams writes the environment as a list, and those values that would end
// a list as parameters of their own.
func (u unikraft) envParams(b Boot, offers []string) ([]string, error) {
	vars, err := environment(b.Env)
	if err != nil {
		return nil, err
	}
	if len(vars) > 0 && features(b.Features).lacks("LIBPOSIX_ENVIRON_LIBPARAM") {
		return nil, fmt.Errorf("env: the image was built without CONFIG_LIBPOSIX_ENVIRON_LIBPARAM, so it takes no environment: %q cannot be passed: %w", vars[0], ErrNoRoom)
	}
	for _, offer := range offers {
		if err := checkVariable(offer); err != nil {
			return nil, err
		}
		vars = append(vars, offer)
	}
	room := features(b.Features).number("LIBPOSIX_ENVIRON_LIBPARAM_MAXCOUNT", unikraftVars)
	if len(vars) > room {
		return nil, fmt.Errorf("env: %d variables are too many: the image takes %d and would drop the rest; use fewer, or build it with a larger CONFIG_LIBPOSIX_ENVIRON_LIBPARAM_MAXCOUNT, or write them as env.vars=[ … ] in kernel_args: %w", len(vars), room, ErrNoRoom)
	}

	var list, single []string
	for _, v := range vars {
		if strings.HasSuffix(v, "]") {
			single = append(single, shellQuote("env.vars="+v))
		} else {
			list = append(list, shellQuote(v))
		}
	}
	if len(list) == 0 {
		return single, nil
	}
	list = append(append([]string{"env.vars=["}, list...), "]")
	return append(list, single...), nil
}

// fits refuses a line that the guest would cut.
func (u unikraft) fits(b Boot, line string) error {
	front, err := wordsInFront(b, u.arch, u.wantsName())
	if err != nil {
		return err
	}
	built := features(b.Features)
	return fitsUnikraft(line, front,
		built.number("LIBUKBOOT_MAXNBARGS", unikraftWords),
		built.number("LIBUKBOOT_CMDLINE_MAX_LEN", unikraftBytes))
}

// front is what stands before our words.
type front struct{ words, bytes int }

// wordsInFront measures what QEMU or the kernel put before our words.
func wordsInFront(b Boot, arch Arch, named bool) (front, error) {
	switch {
	case named:
		return front{}, nil
	case arch == ARM64:
		return front{words: 1, bytes: unknownBuildName + 1}, nil
	case b.Kernel == "":
		return front{words: 1, bytes: unknownKernelPath + 1}, nil
	case !isPlain(b.Kernel):
		return front{}, fmt.Errorf("kernel path %q has spaces or quotes, and QEMU puts it in front of the guest's command line: use a plain path", b.Kernel)
	}
	return front{words: 1, bytes: len(b.Kernel) + 1}, nil
}

// fitsUnikraft checks the line against a build's limits. The splitter leaves
// its last word as it is, quotes included, and the copy of the line must end
// with a NUL byte that arm64 counts as part of it.
func fitsUnikraft(line string, front front, maxWords, maxBytes int) error {
	if have, room := len(line), maxBytes-2-front.bytes; have > room {
		return fmt.Errorf("args, env and kernel_args make a command line of %d bytes: the guest takes %d: %w", have, room, ErrNoRoom)
	}
	words, err := splitWords(line)
	if err != nil {
		return fmt.Errorf("command line: %w", err)
	}
	if have, room := len(words), maxWords-1-front.words; have > room {
		return fmt.Errorf("args, env and kernel_args make a command line of %d words: the guest takes %d: %w", have, room, ErrNoRoom)
	}
	return nil
}

func (u unikraft) Signs() Signs { return &console{signs: unikraftSigns} }

// environment gives the variables as KEY=VALUE, sorted, each one checked.
func environment(env map[string]string) ([]string, error) {
	var vars []string
	for _, key := range slices.Sorted(maps.Keys(env)) {
		if err := checkKey(key); err != nil {
			return nil, err
		}
		v := key + "=" + env[key]
		if err := checkVariable(v); err != nil {
			return nil, err
		}
		vars = append(vars, v)
	}
	return vars, nil
}

// checkVariable checks a variable that is written KEY=VALUE.
func checkVariable(v string) error {
	key, _, found := strings.Cut(v, "=")
	if !found {
		return fmt.Errorf("env: %q is not KEY=VALUE", v)
	}
	if err := checkKey(key); err != nil {
		return err
	}
	return checkWord("env: "+key, v)
}

// applicationName is the word for argv[0].
func applicationName(b Boot) (string, error) {
	if b.Name == "" {
		return filler, nil
	}
	return shellQuote(b.Name), checkWord("name", b.Name)
}
