// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

#include "../app/stats.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"

// describe writes "id/days/average …; bad N@LINE; top ID".
static void describe(const struct stats *s, char *buf, size_t cap)
{
	struct text t = { .buf = buf, .cap = cap - 1 };
	const struct user *top = stats_top(s);

	for (size_t i = 0; i < s->count; i++) {
		text_uint(&t, s->users[i].id);
		text_char(&t, '/');
		text_uint(&t, s->users[i].days);
		text_char(&t, '/');
		stats_average(&t, &s->users[i]);
		text_char(&t, ' ');
	}
	if (s->bad) {
		text_str(&t, "bad ");
		text_uint(&t, s->bad);
		text_char(&t, '@');
		text_uint(&t, s->first_bad);
		text_char(&t, ' ');
	}
	if (top) {
		text_str(&t, "top ");
		text_uint(&t, top->id);
	}
	buf[t.len < cap ? t.len : cap - 1] = '\0';
}

static void test_csv(void)
{
	static const struct {
		const char *csv, *want;
	} cases[] = {
		{ "", "" },
		{ "Id,ActivityDate,TotalSteps\n", "" },
		{ "Id,ActivityDate,TotalSteps\n7,4/12/2016,10\n", "7/1/10.00 top 7" },
		{ "7,4/12/2016,10", "7/1/10.00 top 7" }, // no heading, no end of line
		{ "\xef\xbb\xbfId,ActivityDate,TotalSteps\r\n7,d,10\r\n\r\n7,d,11\r\n",
		  "7/2/10.50 top 7" },
		{ "Id,ActivityDate,TotalSteps,TotalDistance\n7,d,10,8.5\n", "7/1/10.00 top 7" },
		{ "20,d,1\n3,d,2\n100,d,1\n", "3/1/2.00 20/1/1.00 100/1/1.00 top 3" },
		{ " 7 ,d, 10 \n", "7/1/10.00 top 7" },
		// thirds, and halves of a cent round up
		{ "1,d,1\n1,d,0\n1,d,0\n", "1/3/0.33 top 1" },
		{ "1,d,2\n1,d,0\n1,d,0\n", "1/3/0.67 top 1" },
		{ "1,d,1\n1,d,0\n1,d,0\n1,d,0\n1,d,0\n1,d,0\n1,d,0\n1,d,0\n", "1/8/0.13 top 1" },
		// equal averages: the lowest id
		{ "9,d,2\n5,d,1\n5,d,3\n", "5/2/2.00 9/1/2.00 top 5" },
		// bad lines
		{ "x,d,1\n1,d,1\n1,,1\n1,d,\n1,d,-1\n1,d,1e3\n1\n1,d\n,,\n", "1/1/1.00 bad 8@1 top 1" },
		{ "1,d,18446744073709551616\n1,d,5\n", "1/1/5.00 bad 1@1 top 1" },
		{ "Id,a,b\nId,a,b\n1,d,1\n", "1/1/1.00 bad 1@2 top 1" },
		// sums above 2^64
		{ "1,d,18446744073709551615\n1,d,18446744073709551615\n1,d,18446744073709551614\n",
		  "1/3/18446744073709551614.67 top 1" },
		{ "18446744073709551615,d,3\n", "18446744073709551615/1/3.00 top 18446744073709551615" },
		{ "00012,d,3\n12,d,4\n", "12/2/3.50 top 12" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		// An exact copy, so that reading beyond the end is noticed.
		size_t len = strlen(cases[i].csv);
		char *csv = memcpy(malloc(len + 1), cases[i].csv, len), got[512];
		struct stats s;

		CHECK(stats_read(&s, csv, len, test_alloc), "%s", cases[i].csv);
		describe(&s, got, sizeof(got));
		CHECK(strcmp(got, cases[i].want) == 0, "%s, want %s", got, cases[i].want);
		free(csv);
	}
}

static void *no_memory(size_t bytes)
{
	(void)bytes;
	return NULL;
}

static void test_no_memory(void)
{
	struct stats s;

	CHECK(!stats_read(&s, "1,d,1\n", 6, no_memory), "read without memory");
}

// test_many checks the table as it grows, against sums that are known.
static void test_many(void)
{
	enum { USERS = 5000, DAYS = 3 };
	char *csv = malloc(USERS * DAYS * 40);
	size_t len = 0;
	struct stats s;

	for (unsigned day = 0; day < DAYS; day++)
		for (unsigned u = USERS; u-- > 0;)
			len += (size_t)sprintf(csv + len, "%u,d,%u\n", u * 977, u + day);
	CHECK(stats_read(&s, csv, len, test_alloc), "no memory");
	free(csv);
	CHECK(s.count == USERS && s.bad == 0, "%zu users", s.count);
	for (unsigned u = 0; u < USERS; u++) {
		CHECK(s.users[u].id == u * 977, "user %u", u);
		CHECK(s.users[u].days == DAYS && s.users[u].steps == 3 * u + 3, "user %u", u);
	}
	CHECK(stats_top(&s)->id == (USERS - 1) * 977, "%llu",
	      (unsigned long long)stats_top(&s)->id);
}

void test_stats(void)
{
	test_csv();
	test_no_memory();
	test_many();
}
