// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// lwIP includes it; the little that it uses of it is here.
#ifndef STEPS_STDLIB_H
#define STEPS_STDLIB_H


int atoi(const char *s);

#endif
