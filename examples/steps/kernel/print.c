// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

#include <string.h>

#include "../app/text.h"
#include "kernel.h"

enum { LINE_MAX = 1024 };

struct spec {
	bool zero;
	size_t width;
	int precision; // -1: none
	int longs;     // l or ll or z: 64 bits on both architectures
};

static void pad(struct text *t, size_t len, size_t width, char c)
{
	for (; len < width; len++)
		text_char(t, c);
}

static void put_number(struct text *t, struct spec s, uint64_t n, bool negative, unsigned base)
{
	char digits[20];
	size_t i = sizeof(digits), len;

	do {
		digits[--i] = "0123456789abcdef"[n % base];
		n /= base;
	} while (n);
	len = sizeof(digits) - i + negative;
	if (!s.zero)
		pad(t, len, s.width, ' ');
	if (negative)
		text_char(t, '-');
	if (s.zero)
		pad(t, len, s.width, '0');
	text_bytes(t, digits + i, sizeof(digits) - i);
}

static const char *parse_spec(struct spec *s, const char *f, va_list *ap)
{
	*s = (struct spec){ .precision = -1 };
	if (*f == '0')
		s->zero = true;
	while (*f >= '0' && *f <= '9')
		s->width = s->width * 10 + (size_t)(*f++ - '0');
	if (f[0] == '.' && f[1] == '*') {
		s->precision = va_arg(*ap, int);
		f += 2;
	}
	while (*f == 'l' || *f == 'z') {
		s->longs++;
		f++;
	}
	return f;
}

static void put_string(struct text *t, struct spec s, const char *value)
{
	size_t len = s.precision >= 0 ? strnlen(value, (size_t)s.precision) : strlen(value);

	pad(t, len, s.width, ' ');
	text_bytes(t, value, len);
}

static void put_conversion(struct text *t, struct spec s, char conversion, va_list *ap)
{
	int64_t n;

	switch (conversion) {
	case 'd':
		n = s.longs ? va_arg(*ap, long) : va_arg(*ap, int);
		put_number(t, s, n < 0 ? -(uint64_t)n : (uint64_t)n, n < 0, 10);
		break;
	case 'u':
	case 'x':
		put_number(t, s, s.longs ? va_arg(*ap, unsigned long) : va_arg(*ap, unsigned),
			   false, conversion == 'u' ? 10 : 16);
		break;
	case 's':
		put_string(t, s, va_arg(*ap, const char *));
		break;
	case 'c':
		text_char(t, (char)va_arg(*ap, int));
		break;
	default:
		text_char(t, conversion);
	}
}

static void format_text(struct text *t, const char *format, va_list *ap)
{
	for (const char *f = format; *f; f++) {
		struct spec s;

		if (*f != '%') {
			text_char(t, *f);
			continue;
		}
		f = parse_spec(&s, f + 1, ap);
		if (!*f)
			return;
		put_conversion(t, s, *f, ap);
	}
}

// write_lines ends lines in CR LF, as serial terminals and Unikraft want it.
static void write_lines(const char *s, size_t len)
{
	while (len > 0) {
		const char *lf = memchr(s, '\n', len);
		size_t n = lf ? (size_t)(lf - s) : len;

		console_write(s, n);
		if (!lf)
			return;
		console_write("\r\n", 2);
		s += n + 1;
		len -= n + 1;
	}
}

static void flush(const struct text *t)
{
	write_lines(t->buf, t->len < t->cap ? t->len : t->cap);
	if (t->len > t->cap)
		write_lines("…\n", strlen("…\n"));
}

void print(const char *format, ...)
{
	char buf[LINE_MAX];
	struct text t = { .buf = buf, .cap = sizeof(buf) };
	va_list ap;

	va_start(ap, format);
	format_text(&t, format, &ap);
	va_end(ap);
	flush(&t);
}

void print_log(const char *level, const char *lib, const char *file, int line,
	       const char *format, ...)
{
	uint64_t now = clock_ns();
	char buf[LINE_MAX];
	struct text t = { .buf = buf, .cap = sizeof(buf) };
	va_list ap;

	print("[%5lu.%06lu] %s[%s] <%s @ %4u> ", (unsigned long)(now / NS_PER_SEC),
	      (unsigned long)(now % NS_PER_SEC / 1000), level, lib, file, (unsigned)line);
	va_start(ap, format);
	format_text(&t, format, &ap);
	va_end(ap);
	flush(&t);
}
