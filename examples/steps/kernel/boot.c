// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// From the command line to the application and to the end, with the messages of
// a Unikraft 0.17 build (lib/ukboot/boot.c) that prints its information level:
// tools that read these consoles find what they look for.

#include <string.h>

#include "../app/options.h"
#include "../app/stats.h"
#include "cmdline.h"
#include "cpio.h"
#include "kernel.h"
#include "modes.h"
#include "net/net.h"

enum { EXIT_FAILED = 1, EXIT_USAGE = 64 };

static char line[CMDLINE_MAX + 64];
static struct cmdline cmdline;
static struct modes modes;
static struct options options;
static struct site site;

static int refuse(const char *name, const char *value, const char *wanted)
{
	print("steps: %s: \"%s\" is not %s\n", name, value, wanted);
	return EXIT_USAGE;
}

// read_steps returns NULL where there is no data; the guest serves all the same.
static const struct stats *read_steps(const struct boot_info *boot)
{
	static struct stats stats;
	struct cpio_file csv;

	if (!boot->initrd) {
		print("steps: no initrd, so no data\n");
		return NULL;
	}
	if (!cpio_find_csv(boot->initrd, boot->initrd_len, &csv)) {
		print("steps: the initrd is no cpio archive (newc) with a steps.csv or *.csv, so no data\n");
		return NULL;
	}
	if (!stats_read(&stats, csv.data, csv.len, memory_alloc)) {
		print("steps: too little memory for /%s\n", csv.name);
		return NULL;
	}
	print("steps: /%s: %lu users, %lu records, %lu bad lines", csv.name, stats.count,
	      stats.records, stats.bad);
	if (stats.bad)
		print(" (the first is line %lu)", stats.first_bad);
	print("\n");
	return &stats;
}

// start_serving opens the ports; they are reachable once there is an address.
static bool start_serving(void)
{
	if (!net_start(&cmdline.net)) {
		print("steps: no network device\n");
		return true;
	}
	return server_start(&site, options.port) &&
	       (options.udp_echo == 0 || echo_start(options.udp_echo));
}

// fetch asks whom the arguments name, once there is an address to ask from.
static void fetch(void)
{
	const char *url;

	for (size_t i = 0; i < cmdline.args.count; i++)
		if ((url = option_value(cmdline.args.at[i], "--fetch")) && !fetch_start(url))
			print("steps: --fetch: \"%s\" is not http://HOST[:PORT][/PATH]\n", url);
}

static void tell_ports(void)
{
	static bool told;

	if (told || !net_has_address())
		return;
	told = true;
	if (options.udp_echo)
		print("steps: udp echo on port %u\n", options.udp_echo);
	print("steps: listening on port %u\n", options.port);
	fetch();
}

static _Noreturn void serve(void)
{
	for (;;) {
		uint64_t net = net_poll();
		uint64_t other = modes_run(&modes);
		uint64_t next = net < other ? net : other;

		tell_ports();
		if (next > clock_ns())
			cpu_sleep(next);
	}
}

static int app_main(const struct boot_info *boot)
{
	const struct stats *stats;

	if (cmdline.bad_name)
		return refuse(cmdline.bad_name, cmdline.bad_value,
			      strcmp(cmdline.bad_name, "env.vars") == 0
				      ? "taken: there are too many variables"
				      : "an IPv4 address (with its prefix length, such as 10.0.2.15/24)");
	if (!modes_read(&modes, cmdline.args))
		return refuse(modes.bad_name, modes.bad_value, "a number (0 to 1000000000)");
	if (!options_read(&options, cmdline.env, cmdline.args))
		return refuse(options.bad_name, options.bad_value, "a port (1 to 65535)");
	if (modes_run_first(&modes))
		return modes.exit_status;
	stats = read_steps(boot);
	if (!site_build(&site, stats, cmdline.env, cmdline.args, memory_alloc) ||
	    !start_serving()) {
		print("steps: too little memory\n");
		return EXIT_FAILED;
	}
	serve();
}

static void print_calling(void)
{
	log_info("libukboot", "Calling main(%lu, ['%s'", cmdline.args.count + 1, cmdline.argv[0]);
	for (size_t i = 0; i < cmdline.args.count; i++)
		print(", '%s'", cmdline.args.at[i]);
	print("])\n");
}

_Noreturn void kernel_main(const struct boot_info *boot)
{
	size_t len = strnlen(boot->cmdline, sizeof(line) - 1);
	int status;

	memcpy(line, boot->cmdline, len);
	cmdline_parse(&cmdline, line);
	print("steps: a unikernel for Nomad\n");
	for (size_t i = 0; i < cmdline.unknown_count; i++)
		log_warn("libuklibparam", "Parameter %s: Unknown or invalid\n", cmdline.unknown[i]);
	if (cmdline.help) {
		log_crit("libukboot", "Early init call failed with -22\n");
		power_off(true);
	}
	print_calling();
	status = app_main(boot);
	log_info("libukboot", "main returned %d\n", status);
	log_info("libukboot", "Halting system (0)\n");
	power_off(false);
}
