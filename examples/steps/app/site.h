// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// The pages. The data never changes after the start, so each page is rendered
// once and shared by all connections: an answer costs no memory.
#ifndef STEPS_SITE_H
#define STEPS_SITE_H

#include "http.h"
#include "stats.h"

struct page {
	const char *path;
	const char *type;
	int status;
	const char *body;
	size_t len;
};

enum { SITE_PAGES = 5 };

struct site {
	struct page pages[SITE_PAGES];
};

// strings is a list such as argv or environ without a NULL at its end.
struct strings {
	char *const *at;
	size_t count;
};

// response is an answer ready to be sent: head, then body, then perhaps the end
// of the connection.
struct response {
	char head[256];
	size_t head_len;
	const char *body;
	size_t body_len;
	bool close;
};

// site_build renders /average, /top, /healthz, /env and /args. stats is NULL
// where there is no data. Of an environment variable given twice the last one
// counts. False: alloc had no memory left.
bool site_build(struct site *site, const struct stats *stats, struct strings env,
		struct strings args, alloc_fn *alloc);

void site_answer(const struct site *site, const struct http_request *q, struct response *r);

#endif
