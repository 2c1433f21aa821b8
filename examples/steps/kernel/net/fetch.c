// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// One request to somebody else: name lookup, connection, HTTP. What came of it
// is printed.

#include <string.h>

#include "lwip/dns.h"
#include "lwip/tcp.h"

#include "../../app/options.h"
#include "../../app/text.h"
#include "../kernel.h"
#include "net.h"

enum { HOST_MAX = 128, LINE_MAX = 80, HTTP_PORT = 80 };

static struct {
	const char *url;
	char host[HOST_MAX];
	uint16_t port;
	const char *path;
	char line[LINE_MAX]; // the answer's first
	size_t line_len;
	size_t bytes;
	bool line_ended;
} fetch;

static void failed(const char *why)
{
	print("steps: fetch %s: %s\n", fetch.url, why);
}

// parse_url takes http://HOST[:PORT][/PATH], an IPv6 address in brackets.
static bool parse_url(const char *url)
{
	const char *scheme = "http://", *host, *end;
	uint64_t port = HTTP_PORT;

	fetch.url = url;
	if (strncmp(url, scheme, strlen(scheme)) != 0)
		return false;
	host = url + strlen(scheme);
	fetch.path = strchr(host, '/');
	if (!fetch.path)
		fetch.path = url + strlen(url);
	end = memchr(host, ']', (size_t)(fetch.path - host));
	if (*host == '[' && end) {
		host++;
		url = end + 1;
	} else {
		end = memchr(host, ':', (size_t)(fetch.path - host));
		url = end = end ? end : fetch.path;
	}
	if ((size_t)(end - host) >= sizeof(fetch.host) || end == host)
		return false;
	memcpy(fetch.host, host, (size_t)(end - host));
	if (*url == ':' && (!text_to_uint(url + 1, (size_t)(fetch.path - url - 1), &port) ||
			    port < 1 || port > 65535))
		return false;
	fetch.port = (uint16_t)port;
	return *url == ':' || url == fetch.path;
}

static void take(const char *bytes, size_t len)
{
	fetch.bytes += len;
	for (size_t i = 0; i < len && !fetch.line_ended; i++) {
		fetch.line_ended = bytes[i] == '\r' || bytes[i] == '\n' ||
				   fetch.line_len == LINE_MAX - 1;
		if (!fetch.line_ended)
			fetch.line[fetch.line_len++] = bytes[i];
	}
}

static err_t on_receive(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err)
{
	(void)arg;
	(void)err;
	if (!p) {
		print("steps: fetched %s: %s, %lu bytes in all\n", fetch.url, fetch.line,
		      fetch.bytes);
		tcp_err(pcb, NULL);
		tcp_close(pcb);
		return ERR_OK;
	}
	for (struct pbuf *part = p; part; part = part->next)
		take(part->payload, part->len);
	tcp_recved(pcb, p->tot_len);
	pbuf_free(p);
	return ERR_OK;
}

static void on_error(void *arg, err_t err)
{
	(void)arg;
	failed(err == ERR_RST ? "refused" : "no connection");
}

static err_t on_connected(void *arg, struct tcp_pcb *pcb, err_t err)
{
	const char *parts[] = { "GET ", *fetch.path ? fetch.path : "/", " HTTP/1.0\r\nHost: ",
				fetch.host, "\r\n\r\n" };

	(void)arg;
	(void)err;
	for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++)
		if (tcp_write(pcb, parts[i], (u16_t)strlen(parts[i]), TCP_WRITE_FLAG_COPY) != ERR_OK)
			failed("out of memory");
	tcp_output(pcb);
	return ERR_OK;
}

static void on_found(const char *name, const ip_addr_t *address, void *arg)
{
	struct tcp_pcb *pcb;

	(void)name;
	(void)arg;
	if (!address) {
		failed("no DNS server knows the name");
		return;
	}
	pcb = tcp_new_ip_type(IP_GET_TYPE(address));
	if (!pcb) {
		failed("out of memory");
		return;
	}
	tcp_recv(pcb, on_receive);
	tcp_err(pcb, on_error);
	if (tcp_connect(pcb, address, fetch.port, on_connected) != ERR_OK)
		failed("no route");
}

bool fetch_start(const char *url)
{
	ip_addr_t address;
	err_t err;

	if (!parse_url(url))
		return false;
	err = dns_gethostbyname(fetch.host, &address, on_found, NULL);
	if (err == ERR_OK)
		on_found(fetch.host, &address, NULL);
	else if (err != ERR_INPROGRESS)
		failed("no DNS server is known");
	return true;
}
