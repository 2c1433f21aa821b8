// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

#include "text.h"

#include <stdbool.h>
#include <string.h>

void text_char(struct text *t, char c)
{
	if (t->len < t->cap)
		t->buf[t->len] = c;
	t->len++;
}

void text_bytes(struct text *t, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		text_char(t, s[i]);
}

void text_str(struct text *t, const char *s)
{
	text_bytes(t, s, strlen(s));
}

void text_uint(struct text *t, uint64_t n)
{
	char digits[20]; // 2^64 - 1 has 20
	size_t i = sizeof(digits);

	do {
		digits[--i] = (char)('0' + n % 10);
		n /= 10;
	} while (n);
	text_bytes(t, digits + i, sizeof(digits) - i);
}

// utf8_len returns the length of the valid UTF-8 sequence at s, 0 if there is
// none (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF).
static size_t utf8_len(const unsigned char *s, size_t n)
{
	size_t len;
	unsigned char low = 0x80, high = 0xbf;

	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		len = 2;
	else if (s[0] >= 0xe0 && s[0] <= 0xef)
		len = 3;
	else if (s[0] >= 0xf0 && s[0] <= 0xf4)
		len = 4;
	else
		return 0;
	if (n < len)
		return 0;

	switch (s[0]) {
	case 0xe0: low = 0xa0; break;
	case 0xed: high = 0x9f; break;
	case 0xf0: low = 0x90; break;
	case 0xf4: high = 0x8f; break;
	}
	if (s[1] < low || s[1] > high)
		return 0;
	for (size_t i = 2; i < len; i++)
		if (s[i] < 0x80 || s[i] > 0xbf)
			return 0;
	return len;
}

static void json_ascii(struct text *t, char c)
{
	static const char hex[] = "0123456789abcdef";

	switch (c) {
	case '"': text_str(t, "\\\""); return;
	case '\\': text_str(t, "\\\\"); return;
	case '\n': text_str(t, "\\n"); return;
	case '\r': text_str(t, "\\r"); return;
	case '\t': text_str(t, "\\t"); return;
	}
	if ((unsigned char)c >= 0x20 && c != 0x7f) {
		text_char(t, c);
		return;
	}
	text_str(t, "\\u00");
	text_char(t, hex[(unsigned char)c >> 4]);
	text_char(t, hex[c & 15]);
}

void text_json_str(struct text *t, const char *s, size_t n)
{
	text_char(t, '"');
	while (n > 0) {
		size_t len = utf8_len((const unsigned char *)s, n);

		if (len == 0) {
			text_str(t, "\\ufffd");
			len = 1;
		} else if (len == 1) {
			json_ascii(t, *s);
		} else {
			text_bytes(t, s, len);
		}
		s += len;
		n -= len;
	}
	text_char(t, '"');
}

bool text_to_uint(const char *s, size_t n, uint64_t *out)
{
	uint64_t value = 0;

	if (n == 0)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (s[i] < '0' || s[i] > '9')
			return false;
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(s[i] - '0'), &value))
			return false;
	}
	*out = value;
	return true;
}
