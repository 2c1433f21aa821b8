// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// The options that the unikernel and the Linux program have in common.
#ifndef STEPS_OPTIONS_H
#define STEPS_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "site.h"

struct options {
	uint16_t port;     // HTTP
	uint16_t udp_echo; // 0: none
	// What could not be understood: "--port" and "abc". NULL: all was.
	const char *bad_name, *bad_value;
};

// option_value returns what follows name= in an argument, "" for name alone,
// NULL for any other argument.
const char *option_value(const char *arg, const char *name);

// env_value returns a variable's value (the last one of that name), or NULL.
const char *env_value(struct strings env, const char *name);

// options_read looks for the HTTP port in --port=N, PORT and NOMAD_PORT_http (the
// first that is there; else 8080) and for the UDP echo's port in --udp-echo=PORT
// and NOMAD_PORT_echo. False: see bad_name.
bool options_read(struct options *o, struct strings env, struct strings args);

#endif
