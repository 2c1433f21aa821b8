// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// The kernel command line, in Unikraft's grammar (0.17: lib/ukargparse,
// lib/uklibparam), and MirageOS's address arguments.
#ifndef STEPS_CMDLINE_H
#define STEPS_CMDLINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../app/site.h"

enum {
	CMDLINE_MAX = 8192, // bytes; Unikraft builds take 4,096, Solo5 8,192
	CMDLINE_ARGS = 60,  // as Unikraft: past them the rest stays one argument
	CMDLINE_VARS = 60,
};

// ipv4_config is a static address, in host byte order. ip 0: none was told.
struct ipv4_config {
	uint32_t ip;
	unsigned prefix;
	uint32_t gateway; // 0: none
	uint32_t dns[2];  // 0: none
};

// ipv6_config is an address with its prefix, and a gateway, as they were told;
// NULL: none.
struct ipv6_config {
	const char *cidr, *gateway;
};

struct net_config {
	struct ipv4_config ipv4;
	struct ipv6_config ipv6;
};

struct cmdline {
	struct strings args; // the application's, without argv[0]
	struct strings env;
	struct net_config net;
	bool help; // the library parameter that stops the boot
	// What could not be understood: "netdev.ip" and its value. NULL: all was.
	const char *bad_name, *bad_value;
	size_t unknown_count; // parameters that no library knows
	const char *unknown[8];

	char *argv[CMDLINE_ARGS];
	char *vars[CMDLINE_VARS];
};

// cmdline_split splits line in place on white space, with '…', "…" and
// backslash, and returns the number of arguments.
int cmdline_split(char *line, char *argv[], int max);

// cmdline_parse reads a whole line (changed in place; c points into it), which
// starts with argv[0]. Library parameters are read only if "--" is there and at
// least one token stands between argv[0] and it.
void cmdline_parse(struct cmdline *c, char *line);

#endif
