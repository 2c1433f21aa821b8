// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

#include "fdt.h"

#include <string.h>

enum { MAGIC = 0xd00dfeed };
enum { BEGIN_NODE = 1, END_NODE = 2, PROP = 3, NOP = 4, END = 9 };

// Offsets in the header.
enum { TOTAL_SIZE = 4, OFF_STRUCT = 8, OFF_STRINGS = 12, SIZE_STRUCT = 36 };

static uint32_t be32(const void *at)
{
	const uint8_t *b = at;

	return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

uint64_t fdt_cells(const void *at, size_t cells)
{
	uint64_t high = be32(at);

	return cells == 1 ? high : high << 32 | be32((const uint8_t *)at + 4);
}

// after returns where the token after the one at p begins.
static const uint8_t *after(const uint8_t *p)
{
	size_t len = 4;

	if (be32(p) == BEGIN_NODE)
		len += strlen((const char *)p + 4) + 1;
	if (be32(p) == PROP)
		len += 8 + be32(p + 4);
	return p + ((len + 3) & ~(size_t)3);
}

static const void *prop_at(const struct fdt *t, const uint8_t *p, const char *name, size_t *len)
{
	for (; p < t->structs_end; p = after(p)) {
		if (be32(p) == NOP)
			continue;
		if (be32(p) != PROP)
			return NULL;
		if (strcmp(t->strings + be32(p + 8), name) != 0)
			continue;
		*len = be32(p + 4);
		return p + 12;
	}
	return NULL;
}

static uint32_t root_cells(const struct fdt *t, const char *name)
{
	size_t len;
	const void *value = prop_at(t, after(t->structs), name, &len);

	return value && len == 4 ? be32(value) : 2;
}

bool fdt_open(struct fdt *t, const void *blob)
{
	const uint8_t *start = blob;

	if (!start || be32(start) != MAGIC)
		return false;
	t->start = start;
	t->size = be32(start + TOTAL_SIZE);
	t->structs = start + be32(start + OFF_STRUCT);
	t->structs_end = t->structs + be32(start + SIZE_STRUCT);
	t->strings = (const char *)start + be32(start + OFF_STRINGS);
	while (be32(t->structs) == NOP)
		t->structs += 4;
	if (be32(t->structs) != BEGIN_NODE)
		return false;
	t->address_cells = root_cells(t, "#address-cells");
	t->size_cells = root_cells(t, "#size-cells");
	return true;
}

bool fdt_next(const struct fdt *t, struct fdt_node *node)
{
	const uint8_t *p = node->next ? node->next : after(t->structs);
	int depth = node->next ? 1 : 0; // next is within the node before

	for (; p < t->structs_end; p = after(p)) {
		uint32_t token = be32(p);

		if (token == END)
			return false;
		if (token == END_NODE && --depth < 0)
			return false;
		if (token == BEGIN_NODE && depth++ == 0) {
			node->name = (const char *)p + 4;
			node->props = after(p);
			node->next = node->props;
			return true;
		}
	}
	return false;
}

const void *fdt_prop(const struct fdt *t, const struct fdt_node *node, const char *name,
		     size_t *len)
{
	return prop_at(t, node->props, name, len);
}

bool fdt_is_compatible(const struct fdt *t, const struct fdt_node *node, const char *with)
{
	size_t len;
	const char *list = fdt_prop(t, node, "compatible", &len);

	while (list && len > 0) {
		size_t n = strnlen(list, len) + 1;

		if (strcmp(list, with) == 0)
			return true;
		if (n >= len)
			return false;
		list += n;
		len -= n;
	}
	return false;
}

bool fdt_reg(const struct fdt *t, const struct fdt_node *node, size_t i, struct fdt_range *range)
{
	size_t len, entry = (t->address_cells + t->size_cells) * 4;
	const uint8_t *reg = fdt_prop(t, node, "reg", &len);

	if (!reg || len < (i + 1) * entry)
		return false;
	reg += i * entry;
	range->start = fdt_cells(reg, t->address_cells);
	range->size = fdt_cells(reg + t->address_cells * 4, t->size_cells);
	return true;
}
