// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Test modes: ways of a guest to end or to misbehave, chosen by arguments.
#ifndef STEPS_MODES_H
#define STEPS_MODES_H

#include <stdbool.h>
#include <stdint.h>

#include "../app/site.h"

struct modes {
	uint64_t start_delay_s;
	bool fill_memory;
	bool crash, hang;
	bool exit, exit_call;
	int exit_status;
	bool burn;
	uint64_t burn_s;        // 0: for ever
	bool chatter;
	uint64_t lines_per_s;   // 0: without pause
	bool console_echo;
	// What could not be understood. NULL: all was.
	const char *bad_name, *bad_value;
};

bool modes_read(struct modes *m, struct strings args);

// modes_run_first does what comes before serving; true: main is to return
// m->exit_status.
bool modes_run_first(const struct modes *m);

// modes_run does what goes on beside serving, and returns when it wants to run
// again at the latest.
uint64_t modes_run(const struct modes *m);

#endif
