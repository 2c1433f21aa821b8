// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// HTTP/1.1 (RFC 9112) as far as a server of fixed pages needs it. Bytes in,
// requests out: who carries the bytes is not known here.
#ifndef STEPS_HTTP_H
#define STEPS_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	HTTP_HEAD_MAX = 4096,      // request line and header fields together
	HTTP_BODY_MAX = 64 * 1024, // of a request; it is read and dropped
};

enum http_method { HTTP_GET, HTTP_HEAD, HTTP_OTHER };

struct http_request {
	int status;              // 0, or what to answer because it cannot be served
	enum http_method method;
	const char *path;        // without the query; valid until the next http_read
	size_t path_len;
	bool keep_alive;
};

// http_reader is the state of one connection. All zero is the start.
struct http_reader {
	size_t len;    // bytes in head
	uint64_t body; // bytes of the request's body still to come
	bool has_head; // head is complete, the body is awaited
	struct http_request request;
	char head[HTTP_HEAD_MAX];
};

// http_read takes bytes of a connection up to the end of a request and returns
// how many it took. When *done is set, r->request is complete; read on after
// it is answered. A request with a status ends the connection.
size_t http_read(struct http_reader *r, const char *data, size_t len, bool *done);

// http_reason returns the reason phrase of the statuses used here.
const char *http_reason(int status);

#endif
