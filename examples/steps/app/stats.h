// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// The work that the example does: average daily steps per user.
#ifndef STEPS_STATS_H
#define STEPS_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text.h"

// alloc_fn returns zeroed memory that is never given back, or NULL.
typedef void *alloc_fn(size_t bytes);

struct user {
	uint64_t id;
	uint64_t days; // records; 0 marks a free slot while the table is built
	unsigned __int128 steps;
};

struct stats {
	struct user *users; // sorted by id
	size_t count;
	uint64_t records;   // lines that counted
	uint64_t bad;       // lines that were skipped
	uint64_t first_bad; // number of the first of them, from 1
};

// stats_read aggregates a CSV of Id,ActivityDate,TotalSteps. Lines end in LF or
// CRLF; a heading, a byte order mark, empty lines and further columns are
// accepted; ids and steps are whole numbers below 2^64. A line that is
// anything else is counted in bad and skipped. False: alloc had no memory left.
bool stats_read(struct stats *s, const char *csv, size_t len, alloc_fn *alloc);

// stats_top returns the user with the highest average, of equals the one with
// the lowest id; NULL without users.
const struct user *stats_top(const struct stats *s);

// stats_average writes the user's average with two decimals, rounded half up,
// computed in integers.
void stats_average(struct text *t, const struct user *u);

#endif
