// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Text is put together here, so that neither the kernel nor the Linux program
// needs printf for what the application says.
#ifndef STEPS_TEXT_H
#define STEPS_TEXT_H

#include <stddef.h>
#include <stdint.h>

// text collects bytes in a buffer of the caller. What does not fit is counted
// and dropped: a first pass with cap 0 measures, a second one writes.
struct text {
	char *buf;
	size_t cap; // bytes at buf
	size_t len; // bytes that were to be written; more than cap: cut off
};

void text_char(struct text *t, char c);
void text_bytes(struct text *t, const char *s, size_t n);
void text_str(struct text *t, const char *s);
void text_uint(struct text *t, uint64_t n);

// text_json_str writes s as a JSON string with its quotes. Bytes that are not
// UTF-8 become U+FFFD, so that the result is always valid JSON.
void text_json_str(struct text *t, const char *s, size_t n);

// text_to_uint reads a whole decimal number; false if s[0..n) is anything else
// or does not fit.
_Bool text_to_uint(const char *s, size_t n, uint64_t *out);

#endif
