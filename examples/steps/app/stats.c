// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

#include "stats.h"

#include <string.h>

// table is open-addressed by id; its size is a power of two.
struct table {
	struct user *slots;
	size_t size;
	size_t used;
};

struct field {
	const char *at;
	size_t len;
};

static struct user *table_slot(const struct table *t, uint64_t id)
{
	size_t i = (size_t)((id * 0x9e3779b97f4a7c15u) >> 32); // Fibonacci hashing

	for (;; i++) {
		struct user *u = &t->slots[i & (t->size - 1)];

		if (u->days == 0 || u->id == id)
			return u;
	}
}

static bool table_grow(struct table *t, alloc_fn *alloc)
{
	struct table bigger = { .size = t->size ? t->size * 2 : 64, .used = t->used };

	bigger.slots = alloc(bigger.size * sizeof(struct user));
	if (!bigger.slots)
		return false;
	for (size_t i = 0; i < t->size; i++)
		if (t->slots[i].days)
			*table_slot(&bigger, t->slots[i].id) = t->slots[i];
	*t = bigger;
	return true;
}

static bool table_add(struct table *t, uint64_t id, uint64_t steps, alloc_fn *alloc)
{
	struct user *u;

	if (t->used * 2 >= t->size && !table_grow(t, alloc))
		return false;
	u = table_slot(t, id);
	if (u->days == 0)
		t->used++;
	u->id = id;
	u->days++;
	u->steps += steps;
	return true;
}

// next_field cuts the first field off rest.
static struct field next_field(struct field *rest)
{
	struct field f = *rest;
	const char *comma = memchr(rest->at, ',', rest->len);

	if (!comma) {
		rest->at += rest->len;
		rest->len = 0;
	} else {
		f.len = (size_t)(comma - f.at);
		rest->at += f.len + 1;
		rest->len -= f.len + 1;
	}
	while (f.len && (*f.at == ' ' || *f.at == '\t'))
		f.at++, f.len--;
	while (f.len && (f.at[f.len - 1] == ' ' || f.at[f.len - 1] == '\t'))
		f.len--;
	return f;
}

static bool is_heading(struct field line)
{
	struct field id = next_field(&line);

	return id.len == 2 && memcmp(id.at, "Id", 2) == 0;
}

static bool parse_line(struct field line, uint64_t *id, uint64_t *steps)
{
	struct field id_field = next_field(&line);
	struct field date = next_field(&line);
	struct field step_field = next_field(&line);

	return date.len > 0 && text_to_uint(id_field.at, id_field.len, id) &&
	       text_to_uint(step_field.at, step_field.len, steps);
}

static struct field next_line(const char **at, const char *end)
{
	struct field line = { .at = *at };
	const char *lf = memchr(*at, '\n', (size_t)(end - *at));

	line.len = (size_t)((lf ? lf : end) - *at);
	*at = lf ? lf + 1 : end;
	if (line.len && line.at[line.len - 1] == '\r')
		line.len--;
	return line;
}

static void sift_down(struct user *u, size_t root, size_t count)
{
	for (size_t child; (child = 2 * root + 1) < count; root = child) {
		struct user swap;

		if (child + 1 < count && u[child].id < u[child + 1].id)
			child++;
		if (u[root].id >= u[child].id)
			return;
		swap = u[root];
		u[root] = u[child];
		u[child] = swap;
	}
}

// sort_by_id is a heapsort: it needs no memory and no recursion.
static void sort_by_id(struct user *u, size_t count)
{
	for (size_t i = count / 2; i-- > 0;)
		sift_down(u, i, count);
	for (size_t i = count; i-- > 1;) {
		struct user swap = u[0];

		u[0] = u[i];
		u[i] = swap;
		sift_down(u, 0, i);
	}
}

static void close_gaps(struct stats *s, const struct table *t)
{
	s->users = t->slots;
	s->count = 0;
	for (size_t i = 0; i < t->size; i++)
		if (t->slots[i].days)
			s->users[s->count++] = t->slots[i];
}

bool stats_read(struct stats *s, const char *csv, size_t len, alloc_fn *alloc)
{
	const char *at = csv, *end = csv + len;
	struct table table = { 0 };

	memset(s, 0, sizeof(*s));
	if (len >= 3 && memcmp(csv, "\xef\xbb\xbf", 3) == 0)
		at += 3;
	for (uint64_t number = 1; at < end; number++) {
		struct field line = next_line(&at, end);
		uint64_t id, steps;

		if (line.len == 0 || (number == 1 && is_heading(line)))
			continue;
		if (!parse_line(line, &id, &steps)) {
			if (s->bad++ == 0)
				s->first_bad = number;
			continue;
		}
		if (!table_add(&table, id, steps, alloc))
			return false;
		s->records++;
	}
	close_gaps(s, &table);
	sort_by_id(s->users, s->count);
	return true;
}

// higher tells whether a's average is higher than b's, without rounding.
// Whole parts are compared first, so that the products of the rest cannot
// overflow.
static bool higher(const struct user *a, const struct user *b)
{
	unsigned __int128 whole_a = a->steps / a->days, whole_b = b->steps / b->days;

	if (whole_a != whole_b)
		return whole_a > whole_b;
	return (a->steps % a->days) * b->days > (b->steps % b->days) * a->days;
}

const struct user *stats_top(const struct stats *s)
{
	const struct user *top = NULL;

	for (size_t i = 0; i < s->count; i++)
		if (!top || higher(&s->users[i], top))
			top = &s->users[i];
	return top;
}

void stats_average(struct text *t, const struct user *u)
{
	uint64_t whole = (uint64_t)(u->steps / u->days);
	unsigned __int128 rest = u->steps % u->days;
	unsigned cents = (unsigned)((rest * 200 + u->days) / ((unsigned __int128)u->days * 2));

	if (cents == 100) {
		whole++;
		cents = 0;
	}
	text_uint(t, whole);
	text_char(t, '.');
	text_char(t, (char)('0' + cents / 10));
	text_char(t, (char)('0' + cents % 10));
}
