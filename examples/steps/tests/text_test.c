// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

#include "../app/text.h"

#include <stdbool.h>
#include <string.h>

#include "test.h"

static void test_json(void)
{
	static const struct {
		const char *in, *want;
	} cases[] = {
		{ "", "\"\"" },
		{ "plain", "\"plain\"" },
		{ "a\"b\\c", "\"a\\\"b\\\\c\"" },
		{ "\n\r\t\x01\x7f", "\"\\n\\r\\t\\u0001\\u007f\"" },
		{ "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x99\x82", "\"\xc3\xa4 \xe2\x82\xac \xf0\x9f\x99\x82\"" },
		{ "\xff" "a", "\"\\ufffda\"" },
		{ "\xc0\x80", "\"\\ufffd\\ufffd\"" },         // overlong
		{ "\xed\xa0\x80", "\"\\ufffd\\ufffd\\ufffd\"" }, // a surrogate
		{ "\xe2\x82", "\"\\ufffd\\ufffd\"" },         // cut off
		{ "\xf4\x90\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\"" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char buf[128] = { 0 };
		struct text t = { .buf = buf, .cap = sizeof(buf) - 1 };

		text_json_str(&t, cases[i].in, strlen(cases[i].in));
		CHECK(strcmp(buf, cases[i].want) == 0, "%s, want %s", buf, cases[i].want);
	}
}

static void test_to_uint(void)
{
	static const struct {
		const char *in;
		bool ok;
		uint64_t want;
	} cases[] = {
		{ "0", true, 0 },
		{ "007", true, 7 },
		{ "18446744073709551615", true, UINT64_MAX },
		{ "18446744073709551616", false, 0 },
		{ "99999999999999999999999", false, 0 },
		{ "", false, 0 },
		{ "-1", false, 0 },
		{ "1.5", false, 0 },
		{ "12a", false, 0 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		uint64_t n = 0;
		bool ok = text_to_uint(cases[i].in, strlen(cases[i].in), &n);

		CHECK(ok == cases[i].ok, "%s", cases[i].in);
		CHECK(!ok || n == cases[i].want, "%s", cases[i].in);
	}
}

static void test_measure(void)
{
	char buf[4] = "....";
	struct text t = { .buf = buf, .cap = 2 };

	text_uint(&t, UINT64_MAX);
	CHECK(t.len == 20 && memcmp(buf, "18..", 4) == 0, "%zu %.4s", t.len, buf);
}

void test_text(void)
{
	test_json();
	test_to_uint();
	test_measure();
}
