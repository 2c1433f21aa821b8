// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

#include "http.h"

#include <string.h>

#include "text.h"

struct slice {
	const char *at;
	size_t len;
};

// fields are the header fields that matter here.
struct fields {
	bool host, close, keep_alive;
	bool has_length;
	uint64_t length;
};

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c + 'a' - 'A') : c;
}

static bool is_word(struct slice s, const char *word)
{
	if (s.len != strlen(word))
		return false;
	for (size_t i = 0; i < s.len; i++)
		if (lower(s.at[i]) != word[i])
			return false;
	return true;
}

// is_token tells whether s is a token of RFC 9110, 5.6.2.
static bool is_token(struct slice s)
{
	for (size_t i = 0; i < s.len; i++) {
		char c = s.at[i];

		if (c <= ' ' || c >= 0x7f || strchr("\"(),/:;<=>?@[\\]{}", c))
			return false;
	}
	return s.len > 0;
}

static struct slice cut(struct slice *rest, char separator)
{
	struct slice s = *rest;
	const char *end = memchr(rest->at, separator, rest->len);

	if (!end) {
		rest->at += rest->len;
		rest->len = 0;
		return s;
	}
	s.len = (size_t)(end - s.at);
	rest->at += s.len + 1;
	rest->len -= s.len + 1;
	return s;
}

static struct slice trim(struct slice s)
{
	while (s.len && (*s.at == ' ' || *s.at == '\t'))
		s.at++, s.len--;
	while (s.len && (s.at[s.len - 1] == ' ' || s.at[s.len - 1] == '\t'))
		s.len--;
	return s;
}

static struct slice next_line(struct slice *rest)
{
	struct slice line = cut(rest, '\n');

	if (line.len && line.at[line.len - 1] == '\r')
		line.len--;
	return line;
}

// parse_target sets the path: of /path?query, or of http://host/path?query.
static bool parse_target(struct http_request *q, struct slice target)
{
	if (target.len > 7 && memcmp(target.at, "http://", 7) == 0) {
		const char *slash = memchr(target.at + 7, '/', target.len - 7);

		if (!slash)
			return false;
		target.len -= (size_t)(slash - target.at);
		target.at = slash;
	}
	if (target.len == 0)
		return false;
	for (size_t i = 0; i < target.len; i++)
		if ((unsigned char)target.at[i] <= ' ' || target.at[i] == 0x7f)
			return false;
	target = cut(&target, '?');
	q->path = target.at;
	q->path_len = target.len;
	// "*" and "host:port" belong to methods that are not served.
	return target.at[0] == '/' || q->method == HTTP_OTHER;
}

// parse_request_line returns 0 or the status to answer.
static int parse_request_line(struct http_request *q, struct slice line)
{
	struct slice method = cut(&line, ' ');
	struct slice target = cut(&line, ' ');

	if (!is_token(method))
		return 400;
	q->method = HTTP_OTHER;
	if (method.len == 3 && memcmp(method.at, "GET", 3) == 0)
		q->method = HTTP_GET;
	if (method.len == 4 && memcmp(method.at, "HEAD", 4) == 0)
		q->method = HTTP_HEAD;
	if (!parse_target(q, target))
		return 400;
	if (line.len != 8 || memcmp(line.at, "HTTP/", 5) != 0 || line.at[6] != '.')
		return 400;
	if (line.at[5] != '1')
		return line.at[5] >= '0' && line.at[5] <= '9' ? 505 : 400;
	if (line.at[7] < '0' || line.at[7] > '9')
		return 400;
	q->keep_alive = line.at[7] != '0';
	return 0;
}

static void parse_connection(struct fields *f, struct slice value)
{
	while (value.len) {
		struct slice option = trim(cut(&value, ','));

		if (is_word(option, "close"))
			f->close = true;
		if (is_word(option, "keep-alive"))
			f->keep_alive = true;
	}
}

static int parse_field(struct fields *f, struct slice line)
{
	struct slice name = { line.at, 0 }, value = line;
	uint64_t length;

	if (!memchr(line.at, ':', line.len))
		return 400;
	name = cut(&value, ':');
	value = trim(value);
	if (!is_token(name))
		return 400;

	if (is_word(name, "host")) {
		if (f->host)
			return 400;
		f->host = true;
	} else if (is_word(name, "connection")) {
		parse_connection(f, value);
	} else if (is_word(name, "transfer-encoding")) {
		return 501;
	} else if (is_word(name, "content-length")) {
		if (!text_to_uint(value.at, value.len, &length))
			return 400;
		// Two different lengths are how requests are smuggled.
		if (f->has_length && f->length != length)
			return 400;
		f->has_length = true;
		f->length = length;
	}
	return 0;
}

static int parse_head(struct http_reader *r)
{
	struct slice rest = { r->head, r->len };
	struct http_request *q = &r->request;
	struct fields f = { 0 };
	int status = parse_request_line(q, next_line(&rest));

	while (status == 0) {
		struct slice line = next_line(&rest);

		if (line.len == 0)
			break;
		status = parse_field(&f, line);
	}
	if (status)
		return status;
	if (q->keep_alive && !f.host) // HTTP/1.1 requires it
		return 400;
	if (f.length > HTTP_BODY_MAX)
		return 413;
	q->keep_alive = !f.close && (q->keep_alive || f.keep_alive);
	r->body = f.length;
	return 0;
}

// at_end tells whether head holds all up to its empty line.
static bool at_end(const struct http_reader *r)
{
	const char *end = r->head + r->len;

	if (r->len >= 2 && end[-1] == '\n' && end[-2] == '\n')
		return true;
	return r->len >= 3 && end[-1] == '\n' && end[-2] == '\r' && end[-3] == '\n';
}

static void fail(struct http_reader *r, int status, bool *done)
{
	r->request.status = status;
	r->request.keep_alive = false;
	*done = true;
}

static size_t skip_body(struct http_reader *r, size_t len, bool *done)
{
	size_t n = len < r->body ? len : (size_t)r->body;

	r->body -= n;
	if (r->body == 0)
		*done = true;
	return n;
}

size_t http_read(struct http_reader *r, const char *data, size_t len, bool *done)
{
	size_t taken = 0;

	*done = false;
	if (r->has_head && r->body == 0) { // the one before was answered
		r->len = 0;
		r->has_head = false;
	}
	while (!r->has_head && taken < len) {
		char c = data[taken++];

		if (r->len == 0 && (c == '\r' || c == '\n'))
			continue; // empty lines before a request are allowed
		if (r->len == HTTP_HEAD_MAX) {
			fail(r, 431, done);
			return taken;
		}
		r->head[r->len++] = c;
		if (c != '\n' || !at_end(r))
			continue;
		memset(&r->request, 0, sizeof(r->request));
		r->has_head = true;
		r->body = 0;
		int status = parse_head(r);
		if (status) {
			fail(r, status, done);
			return taken;
		}
	}
	if (r->has_head)
		taken += skip_body(r, len - taken, done);
	return taken;
}

const char *http_reason(int status)
{
	switch (status) {
	case 200: return "OK";
	case 400: return "Bad Request";
	case 404: return "Not Found";
	case 405: return "Method Not Allowed";
	case 413: return "Content Too Large";
	case 431: return "Request Header Fields Too Large";
	case 501: return "Not Implemented";
	case 503: return "Service Unavailable";
	case 505: return "HTTP Version Not Supported";
	}
	return "Error";
}
