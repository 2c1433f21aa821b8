// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

#include "../app/http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"

static const char *methods[] = { "GET", "HEAD", "other" };

// feed gives the reader input in pieces of step bytes and writes "METHOD path
// keep|close" or the status of each request that comes out.
static void feed(const char *input, size_t len, size_t step, char *got, size_t cap)
{
	struct http_reader *r = calloc(1, sizeof(*r));
	size_t out = 0, at = 0;

	got[0] = '\0';
	while (at < len) {
		size_t n = len - at < step ? len - at : step;
		char *piece = memcpy(malloc(n), input + at, n);
		bool done;
		size_t taken = http_read(r, piece, n, &done);
		const struct http_request *q = &r->request;

		free(piece);
		CHECK(taken <= n && (taken == n || done), "took %zu of %zu", taken, n);
		at += taken;
		if (!done)
			continue;
		if (q->status) {
			snprintf(got + out, cap - out, "%d;", q->status);
			break;
		}
		out += (size_t)snprintf(got + out, cap - out, "%s %.*s %s;", methods[q->method],
					(int)q->path_len, q->path, q->keep_alive ? "keep" : "close");
	}
	free(r);
}

static void test_requests(void)
{
	static const struct {
		const char *in, *want;
	} cases[] = {
		{ "GET /a HTTP/1.1\r\nHost: x\r\n\r\n", "GET /a keep;" },
		{ "GET /a HTTP/1.1\nHost: x\n\n", "GET /a keep;" },
		{ "\r\n\r\nHEAD / HTTP/1.1\r\nHost:\r\n\r\n", "HEAD / keep;" },
		{ "GET /a?b=c HTTP/1.1\r\nhOSt: x\r\nConnection: Foo, CLOSE\r\n\r\n", "GET /a close;" },
		{ "GET /a HTTP/1.0\r\n\r\n", "GET /a close;" },
		{ "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET /a keep;" },
		{ "GET http://h:1/a/b HTTP/1.1\r\nHost: h\r\n\r\n", "GET /a/b keep;" },
		{ "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n",
		  "GET /1 keep;GET /2 keep;" },
		{ "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab\ncdGET /2 HTTP/1.1\r\nHost: x\r\n\r\n",
		  "other /p keep;GET /2 keep;" },
		{ "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "other * keep;" },
		{ "get / HTTP/1.1\r\nHost: x\r\n\r\n", "other / keep;" },
		// malformed
		{ "GET /a HTTP/1.1\r\n\r\n", "400;" },
		{ "GET /a\r\n\r\n", "400;" },
		{ "GET  /a HTTP/1.1\r\nHost: x\r\n\r\n", "400;" },
		{ "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", "400;" },
		{ "GET a HTTP/1.1\r\nHost: x\r\n\r\n", "400;" },
		{ "GET http://h HTTP/1.1\r\nHost: x\r\n\r\n", "400;" },
		{ "GET /a HTTP/1.x\r\nHost: x\r\n\r\n", "400;" },
		{ "GET /a HTTP/2.0\r\nHost: x\r\n\r\n", "505;" },
		{ "GET /a HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", "400;" },
		{ "GET /a HTTP/1.1\r\nHost: x\r\nName : v\r\n\r\n", "400;" },
		{ "GET /a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "400;" },
		{ "GET /a HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", "400;" },
		{ "G(T /a HTTP/1.1\r\nHost: x\r\n\r\n", "400;" },
		{ "\x16\x03\x01\x02\n\n", "400;" },
		{ "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "400;" },
		{ "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", "400;" },
		{ "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", "413;" },
		{ "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "501;" },
		// not yet complete
		{ "GET /a HTTP/1.1\r\nHost: x\r\n", "" },
		{ "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcd", "" },
	};
	static const size_t steps[] = { 1, 2, 7, 4096 };
	char got[512];

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		for (size_t s = 0; s < sizeof(steps) / sizeof(*steps); s++) {
			feed(cases[i].in, strlen(cases[i].in), steps[s], got, sizeof(got));
			CHECK(strcmp(got, cases[i].want) == 0, "%s, want %s, for %s", got,
			      cases[i].want, cases[i].in);
		}
}

static void test_too_long(void)
{
	static char in[HTTP_HEAD_MAX + 100];
	char got[64];

	memset(in, 'a', sizeof(in));
	memcpy(in, "GET /", 5);
	feed(in, sizeof(in), 1000, got, sizeof(got));
	CHECK(strcmp(got, "431;") == 0, "%s", got);
}

// test_noise is for the sanitizers: it must only not go wrong.
static void test_noise(void)
{
	static const char alphabet[] = "GET /HTTP1.: \r\n\r\n\t,?a\x80";
	char in[300], got[8192];
	uint32_t state = 1;

	for (int round = 0; round < 2000; round++) {
		for (size_t i = 0; i < sizeof(in); i++) {
			state = state * 1664525 + 1013904223;
			in[i] = alphabet[(state >> 16) % sizeof(alphabet)];
		}
		if (round % 2)
			memcpy(in, "GET / HTTP/1.1\r\n", 16);
		feed(in, sizeof(in), 1 + (size_t)round % 64, got, sizeof(got));
	}
}

void test_http(void)
{
	test_requests();
	test_too_long();
	test_noise();
}
