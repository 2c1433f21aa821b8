// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Reads the initrd: a cpio archive in the "newc" format, as Linux takes it.
#ifndef STEPS_CPIO_H
#define STEPS_CPIO_H

#include <stdbool.h>
#include <stddef.h>

struct cpio_file {
	const char *name; // without leading "/" and "./"; within the archive
	const char *data; // within the archive
	size_t len;
};

// cpio_find_csv finds the file steps.csv, else the first regular file whose name
// ends in .csv. False: there is none, or the archive is broken before it.
bool cpio_find_csv(const char *archive, size_t len, struct cpio_file *found);

#endif
