// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Reads a flattened device tree (Devicetree Specification, chapter 5) as far as
// a virtual machine's needs it: the children of the root node.
#ifndef STEPS_FDT_H
#define STEPS_FDT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fdt {
	const uint8_t *start;
	size_t size;
	const uint8_t *structs, *structs_end;
	const char *strings;
	uint32_t address_cells, size_cells; // of the root node
};

struct fdt_node {
	const char *name;
	const uint8_t *props;
	const uint8_t *next; // where the walk goes on
};

struct fdt_range {
	uint64_t start, size;
};

bool fdt_open(struct fdt *t, const void *blob);

// fdt_next walks over the root's children; start with an all-zero node.
bool fdt_next(const struct fdt *t, struct fdt_node *node);

// fdt_prop returns a property's value, NULL if the node has none of that name.
const void *fdt_prop(const struct fdt *t, const struct fdt_node *node, const char *name,
		     size_t *len);

bool fdt_is_compatible(const struct fdt *t, const struct fdt_node *node, const char *with);

// fdt_reg reads the i-th range of the property reg.
bool fdt_reg(const struct fdt *t, const struct fdt_node *node, size_t i, struct fdt_range *range);

// fdt_cells reads a big-endian number of 1 or 2 cells.
uint64_t fdt_cells(const void *at, size_t cells);

#endif
