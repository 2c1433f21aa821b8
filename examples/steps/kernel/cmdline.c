// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

#include "cmdline.h"

#include <string.h>

#include "../app/options.h"
#include "../app/text.h"

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\v';
}

// A pass over the line with a slower writer behind a faster reader. An escaping
// backslash is written first and overwritten by what it escapes: outside of
// quotes anything, in double quotes only '"' and '\'.
int cmdline_split(char *line, char *argv[], int max)
{
	bool in_arg = false, escaped = false;
	char quote = '\0';
	char *out = line;
	int argc = 0;

	for (const char *in = line; *in; in++) {
		char c = *in;

		if (is_space(c) && !quote && !escaped) {
			if (in_arg)
				*out++ = '\0';
			in_arg = false;
			continue;
		}
		if ((c == '"' || c == '\'') && !escaped && (!quote || quote == c)) {
			quote = quote ? '\0' : c;
			continue;
		}
		if (!in_arg) {
			if (argc == max)
				break;
			in_arg = true;
			argv[argc++] = out;
			if (argc == max) { // the rest of the line is the last one
				memmove(out, in, strlen(in) + 1);
				return argc;
			}
		}
		if (escaped) {
			if (!quote || c == '"' || c == '\\')
				out[-1] = c;
			else
				*out++ = c;
			escaped = false;
			continue;
		}
		escaped = c == '\\' && quote != '\'';
		*out++ = c;
	}
	*out = '\0';
	return argc;
}

static bool parse_ipv4(const char *s, size_t len, uint32_t *ip)
{
	uint32_t value = 0;

	for (int part = 0; part < 4; part++) {
		const char *dot = memchr(s, '.', len);
		size_t digits = dot && part < 3 ? (size_t)(dot - s) : len;
		uint64_t n;

		if (digits > 3 || !text_to_uint(s, digits, &n) || n > 255)
			return false;
		value = value << 8 | (uint32_t)n;
		if (part == 3)
			break;
		if (!dot)
			return false;
		s += digits + 1;
		len -= digits + 1;
	}
	*ip = value;
	return true;
}

static bool parse_cidr(const char *s, size_t len, struct ipv4_config *ipv4)
{
	const char *slash = memchr(s, '/', len);
	uint64_t prefix;

	if (!slash || !parse_ipv4(s, (size_t)(slash - s), &ipv4->ip))
		return false;
	if (!text_to_uint(slash + 1, len - (size_t)(slash + 1 - s), &prefix) || prefix > 32)
		return false;
	ipv4->prefix = (unsigned)prefix;
	return ipv4->ip != 0;
}

// parse_field reads one of the addresses between colons, which may be empty, and
// moves on behind it.
static bool parse_field(const char **at, uint32_t *ip)
{
	const char *field, *colon;
	size_t len;

	if (**at != ':')
		return true;
	field = *at + 1;
	colon = strchr(field, ':');
	len = colon ? (size_t)(colon - field) : strlen(field);
	*at = field + len;
	return len == 0 || parse_ipv4(field, len, ip);
}

// parse_netdev_ip reads CIDR[:gateway[:dns0[:dns1[:hostname[:domain]]]]]. Names
// are of no use here.
static bool parse_netdev_ip(const char *value, struct ipv4_config *ipv4)
{
	const char *colon = strchr(value, ':');
	size_t len = colon ? (size_t)(colon - value) : strlen(value);
	const char *at = value + len;

	return parse_cidr(value, len, ipv4) && parse_field(&at, &ipv4->gateway) &&
	       parse_field(&at, &ipv4->dns[0]) && parse_field(&at, &ipv4->dns[1]);
}

static void bad(struct cmdline *c, const char *name, const char *value)
{
	if (c->bad_name)
		return;
	c->bad_name = name;
	c->bad_value = value;
}

// params walks over library parameters: prefix.name=value, or a list
// prefix.name=[ value … ] that may span tokens.
struct params {
	bool in_list;
	enum param { PARAM_UNKNOWN, PARAM_IP, PARAM_ENV, PARAM_FSTAB } param;
};

static enum param find_param(const char *name)
{
	static const struct {
		const char *name;
		enum param param;
	} known[] = {
		{ "netdev.ip", PARAM_IP },
		{ "env.vars", PARAM_ENV },
		{ "vfs.fstab", PARAM_FSTAB }, // the initrd is all there is
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (strcmp(known[i].name, name) == 0)
			return known[i].param;
	return PARAM_UNKNOWN;
}

static void take_value(struct cmdline *c, enum param param, char *value)
{
	switch (param) {
	case PARAM_IP:
		// Once for each NIC; there is one NIC here.
		if (c->net.ipv4.ip == 0 && !parse_netdev_ip(value, &c->net.ipv4))
			bad(c, "netdev.ip", value);
		break;
	case PARAM_ENV:
		if (c->env.count < CMDLINE_VARS)
			c->vars[c->env.count++] = value;
		else
			bad(c, "env.vars", value);
		break;
	default:
		break;
	}
}

// take_list_token takes one token of a list; c NULL: only follows the grammar.
static void take_list_token(struct params *p, struct cmdline *c, char *value)
{
	size_t len = strlen(value);

	if (len > 0 && value[len - 1] == ']') {
		p->in_list = false;
		if (--len == 0)
			return;
		if (c)
			value[len] = '\0';
	}
	if (c && len > 0)
		take_value(c, p->param, value);
}

static void take_token(struct params *p, struct cmdline *c, char *token)
{
	char *dot, *value;

	if (p->in_list) {
		take_list_token(p, c, token);
		return;
	}
	if (c && strcmp(token, "help") == 0)
		c->help = true;
	dot = strchr(token, '.');
	if (!dot)
		return;
	value = strchr(dot, '=');
	if (c) {
		if (value)
			*value = '\0'; // token is the name from here on
		p->param = find_param(token);
		if (p->param == PARAM_UNKNOWN && c->unknown_count < 8)
			c->unknown[c->unknown_count++] = token;
	}
	if (!value)
		return;
	value++;
	if (*value == '[') {
		p->in_list = true;
		if (value[1])
			take_list_token(p, c, value + 1);
	} else if (c) {
		take_value(c, p->param, value);
	}
}

// find_stop returns the index of the "--" that ends the library parameters, argc
// if there is none. One inside of a list is a value.
static int find_stop(int argc, char *argv[])
{
	struct params p = { 0 };

	for (int i = 1; i < argc; i++) {
		if (!p.in_list && strcmp(argv[i], "--") == 0)
			return i;
		take_token(&p, NULL, argv[i]);
	}
	return argc;
}

// take_mirage_arg honours MirageOS's options for the address; false: it is
// another argument.
static bool take_mirage_arg(struct cmdline *c, const char *arg)
{
	struct net_config *net = &c->net;
	const char *value;

	if ((value = option_value(arg, "--ipv4"))) {
		if (!parse_cidr(value, strlen(value), &net->ipv4))
			bad(c, "--ipv4", value);
	} else if ((value = option_value(arg, "--ipv4-gateway"))) {
		if (!parse_ipv4(value, strlen(value), &net->ipv4.gateway))
			bad(c, "--ipv4-gateway", value);
	} else if ((value = option_value(arg, "--ipv6"))) {
		net->ipv6.cidr = value;
	} else if ((value = option_value(arg, "--ipv6-gateway"))) {
		net->ipv6.gateway = value;
	} else {
		return false;
	}
	return true;
}

// take_mirage_args takes MirageOS's options out of the application's arguments.
static void take_mirage_args(struct cmdline *c, char *argv[], int argc)
{
	size_t kept = 0;

	for (int i = 0; i < argc; i++)
		if (!take_mirage_arg(c, argv[i]))
			argv[kept++] = argv[i];
	c->args = (struct strings){ argv, kept };
}

void cmdline_parse(struct cmdline *c, char *line)
{
	struct params p = { 0 };
	int argc, stop, first = 1;

	memset(c, 0, sizeof(*c));
	c->env.at = c->vars;
	argc = cmdline_split(line, c->argv, CMDLINE_ARGS);
	stop = find_stop(argc, c->argv);
	if (stop > 1 && stop < argc) {
		for (int i = 1; i < stop; i++)
			take_token(&p, c, c->argv[i]);
		first = stop + 1;
	}
	take_mirage_args(c, c->argv + first, argc > first ? argc - first : 0);
}
