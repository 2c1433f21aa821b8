// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

#include <string.h>

#include "kernel.h"

enum { MAX_RANGES = 16 };

static struct range {
	uintptr_t start, end;
} ranges[MAX_RANGES];
static size_t range_count;

void memory_add(uintptr_t start, uintptr_t end)
{
	if (start >= end || range_count == MAX_RANGES)
		return;
	ranges[range_count++] = (struct range){ start, end };
}

void *memory_take(size_t bytes, size_t align)
{
	for (size_t i = 0; i < range_count; i++) {
		uintptr_t at = (ranges[i].start + align - 1) & ~(uintptr_t)(align - 1);

		if (at < ranges[i].start || at > ranges[i].end || ranges[i].end - at < bytes)
			continue;
		ranges[i].start = at + bytes;
		// RAM need not be zero: a monitor may have started something before.
		return memset((void *)at, 0, bytes);
	}
	return NULL;
}

void *memory_alloc(size_t bytes)
{
	return memory_take(bytes, 16);
}

uint64_t memory_fill(void)
{
	uint64_t filled = 0;

	for (size_t i = 0; i < range_count; i++) {
		size_t bytes = ranges[i].end - ranges[i].start;

		// Not zero, and no two pages alike: nothing may merge or compress them away.
		for (size_t at = 0; at + 8 <= bytes; at += 8) {
			uint64_t *word = (uint64_t *)((ranges[i].start + at + 7) & ~(uintptr_t)7);

			if ((uintptr_t)(word + 1) <= ranges[i].end)
				*word = (uintptr_t)word * 0x9e3779b97f4a7c15u;
		}
		filled += bytes;
	}
	return filled;
}
