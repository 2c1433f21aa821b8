// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

#include "modes.h"

#include <string.h>

#include "../app/options.h"
#include "../app/text.h"
#include "kernel.h"

enum { LINES_PER_TURN = 16, MAX_SECONDS = 1000000000, MAX_TYPED = 80 };

static bool read_number(struct modes *m, const char *name, const char *value, uint64_t *n)
{
	if (text_to_uint(value, strlen(value), n) && *n <= MAX_SECONDS)
		return true;
	m->bad_name = name;
	m->bad_value = value;
	return false;
}

static bool read_status(struct modes *m, const char *name, const char *value)
{
	bool negative = *value == '-';
	uint64_t n;

	if (!read_number(m, name, value + negative, &n))
		return false;
	m->exit_status = negative ? -(int)n : (int)n;
	return true;
}

static bool read_arg(struct modes *m, const char *arg)
{
	const char *value;

	if ((value = option_value(arg, "--exit")))
		return m->exit = true, read_status(m, "--exit", value);
	if ((value = option_value(arg, "--exit-call")))
		return m->exit_call = true, read_status(m, "--exit-call", value);
	if ((value = option_value(arg, "--start-delay")))
		return read_number(m, "--start-delay", value, &m->start_delay_s);
	if ((value = option_value(arg, "--burn-cpu")))
		return m->burn = true, !*value || read_number(m, "--burn-cpu", value, &m->burn_s);
	if ((value = option_value(arg, "--chatter")))
		return m->chatter = true,
		       !*value || read_number(m, "--chatter", value, &m->lines_per_s);
	if (strcmp(arg, "--console-echo") == 0)
		m->console_echo = true;
	if (strcmp(arg, "--crash") == 0)
		m->crash = true;
	if (strcmp(arg, "--hang") == 0)
		m->hang = true;
	if (strcmp(arg, "--fill-memory") == 0)
		m->fill_memory = true;
	return true;
}

bool modes_read(struct modes *m, struct strings args)
{
	memset(m, 0, sizeof(*m));
	for (size_t i = 0; i < args.count; i++)
		if (!read_arg(m, args.at[i]))
			return false;
	return true;
}

static void sleep_until(uint64_t deadline)
{
	while (clock_ns() < deadline)
		cpu_sleep(deadline);
}

// wild_access writes to an address that neither architecture maps.
static void wild_access(void)
{
	volatile uint32_t *volatile wild = (uint32_t *)0x00007fffdead0000;

	*wild = 1;
}

bool modes_run_first(const struct modes *m)
{
	if (m->start_delay_s) {
		print("steps: starting in %lu s\n", (unsigned long)m->start_delay_s);
		sleep_until(clock_ns() + m->start_delay_s * NS_PER_SEC);
	}
	if (m->crash) {
		print("steps: crashing\n");
		wild_access();
	}
	if (m->hang) {
		print("steps: hanging\n");
		cpu_hang();
	}
	if (m->exit_call) // as exit(N) on Unikraft 0.17: no word, no end
		sleep_until(NEVER);
	return m->exit;
}

static uint64_t run_chatter(const struct modes *m)
{
	static uint64_t line, first_ns;
	uint64_t pause = m->lines_per_s ? NS_PER_SEC / m->lines_per_s : 0;

	if (line == 0)
		first_ns = clock_ns();
	for (int i = 0; i < LINES_PER_TURN && clock_ns() >= first_ns + line * pause; i++)
		print("steps: chatter %lu\n", (unsigned long)++line);
	return first_ns + line * pause;
}

static uint64_t run_burn(const struct modes *m)
{
	static uint64_t end_ns;

	if (end_ns == 0)
		end_ns = m->burn_s ? clock_ns() + m->burn_s * NS_PER_SEC : NEVER;
	return clock_ns() < end_ns ? 0 : NEVER; // 0: never sleep
}

// run_echo says each line that was typed on the console. It polls, as no
// interrupt tells of one.
static uint64_t run_echo(void)
{
	static char line[MAX_TYPED + 1];
	static size_t n;
	int c;

	while ((c = console_read()) >= 0) {
		if (c != '\r' && c != '\n' && n < MAX_TYPED) {
			line[n++] = (char)c;
			continue;
		}
		line[n] = '\0';
		if (n)
			print("steps: typed \"%s\"\n", line);
		n = 0;
	}
	return clock_ns() + 20 * NS_PER_MS;
}

uint64_t modes_run(const struct modes *m)
{
	static bool filled;
	uint64_t next = NEVER, at;

	if (m->fill_memory && !filled) {
		filled = true;
		print("steps: filled %lu MiB\n", (unsigned long)(memory_fill() >> 20));
	}
	if (m->chatter && (at = run_chatter(m)) < next)
		next = at;
	if (m->burn && (at = run_burn(m)) < next)
		next = at;
	if (m->console_echo && (at = run_echo()) < next)
		next = at;
	return next;
}
