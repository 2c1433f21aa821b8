// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// The HTTP server on lwIP's raw API. Memory is bounded: a fixed number of
// connections, of which a new one replaces the one that was idle the longest,
// and pages that are sent from where they are.

#include <string.h>

#include "lwip/tcp.h"

#include "../kernel.h"
#include "net.h"

enum {
	MAX_CONNECTIONS = 128,
	POLL_INTERVAL = 2,    // of tcp_poll: x 500 ms
	IDLE_SECONDS = 60,    // without a byte in either direction
	LINGER_SECONDS = 5,   // for the peer's end after ours
};

struct connection {
	struct tcp_pcb *pcb;     // NULL: free
	struct pbuf *in;         // received, not yet read
	size_t in_offset;        // read of the first buffer of in
	size_t sent;             // bytes of out handed to lwIP
	bool answering;
	bool closing;            // our end is sent
	bool ended;              // the peer's end has come; it may still read
	uint64_t active_ns;      // when it last moved
	struct http_reader reader;
	struct response out;
};

static struct connection *connections;
static const struct site *served;

static void release(struct connection *c)
{
	if (c->in)
		pbuf_free(c->in);
	c->in = NULL;
	c->pcb = NULL;
}

static void detach(struct connection *c)
{
	tcp_arg(c->pcb, NULL);
	tcp_recv(c->pcb, NULL);
	tcp_sent(c->pcb, NULL);
	tcp_err(c->pcb, NULL);
	tcp_poll(c->pcb, NULL, 0);
}

// drop resets the connection.
static void drop(struct connection *c)
{
	struct tcp_pcb *pcb = c->pcb;

	detach(c);
	release(c);
	tcp_abort(pcb);
}

// discard reads on without looking, so that the end of our answer is not cut off
// by a reset for unread data.
static void discard(struct connection *c)
{
	if (!c->in)
		return;
	tcp_recved(c->pcb, (u16_t)(c->in->tot_len - c->in_offset));
	pbuf_free(c->in);
	c->in = NULL;
	c->in_offset = 0;
}

// push hands bytes [from, len) to lwIP, as many as it takes, and returns how many.
static size_t push(struct connection *c, const char *bytes, size_t len, u8_t flags)
{
	size_t done = 0;

	while (done < len) {
		size_t n = len - done, room = tcp_sndbuf(c->pcb);

		if (n > room)
			n = room;
		if (n == 0 || tcp_write(c->pcb, bytes + done, (u16_t)n, flags) != ERR_OK)
			break;
		done += n;
	}
	return done;
}

// send_more returns true when the whole answer is with lwIP.
static bool send_more(struct connection *c)
{
	struct response *r = &c->out;
	u8_t more = r->body_len ? TCP_WRITE_FLAG_MORE : 0;

	if (c->sent < r->head_len)
		c->sent += push(c, r->head + c->sent, r->head_len - c->sent,
				TCP_WRITE_FLAG_COPY | more);
	if (c->sent >= r->head_len) {
		size_t body_sent = c->sent - r->head_len;

		// Pages outlive connections: no copy.
		c->sent += push(c, r->body + body_sent, r->body_len - body_sent, 0);
	}
	return c->sent == r->head_len + r->body_len;
}

// read_request reads on in what was received; true: a request is complete.
static bool read_request(struct connection *c)
{
	bool done = false;

	while (c->in && !done) {
		struct pbuf *first = c->in;
		size_t n = http_read(&c->reader, (const char *)first->payload + c->in_offset,
				     first->len - c->in_offset, &done);

		tcp_recved(c->pcb, (u16_t)n);
		c->in_offset += n;
		if (c->in_offset < first->len)
			continue;
		c->in = pbuf_dechain(first); // NULL for the last one
		pbuf_free(first);
		c->in_offset = 0;
	}
	return done;
}

// work reads requests and answers them, one after the other, until more has to
// come in or to go out first.
static void work(struct connection *c)
{
	for (;;) {
		if (c->closing) {
			discard(c);
			return;
		}
		if (!c->answering) {
			if (!read_request(c))
				return;
			site_answer(served, &c->reader.request, &c->out);
			c->answering = true;
			c->sent = 0;
		}
		if (!send_more(c))
			return;
		c->answering = false;
		if (c->out.close) {
			c->closing = true;
			tcp_shutdown(c->pcb, 0, 1);
		}
	}
}

// proceed works, and closes when the peer has ended and has all its answers.
static void proceed(struct connection *c)
{
	struct tcp_pcb *pcb = c->pcb;

	work(c);
	if (!c->ended || c->answering) {
		tcp_output(pcb);
		return;
	}
	detach(c);
	release(c);
	tcp_close(pcb); // should memory be short, lwIP itself tries again
}

static err_t on_receive(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err)
{
	struct connection *c = arg;

	(void)pcb;
	(void)err;
	c->active_ns = clock_ns();
	if (!p)
		c->ended = true;
	else if (c->in)
		pbuf_cat(c->in, p);
	else
		c->in = p;
	proceed(c);
	return ERR_OK;
}

static err_t on_sent(void *arg, struct tcp_pcb *pcb, u16_t len)
{
	struct connection *c = arg;

	(void)pcb;
	(void)len;
	c->active_ns = clock_ns();
	if (c->answering)
		proceed(c);
	return ERR_OK;
}

// on_poll goes on where lwIP was out of memory before, and ends idle connections.
static err_t on_poll(void *arg, struct tcp_pcb *pcb)
{
	struct connection *c = arg;
	uint64_t limit = (c->closing ? LINGER_SECONDS : IDLE_SECONDS) * NS_PER_SEC;

	(void)pcb;
	if (clock_ns() - c->active_ns > limit) {
		drop(c);
		return ERR_ABRT;
	}
	if (c->answering)
		proceed(c);
	return ERR_OK;
}

// on_error: lwIP has freed the connection already.
static void on_error(void *arg, err_t err)
{
	(void)err;
	release(arg);
}

static struct connection *find_place(void)
{
	struct connection *oldest = &connections[0];

	for (size_t i = 0; i < MAX_CONNECTIONS; i++) {
		struct connection *c = &connections[i];

		if (!c->pcb)
			return c;
		if (c->active_ns < oldest->active_ns)
			oldest = c;
	}
	drop(oldest);
	return oldest;
}

static err_t on_accept(void *arg, struct tcp_pcb *pcb, err_t err)
{
	struct connection *c;

	(void)arg;
	if (err != ERR_OK || !pcb)
		return ERR_VAL;
	c = find_place();
	memset(c, 0, offsetof(struct connection, reader) + offsetof(struct http_reader, head));
	c->pcb = pcb;
	c->active_ns = clock_ns();
	tcp_nagle_disable(pcb);
	tcp_arg(pcb, c);
	tcp_recv(pcb, on_receive);
	tcp_sent(pcb, on_sent);
	tcp_err(pcb, on_error);
	tcp_poll(pcb, on_poll, POLL_INTERVAL);
	return ERR_OK;
}

bool server_start(const struct site *site, uint16_t port)
{
	struct tcp_pcb *listener = tcp_new_ip_type(IPADDR_TYPE_ANY);

	served = site;
	connections = memory_alloc(MAX_CONNECTIONS * sizeof(struct connection));
	if (!listener || !connections || tcp_bind(listener, IP_ANY_TYPE, port) != ERR_OK)
		return false;
	listener = tcp_listen_with_backlog(listener, TCP_DEFAULT_LISTEN_BACKLOG);
	if (!listener)
		return false;
	tcp_accept(listener, on_accept);
	return true;
}
