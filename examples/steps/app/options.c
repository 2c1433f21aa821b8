// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

#include "options.h"

#include <string.h>

#include "text.h"

// setting is one place that a port may be given at.
struct setting {
	const char *name;
	const char *value;
};

const char *option_value(const char *arg, const char *name)
{
	size_t len = strlen(name);

	if (strncmp(arg, name, len) != 0)
		return NULL;
	if (arg[len] == '=')
		return arg + len + 1;
	return arg[len] ? NULL : arg + len;
}

const char *env_value(struct strings env, const char *name)
{
	size_t len = strlen(name);

	for (size_t i = env.count; i-- > 0;)
		if (strncmp(env.at[i], name, len) == 0 && env.at[i][len] == '=')
			return env.at[i] + len + 1;
	return NULL;
}

static const char *last_option(struct strings args, const char *name)
{
	for (size_t i = args.count; i-- > 0;) {
		const char *value = option_value(args.at[i], name);

		if (value)
			return value;
	}
	return NULL;
}

// read_port takes the first setting that is there; none: *port stays as it is.
static bool read_port(struct options *o, const struct setting *settings, size_t count,
		      uint16_t *port)
{
	uint64_t n;

	for (size_t i = 0; i < count; i++) {
		const char *value = settings[i].value;

		if (!value)
			continue;
		if (text_to_uint(value, strlen(value), &n) && n >= 1 && n <= 65535) {
			*port = (uint16_t)n;
			return true;
		}
		o->bad_name = settings[i].name;
		o->bad_value = value;
		return false;
	}
	return true;
}

bool options_read(struct options *o, struct strings env, struct strings args)
{
	const struct setting http[] = {
		{ "--port", last_option(args, "--port") },
		{ "PORT", env_value(env, "PORT") },
		{ "NOMAD_PORT_http", env_value(env, "NOMAD_PORT_http") },
	};
	const struct setting echo[] = {
		{ "--udp-echo", last_option(args, "--udp-echo") },
		{ "NOMAD_PORT_echo", env_value(env, "NOMAD_PORT_echo") },
	};

	*o = (struct options){ .port = 8080 };
	return read_port(o, http, sizeof(http) / sizeof(*http), &o->port) &&
	       read_port(o, echo, sizeof(echo) / sizeof(*echo), &o->udp_echo);
}
