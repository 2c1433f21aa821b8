// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// The same application as an ordinary Linux program, for the container that the
// unikernel is compared with. One thread, poll, and what a process with the id 1
// needs: it ends on SIGTERM and SIGINT.

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "../app/options.h"
#include "../app/stats.h"

enum { MAX_CONNECTIONS = 128, IDLE_SECONDS = 60, LINGER_SECONDS = 5 };
enum { EXIT_FAILED = 1, EXIT_USAGE = 64 };

struct connection {
	int fd; // -1: free
	bool answering, closing;
	size_t sent; // bytes of out
	time_t active;
	size_t in_len, in_at; // received, and read of it
	char in[4096];
	struct http_reader reader;
	struct response out;
};

static volatile sig_atomic_t stopped;
static struct connection connections[MAX_CONNECTIONS];
static struct site site;

static void on_stop(int signal)
{
	(void)signal;
	stopped = 1;
}

static void *alloc(size_t bytes)
{
	return calloc(1, bytes ? bytes : 1);
}

static time_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec;
}

// read_steps returns NULL where there is no data; the program serves all the same.
static const struct stats *read_steps(const char *path)
{
	static struct stats stats;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	const char *csv = "";

	if (fd < 0 || fstat(fd, &st) != 0) {
		dprintf(1, "steps: %s: %s, so no data\n", path, strerror(errno));
		return NULL;
	}
	if (st.st_size > 0)
		csv = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (csv == MAP_FAILED || !stats_read(&stats, csv, (size_t)st.st_size, alloc)) {
		dprintf(1, "steps: too little memory for %s\n", path);
		return NULL;
	}
	if (st.st_size > 0)
		munmap((void *)csv, (size_t)st.st_size);
	close(fd);
	dprintf(1, "steps: %s: %zu users, %llu records, %llu bad lines", path, stats.count,
		(unsigned long long)stats.records, (unsigned long long)stats.bad);
	if (stats.bad)
		dprintf(1, " (the first is line %llu)", (unsigned long long)stats.first_bad);
	dprintf(1, "\n");
	return &stats;
}

// open_port returns a bound socket, or -1 with errno.
static int open_port(int type, uint16_t port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
	    (type == SOCK_STREAM && listen(fd, 255) != 0)) {
		close(fd);
		return -1;
	}
	return fd;
}

static void end_connection(struct connection *c)
{
	close(c->fd);
	c->fd = -1;
}

// send_more returns 1 when the whole answer is sent, 0 when the rest has to wait,
// -1 when the connection is broken.
static int send_more(struct connection *c)
{
	struct response *r = &c->out;
	size_t total = r->head_len + r->body_len;

	while (c->sent < total) {
		size_t head = c->sent < r->head_len ? c->sent : r->head_len;
		size_t body = c->sent - head;
		struct iovec parts[] = {
			{ r->head + head, r->head_len - head },
			{ (char *)r->body + body, r->body_len - body },
		};
		struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };
		ssize_t n = sendmsg(c->fd, &message, MSG_NOSIGNAL);

		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -1;
		c->sent += (size_t)n;
	}
	return 1;
}

// receive fills in; false: the connection has ended or has nothing more now.
static bool receive(struct connection *c)
{
	ssize_t n = recv(c->fd, c->in, sizeof(c->in), 0);

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
		end_connection(c);
		return false;
	}
	c->in_at = 0;
	c->in_len = n > 0 ? (size_t)n : 0;
	return n > 0;
}

static bool read_request(struct connection *c)
{
	bool done = false;

	while (!done) {
		if (c->in_at == c->in_len && !receive(c))
			return false;
		c->in_at += http_read(&c->reader, c->in + c->in_at, c->in_len - c->in_at, &done);
	}
	return true;
}

// work reads requests and answers them until it would have to wait.
static void work(struct connection *c)
{
	int sent;

	c->active = now();
	while (!c->closing) {
		if (!c->answering) {
			if (!read_request(c))
				return;
			site_answer(&site, &c->reader.request, &c->out);
			c->answering = true;
			c->sent = 0;
		}
		sent = send_more(c);
		if (sent < 0)
			end_connection(c);
		if (sent <= 0)
			return;
		c->answering = false;
		if (c->out.close) {
			c->closing = true;
			shutdown(c->fd, SHUT_WR);
		}
	}
	while (receive(c)) // until the peer's end
		;
}

// find_place gives up the connection that was idle the longest if none is free.
static struct connection *find_place(void)
{
	struct connection *oldest = &connections[0];

	for (size_t i = 0; i < MAX_CONNECTIONS; i++) {
		struct connection *c = &connections[i];

		if (c->fd < 0)
			return c;
		if (c->active < oldest->active)
			oldest = c;
	}
	end_connection(oldest);
	return oldest;
}

static void accept_all(int listener)
{
	int fd, on = 1;

	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		struct connection *c = find_place();

		memset(c, 0, sizeof(*c));
		c->fd = fd;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		work(c);
	}
}

static void echo_all(int fd)
{
	static char datagram[65536];
	struct sockaddr_in from;
	socklen_t from_len = sizeof(from);
	ssize_t n;

	while ((n = recvfrom(fd, datagram, sizeof(datagram), 0, (struct sockaddr *)&from,
			     &from_len)) >= 0)
		sendto(fd, datagram, (size_t)n, 0, (struct sockaddr *)&from, from_len);
}

static void end_idle(struct connection *c)
{
	if (c->fd >= 0 && now() - c->active > (c->closing ? LINGER_SECONDS : IDLE_SECONDS))
		end_connection(c);
}

static void serve(int listener, int echo, const sigset_t *unblocked)
{
	static struct pollfd fds[MAX_CONNECTIONS + 2];
	const struct timespec second = { .tv_sec = 1 };

	while (!stopped) {
		bool any = false;

		for (size_t i = 0; i < MAX_CONNECTIONS; i++) {
			struct connection *c = &connections[i];

			end_idle(c);
			fds[i] = (struct pollfd){ c->fd, c->answering ? POLLOUT : POLLIN, 0 };
			any = any || c->fd >= 0;
		}
		fds[MAX_CONNECTIONS] = (struct pollfd){ listener, POLLIN, 0 };
		fds[MAX_CONNECTIONS + 1] = (struct pollfd){ echo, POLLIN, 0 };
		if (ppoll(fds, MAX_CONNECTIONS + 2, any ? &second : NULL, unblocked) < 0)
			continue;
		for (size_t i = 0; i < MAX_CONNECTIONS; i++)
			if (fds[i].fd >= 0 && fds[i].revents)
				work(&connections[i]);
		if (fds[MAX_CONNECTIONS].revents)
			accept_all(listener);
		if (echo >= 0 && fds[MAX_CONNECTIONS + 1].revents)
			echo_all(echo);
	}
}

// handle_signals blocks what ends the program but while waiting in ppoll, so that
// none is missed; *unblocked is the mask for that.
static void handle_signals(sigset_t *unblocked)
{
	struct sigaction action = { .sa_handler = on_stop };
	sigset_t blocked;

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigaddset(&blocked, SIGINT);
	sigprocmask(SIG_BLOCK, &blocked, unblocked);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
}

static const char *csv_path(struct strings args)
{
	const char *path = "/steps.csv";

	for (size_t i = 0; i < args.count; i++) {
		const char *value = option_value(args.at[i], "--csv");

		if (value)
			path = value;
	}
	return path;
}

int main(int argc, char *argv[])
{
	struct strings args = { argv + 1, argc > 0 ? (size_t)argc - 1 : 0 };
	struct strings env = { environ, 0 };
	struct options options;
	sigset_t unblocked;
	int listener, echo = -1;

	handle_signals(&unblocked);
	while (environ[env.count])
		env.count++;
	if (!options_read(&options, env, args)) {
		dprintf(2, "steps: %s: \"%s\" is not a port (1 to 65535)\n", options.bad_name,
			options.bad_value);
		return EXIT_USAGE;
	}
	if (!site_build(&site, read_steps(csv_path(args)), env, args, alloc)) {
		dprintf(2, "steps: too little memory\n");
		return EXIT_FAILED;
	}
	for (size_t i = 0; i < MAX_CONNECTIONS; i++)
		connections[i].fd = -1;
	listener = open_port(SOCK_STREAM, options.port);
	if (listener < 0) {
		dprintf(2, "steps: cannot listen on port %u: %s\n", options.port, strerror(errno));
		return EXIT_FAILED;
	}
	if (options.udp_echo && (echo = open_port(SOCK_DGRAM, options.udp_echo)) < 0) {
		dprintf(2, "steps: cannot open UDP port %u: %s\n", options.udp_echo,
			strerror(errno));
		return EXIT_FAILED;
	}
	if (options.udp_echo)
		dprintf(1, "steps: udp echo on port %u\n", options.udp_echo);
	dprintf(1, "steps: listening on port %u\n", options.port);
	serve(listener, echo, &unblocked);
	dprintf(1, "steps: stopped\n");
	return 0;
}
