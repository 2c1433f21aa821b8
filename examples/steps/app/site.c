// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

#include "site.h"

#include <string.h>

static const char JSON[] = "application/json";
static const char PLAIN[] = "text/plain; charset=utf-8";

// source is all that a page may be made of.
struct source {
	const struct stats *stats;
	struct strings env, args;
};

typedef void render_fn(struct text *t, const struct source *from);

static void render_user(struct text *t, const struct user *u)
{
	text_str(t, "{\"id\":\"");
	text_uint(t, u->id);
	text_str(t, "\",\"days\":");
	text_uint(t, u->days);
	text_str(t, ",\"average\":");
	stats_average(t, u);
	text_char(t, '}');
}

static void render_average(struct text *t, const struct source *from)
{
	text_str(t, "{\"users\":[");
	for (size_t i = 0; i < from->stats->count; i++) {
		if (i > 0)
			text_char(t, ',');
		render_user(t, &from->stats->users[i]);
	}
	text_str(t, "]}\n");
}

static void render_top(struct text *t, const struct source *from)
{
	render_user(t, stats_top(from->stats));
	text_char(t, '\n');
}

static void render_no_data(struct text *t, const struct source *from)
{
	(void)from;
	text_str(t, "{\"error\":\"no data\"}\n");
}

static void render_ok(struct text *t, const struct source *from)
{
	(void)from;
	text_str(t, "ok\n");
}

static size_t name_len(const char *variable)
{
	const char *equals = strchr(variable, '=');

	return equals ? (size_t)(equals - variable) : strlen(variable);
}

static bool set_again(struct strings env, size_t i)
{
	size_t len = name_len(env.at[i]);

	for (size_t k = i + 1; k < env.count; k++)
		if (name_len(env.at[k]) == len && memcmp(env.at[k], env.at[i], len) == 0)
			return true;
	return false;
}

static void render_env(struct text *t, const struct source *from)
{
	const char *separator = "";

	text_char(t, '{');
	for (size_t i = 0; i < from->env.count; i++) {
		const char *variable = from->env.at[i];
		size_t len = name_len(variable);
		const char *value = variable[len] ? variable + len + 1 : "";

		if (set_again(from->env, i))
			continue;
		text_str(t, separator);
		separator = ",";
		text_json_str(t, variable, len);
		text_char(t, ':');
		text_json_str(t, value, strlen(value));
	}
	text_str(t, "}\n");
}

static void render_args(struct text *t, const struct source *from)
{
	text_char(t, '[');
	for (size_t i = 0; i < from->args.count; i++) {
		if (i > 0)
			text_char(t, ',');
		text_json_str(t, from->args.at[i], strlen(from->args.at[i]));
	}
	text_str(t, "]\n");
}

static bool render(struct page *p, render_fn *fn, const struct source *from, alloc_fn *alloc)
{
	struct text t = { 0 };

	fn(&t, from); // measures
	t.buf = alloc(t.len);
	if (!t.buf)
		return false;
	t.cap = t.len;
	t.len = 0;
	fn(&t, from);
	p->body = t.buf;
	p->len = t.len;
	return true;
}

bool site_build(struct site *site, const struct stats *stats, struct strings env,
		struct strings args, alloc_fn *alloc)
{
	const struct source from = { stats, env, args };
	bool has_top = stats && stats->count > 0;
	const struct {
		const char *path, *type;
		int status;
		render_fn *fn;
	} pages[SITE_PAGES] = {
		{ "/average", JSON, stats ? 200 : 503, stats ? render_average : render_no_data },
		{ "/top", JSON, has_top ? 200 : 503, has_top ? render_top : render_no_data },
		{ "/healthz", PLAIN, 200, render_ok },
		{ "/env", JSON, 200, render_env },
		{ "/args", JSON, 200, render_args },
	};

	for (size_t i = 0; i < SITE_PAGES; i++) {
		struct page *p = &site->pages[i];

		p->path = pages[i].path;
		p->type = pages[i].type;
		p->status = pages[i].status;
		if (!render(p, pages[i].fn, &from, alloc))
			return false;
	}
	return true;
}

static const struct page *find_page(const struct site *site, const struct http_request *q)
{
	for (size_t i = 0; i < SITE_PAGES; i++) {
		const struct page *p = &site->pages[i];

		if (q->path_len == strlen(p->path) && memcmp(q->path, p->path, q->path_len) == 0)
			return p;
	}
	return NULL;
}

static struct page error_page(int status)
{
	struct page p = { .type = PLAIN, .status = status, .body = http_reason(status) };

	p.len = strlen(p.body);
	return p;
}

static void write_head(struct response *r, const struct page *p)
{
	struct text t = { .buf = r->head, .cap = sizeof(r->head) };

	text_str(&t, "HTTP/1.1 ");
	text_uint(&t, (uint64_t)p->status);
	text_char(&t, ' ');
	text_str(&t, http_reason(p->status));
	text_str(&t, "\r\nContent-Type: ");
	text_str(&t, p->type);
	text_str(&t, "\r\nContent-Length: ");
	text_uint(&t, p->len);
	if (p->status == 405)
		text_str(&t, "\r\nAllow: GET, HEAD");
	text_str(&t, r->close ? "\r\nConnection: close" : "\r\nConnection: keep-alive");
	text_str(&t, "\r\n\r\n");
	r->head_len = t.len;
}

void site_answer(const struct site *site, const struct http_request *q, struct response *r)
{
	const struct page *found = NULL;
	struct page p;

	if (q->status)
		p = error_page(q->status);
	else if (q->method == HTTP_OTHER)
		p = error_page(405);
	else if ((found = find_page(site, q)))
		p = *found;
	else
		p = error_page(404);

	r->close = !q->keep_alive;
	r->body = p.body;
	r->body_len = q->status == 0 && q->method == HTTP_HEAD ? 0 : p.len;
	write_head(r, &p);
}
