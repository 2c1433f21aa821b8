// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

#ifndef STEPS_NET_H
#define STEPS_NET_H

#include <stdbool.h>
#include <stdint.h>

#include "../../app/site.h"
#include "../cmdline.h"

// net_start brings the network device up, with a static address or, if none is
// told, by DHCP. False: there is no device.
bool net_start(const struct ipv4_config *config);

// net_has_address tells whether the device has an address by now.
bool net_has_address(void);

// net_poll moves frames and runs timers; it returns when to call it again at the
// latest.
uint64_t net_poll(void);

// server_start serves the site over HTTP. False: out of memory.
bool server_start(const struct site *site, uint16_t port);

// echo_start sends each UDP datagram back.
bool echo_start(uint16_t port);

#endif
