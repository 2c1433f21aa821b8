// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

#include "../kernel/cmdline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"

static void join(struct strings s, char *out, size_t cap)
{
	size_t at = 0;

	out[0] = '\0';
	for (size_t i = 0; i < s.count; i++)
		at += (size_t)snprintf(out + at, cap - at, "<%s>", s.at[i]);
}

static void test_split(void)
{
	static const struct {
		const char *line, *want;
	} cases[] = {
		{ "", "" },
		{ "  \t", "" },
		{ " a  b\tc\n", "<a><b><c>" },
		{ "'a b' \"c d\"", "<a b><c d>" },
		{ "a'b c'd", "<ab cd>" },
		{ "'' a \"\"", "<a>" },
		{ "' a'", "< a>" },
		{ "a\\ b c", "<a b><c>" },
		{ "\\\"a \\'b", "<\"a><'b>" },
		{ "a\\\\b", "<a\\b>" },
		{ "a\\nb", "<anb>" },
		{ "\"a\\\"b\"", "<a\"b>" },
		{ "\"a\\nb\\\\\"", "<a\\nb\\>" },
		{ "\"a\\'b\"", "<a\\'b>" },
		{ "'a\\b' 'c\"d'", "<a\\b><c\"d>" },
		{ "'a b", "<a b>" },
		{ "a\\", "<a\\>" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char *line = strdup(cases[i].line), *argv[8], got[256];
		int argc = cmdline_split(line, argv, 8);

		join((struct strings){ argv, (size_t)argc }, got, sizeof(got));
		CHECK(strcmp(got, cases[i].want) == 0, "%s, want %s", got, cases[i].want);
		free(line);
	}
}

static void test_split_limit(void)
{
	char line[] = "a b 'c d'  \"e\" ", *argv[3], got[64];
	int argc = cmdline_split(line, argv, 3);

	join((struct strings){ argv, (size_t)argc }, got, sizeof(got));
	CHECK(strcmp(got, "<a><b><c d'  \"e\" >") == 0, "%s", got);
}

static void test_parse(void)
{
	static const struct {
		const char *line, *args, *env, *net, *bad;
	} cases[] = {
		{ "k", "", "", "0/0/0", NULL },
		{ "k a b", "<a><b>", "", "0/0/0", NULL },
		// without "--" all is the application's
		{ "k netdev.ip=10.0.2.15/24", "<netdev.ip=10.0.2.15/24>", "", "0/0/0", NULL },
		// "--" counts only behind a token, and need have nothing behind it
		{ "k -- a", "<--><a>", "", "0/0/0", NULL },
		{ "k x -- y", "<y>", "", "0/0/0", NULL },
		{ "k netdev.ip=10.0.2.15/24:10.0.2.2 --", "", "", "a00020f/24/a000202", NULL },
		{ "k netdev.ip=10.0.2.15/24:10.0.2.2:1.1.1.1::host:dom -- a -- b", "<a><--><b>", "",
		  "a00020f/24/a000202", NULL },
		{ "k netdev.ip=10.0.2.15/24 netdev.ip=1.2.3.4/8 -- a", "<a>", "", "a00020f/24/0", NULL },
		{ "k netdev.ip=10.0.2.15/24::9.9.9.9 -- a", "<a>", "", "a00020f/24/0", NULL },
		// lists
		{ "k env.vars=[ A=1 \"B=x y\" ] -- a", "<a>", "<A=1><B=x y>", "0/0/0", NULL },
		{ "k env.vars=[A=1 B=2] -- a", "<a>", "<A=1><B=2>", "0/0/0", NULL },
		{ "k env.vars=A=1 -- a", "<a>", "<A=1>", "0/0/0", NULL },
		{ "k env.vars=[ A=1 -- ] -- a", "<a>", "<A=1><-->", "0/0/0", NULL },
		{ "k env.vars=[ A=1 ] env.vars=[ B=2 ] -- a", "<a>", "<A=1><B=2>", "0/0/0", NULL },
		{ "k env.vars=[ 'A=[x]y' ] -- a", "<a>", "<A=[x]y>", "0/0/0", NULL },
		{ "k vfs.fstab=[ \"initrd0:/:extract::ramfs=1:\" ] env.vars=[ A=1 ] -- a", "<a>", "<A=1>",
		  "0/0/0", NULL },
		// MirageOS
		{ "k --ipv4=10.0.0.2/24 --ipv4-gateway=10.0.0.1 a --ipv4-only=true",
		  "<a><--ipv4-only=true>", "", "a000002/24/a000001", NULL },
		{ "k x.y=1 -- --ipv4=10.0.0.2/24 b", "<b>", "", "a000002/24/0", NULL },
		// bad values are told, not guessed
		{ "k netdev.ip=10.0.2.15 -- a", "<a>", "", NULL, "netdev.ip" },
		{ "k netdev.ip=10.0.2.256/24 -- a", "<a>", "", NULL, "netdev.ip" },
		{ "k netdev.ip=10.0.2.15/33 -- a", "<a>", "", NULL, "netdev.ip" },
		{ "k netdev.ip=10.0.2/24 -- a", "<a>", "", NULL, "netdev.ip" },
		{ "k netdev.ip=10.0.2.15/24:gw -- a", "<a>", "", NULL, "netdev.ip" },
		{ "k --ipv4=10.0.0.2", "", "", NULL, "--ipv4" },
		{ "k --ipv4-gateway=x", "", "", NULL, "--ipv4-gateway" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char *line = strdup(cases[i].line), got[256];
		struct cmdline *c = malloc(sizeof(*c));

		cmdline_parse(c, line);
		join(c->args, got, sizeof(got));
		CHECK(strcmp(got, cases[i].args) == 0, "%s: %s", cases[i].line, got);
		join(c->env, got, sizeof(got));
		CHECK(strcmp(got, cases[i].env) == 0, "%s: %s", cases[i].line, got);
		snprintf(got, sizeof(got), "%x/%u/%x", c->net.ipv4.ip, c->net.ipv4.prefix, c->net.ipv4.gateway);
		CHECK(!cases[i].net || strcmp(got, cases[i].net) == 0, "%s: %s", cases[i].line, got);
		CHECK(cases[i].bad ? c->bad_name && strcmp(c->bad_name, cases[i].bad) == 0
				   : !c->bad_name,
		      "%s: %s", cases[i].line, c->bad_name ? c->bad_name : "no error");
		free(c);
		free(line);
	}
}

static void test_unknown(void)
{
	char line[] = "k alloc.size=[ 1 2 ] plain x.y help netdev.ip=1.2.3.4/8 -- a";
	struct cmdline *c = malloc(sizeof(*c));

	cmdline_parse(c, line);
	CHECK(c->unknown_count == 2 && strcmp(c->unknown[0], "alloc.size") == 0 &&
		      strcmp(c->unknown[1], "x.y") == 0,
	      "%zu", c->unknown_count);
	CHECK(c->help && c->net.ipv4.ip == 0x01020304, "%x", c->net.ipv4.ip);
	free(c);
}

static void test_dns_and_ipv6(void)
{
	char line[] = "k netdev.ip=1.2.3.4/8:1.2.3.1:9.9.9.9:8.8.4.4:host -- --ipv6=fd00::2/64 a --ipv6-gateway=fd00::1";
	char bad[] = "k netdev.ip=1.2.3.4/8:1.2.3.1:nine -- a", got[64];
	struct cmdline *c = malloc(sizeof(*c));

	cmdline_parse(c, line);
	CHECK(c->net.ipv4.dns[0] == 0x09090909 && c->net.ipv4.dns[1] == 0x08080404, "%x %x",
	      c->net.ipv4.dns[0], c->net.ipv4.dns[1]);
	CHECK(strcmp(c->net.ipv6.cidr, "fd00::2/64") == 0, "%s", c->net.ipv6.cidr);
	CHECK(strcmp(c->net.ipv6.gateway, "fd00::1") == 0, "%s", c->net.ipv6.gateway);
	join(c->args, got, sizeof(got));
	CHECK(strcmp(got, "<a>") == 0, "%s", got);

	cmdline_parse(c, bad);
	CHECK(c->bad_name && strcmp(c->bad_name, "netdev.ip") == 0, "%s", c->bad_name);
	free(c);
}

void test_cmdline(void)
{
	test_dns_and_ipv6();
	test_split();
	test_split_limit();
	test_parse();
	test_unknown();
}
