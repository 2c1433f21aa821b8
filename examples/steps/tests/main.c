// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

#include "test.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void *allocated[256];
static size_t allocated_count;

_Noreturn void test_fail(const char *file, int line, const char *expected, const char *format, ...)
{
	va_list ap;

	fprintf(stderr, "%s:%d: not %s: ", file, line, expected);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	exit(1);
}

void *test_alloc(size_t bytes)
{
	CHECK(allocated_count < 256, "more than 256 blocks");
	return allocated[allocated_count++] = calloc(1, bytes);
}

void test_free_all(void)
{
	while (allocated_count > 0)
		free(allocated[--allocated_count]);
}

int main(void)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} tests[] = {
		{ "text", test_text },       { "stats", test_stats },     { "http", test_http },
		{ "site", test_site },       { "options", test_options }, { "cmdline", test_cmdline },
		{ "cpio", test_cpio },       { "fdt", test_fdt },
	};

	for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++) {
		tests[i].run();
		test_free_all();
		printf("ok %s\n", tests[i].name);
	}
}
