// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

#ifndef STEPS_NET_H
#define STEPS_NET_H

#include <stdbool.h>
#include <stdint.h>

#include "../../app/site.h"
#include "../cmdline.h"

// net_start brings the network device up, with the addresses that are told or,
// if none is, by DHCP. False: there is no device.
bool net_start(const struct net_config *config);

// net_has_address tells whether the device has an address by now.
bool net_has_address(void);

// net_poll moves frames and runs timers; it returns when to call it again at the
// latest.
uint64_t net_poll(void);

// server_start serves the site over HTTP. False: out of memory.
bool server_start(const struct site *site, uint16_t port);

// echo_start sends each UDP datagram back.
bool echo_start(uint16_t port);

// fetch_start asks http://HOST[:PORT][/PATH] once, and prints what came of it.
// False: it is not such a URL.
bool fetch_start(const char *url);

#endif
