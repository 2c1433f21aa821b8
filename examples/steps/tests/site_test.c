// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

#include "../app/site.h"

#include <string.h>

#include "../app/options.h"
#include "test.h"

static char *env[] = { "A=1", "B=x \"y\"", "A=2", "EMPTY=", "NAKED" };
static char *args[] = { "one", "t\\wo" };

static struct response answer(const struct site *site, int status, enum http_method method,
			      const char *path)
{
	struct http_request q = { status, method, path, strlen(path), true };
	struct response r;

	if (status)
		q.keep_alive = false;
	site_answer(site, &q, &r);
	return r;
}

static void build(struct site *site, const char *csv)
{
	static struct stats stats;
	const struct strings e = { env, 5 }, a = { args, 2 };

	if (csv)
		CHECK(stats_read(&stats, csv, strlen(csv), test_alloc), "no memory");
	CHECK(site_build(site, csv ? &stats : NULL, e, a, test_alloc), "no memory");
}

static void test_pages(void)
{
	static const struct {
		const char *path;
		int status;
		enum http_method method;
		const char *head, *body;
	} cases[] = {
		{ "/healthz", 0, HTTP_GET, "HTTP/1.1 200 OK\r\n", "ok\n" },
		{ "/healthz", 0, HTTP_HEAD, "HTTP/1.1 200 OK\r\n", "" },
		{ "/average", 0, HTTP_GET, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n",
		  "{\"users\":[{\"id\":\"3\",\"days\":2,\"average\":1.50},"
		  "{\"id\":\"9\",\"days\":1,\"average\":8.00}]}\n" },
		{ "/top", 0, HTTP_GET, "HTTP/1.1 200 OK\r\n",
		  "{\"id\":\"9\",\"days\":1,\"average\":8.00}\n" },
		{ "/env", 0, HTTP_GET, "HTTP/1.1 200 OK\r\n",
		  "{\"B\":\"x \\\"y\\\"\",\"A\":\"2\",\"EMPTY\":\"\",\"NAKED\":\"\"}\n" },
		{ "/args", 0, HTTP_GET, "HTTP/1.1 200 OK\r\n", "[\"one\",\"t\\\\wo\"]\n" },
		{ "/nope", 0, HTTP_GET, "HTTP/1.1 404 Not Found\r\n", "Not Found" },
		{ "/top/", 0, HTTP_GET, "HTTP/1.1 404 Not Found\r\n", "Not Found" },
		{ "/top", 0, HTTP_OTHER, "HTTP/1.1 405 Method Not Allowed\r\n", "Method Not Allowed" },
		{ "/top", 400, HTTP_HEAD, "HTTP/1.1 400 Bad Request\r\n", "Bad Request" },
	};
	struct site site;

	build(&site, "9,d,8\n3,d,1\n3,d,2\n");
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct response r =
			answer(&site, cases[i].status, cases[i].method, cases[i].path);

		CHECK(r.head_len < sizeof(r.head), "a head of %zu bytes", r.head_len);
		CHECK(memcmp(r.head, cases[i].head, strlen(cases[i].head)) == 0, "%.*s",
		      (int)r.head_len, r.head);
		CHECK(memcmp(r.head + r.head_len - 4, "\r\n\r\n", 4) == 0, "%s", cases[i].path);
		CHECK(r.body_len == strlen(cases[i].body) &&
			      memcmp(r.body, cases[i].body, r.body_len) == 0,
		      "%.*s, want %s", (int)r.body_len, r.body, cases[i].body);
		CHECK(r.close == (cases[i].status != 0), "%s", cases[i].path);
	}
}

static void test_no_data(void)
{
	static const char *paths[] = { "/average", "/top" };
	struct site site;

	build(&site, NULL);
	for (size_t i = 0; i < 2; i++) {
		struct response r = answer(&site, 0, HTTP_GET, paths[i]);

		CHECK(memcmp(r.head, "HTTP/1.1 503 ", 13) == 0, "%.*s", (int)r.head_len, r.head);
	}
	build(&site, "Id,ActivityDate,TotalSteps\n");
	CHECK(answer(&site, 0, HTTP_GET, "/average").body_len == strlen("{\"users\":[]}\n"), "users");
	CHECK(memcmp(answer(&site, 0, HTTP_GET, "/top").head, "HTTP/1.1 503 ", 13) == 0, "top");
}

void test_site(void)
{
	test_pages();
	test_no_data();
}

void test_options(void)
{
	static const struct {
		char *env, *arg;
		bool ok;
		uint16_t port, echo;
	} cases[] = {
		{ "X=1", "x", true, 8080, 0 },
		{ "PORT=90", "x", true, 90, 0 },
		{ "NOMAD_PORT_http=91", "x", true, 91, 0 },
		{ "PORT=90", "--port=92", true, 92, 0 },
		{ "NOMAD_PORT_echo=7", "x", true, 8080, 7 },
		{ "NOMAD_PORT_echo=7", "--udp-echo=8", true, 8080, 8 },
		{ "PORTS=90", "--ports=92", true, 8080, 0 },
		{ "PORT=", "x", false, 0, 0 },
		{ "PORT=0", "x", false, 0, 0 },
		{ "PORT=65536", "x", false, 0, 0 },
		{ "X=1", "--port", false, 0, 0 },
		{ "X=1", "--udp-echo=a", false, 0, 0 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char *e[] = { cases[i].env }, *a[] = { cases[i].arg };
		struct options o;
		bool ok = options_read(&o, (struct strings){ e, 1 }, (struct strings){ a, 1 });

		CHECK(ok == cases[i].ok, "%s %s", cases[i].env, cases[i].arg);
		CHECK(ok == !o.bad_name, "%s %s", cases[i].env, cases[i].arg);
		CHECK(!ok || (o.port == cases[i].port && o.udp_echo == cases[i].echo), "%s %s",
		      cases[i].env, cases[i].arg);
	}
}
