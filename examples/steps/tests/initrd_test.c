// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

#include "../kernel/cpio.h"
#include "../kernel/fdt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"

static size_t add_entry(char *archive, size_t at, unsigned mode, const char *name, const char *data)
{
	size_t start = at;

	at += (size_t)sprintf(archive + at, "070701%08X%08X", 1, mode);
	for (int i = 2; i < 13; i++) {
		size_t value = i == 6 ? strlen(data) : i == 11 ? strlen(name) + 1 : 0;

		at += (size_t)sprintf(archive + at, "%08zX", value);
	}
	CHECK(at - start == 110, "header of %zu", at - start);
	at += (size_t)sprintf(archive + at, "%s", name) + 1;
	while (at % 4)
		archive[at++] = '\0';
	at += (size_t)sprintf(archive + at, "%s", data);
	while (at % 4)
		archive[at++] = '\0';
	return at;
}

static size_t make_archive(char *archive)
{
	size_t len = 0;

	len = add_entry(archive, len, 0040755, ".", "");
	len = add_entry(archive, len, 0040755, "d.csv", "");
	len = add_entry(archive, len, 0100644, "a.csv", "first");
	len = add_entry(archive, len, 0100644, "./steps.csv", "second");
	return add_entry(archive, len, 0, "TRAILER!!!", "");
}

void test_cpio(void)
{
	char archive[2048];
	size_t len = make_archive(archive);
	struct cpio_file f;

	CHECK(cpio_find_csv(archive, len, &f), "nothing");
	CHECK(strcmp(f.name, "steps.csv") == 0 && f.len == 6 && memcmp(f.data, "second", 6) == 0,
	      "%s", f.name);

	// Cut anywhere, an archive must not be read beyond its end.
	for (size_t cut = 0; cut < len; cut++) {
		char *part = memcpy(malloc(cut + 1), archive, cut);

		part = realloc(part, cut ? cut : 1);
		if (cpio_find_csv(part, cut, &f))
			CHECK(f.data + f.len <= part + cut, "cut at %zu", cut);
		free(part);
	}

	CHECK(!cpio_find_csv("070701zzzz", 10, &f), "found in noise");
	len = add_entry(archive, 0, 0100644, "x/y.csv", "data");
	CHECK(cpio_find_csv(archive, len, &f) && strcmp(f.name, "x/y.csv") == 0, "no y.csv");
}

// A tree by hand: / { n { compatible = "x", "y"; reg = <0 1 0 2>; sub { }; }; chosen { }; }
static const uint8_t tree[] = {
	0xd0, 0x0d, 0xfe, 0xed, 0, 0, 0, 160, 0, 0, 0, 40, 0, 0, 0, 144, // magic, size, structs, strings
	0, 0, 0, 40, 0, 0, 0, 17, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 104,
	0, 0, 0, 1, 0, 0, 0, 0,                               // /
	0, 0, 0, 4,                                           // nothing
	0, 0, 0, 1, 'n', 0, 0, 0,                             // n
	0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 'x', 0, 'y', 0,   // compatible
	0, 0, 0, 3, 0, 0, 0, 16, 0, 0, 0, 11,                 // reg
	0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2,
	0, 0, 0, 1, 's', 'u', 'b', 0, 0, 0, 0, 2,             // sub
	0, 0, 0, 2,
	0, 0, 0, 1, 'c', 'h', 'o', 's', 'e', 'n', 0, 0, 0, 0, 0, 2,
	0, 0, 0, 2,
	0, 0, 0, 9,
	'c', 'o', 'm', 'p', 'a', 't', 'i', 'b', 'l', 'e', 0, 'r', 'e', 'g', 0, 0,
};

void test_fdt(void)
{
	struct fdt_node node = { 0 };
	struct fdt_range range;
	struct fdt t;

	CHECK(!fdt_open(&t, "noise and more"), "opened noise");
	CHECK(fdt_open(&t, tree), "not opened");
	CHECK(fdt_next(&t, &node) && strcmp(node.name, "n") == 0, "no n");
	CHECK(fdt_is_compatible(&t, &node, "x") && fdt_is_compatible(&t, &node, "y"), "n");
	CHECK(!fdt_is_compatible(&t, &node, "z"), "n is a z");
	CHECK(fdt_reg(&t, &node, 0, &range) && range.start == 1 && range.size == 2, "reg of n");
	CHECK(!fdt_reg(&t, &node, 1, &range), "a second reg");
	CHECK(fdt_next(&t, &node) && strcmp(node.name, "chosen") == 0, "%s", node.name);
	CHECK(!fdt_reg(&t, &node, 0, &range), "reg of chosen");
	CHECK(!fdt_next(&t, &node), "more nodes");
}
