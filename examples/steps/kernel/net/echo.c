// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

#include "lwip/pbuf.h"
#include "lwip/udp.h"

#include "net.h"

static void answer(void *arg, struct udp_pcb *pcb, struct pbuf *p, const ip_addr_t *from, u16_t port)
{
	(void)arg;
	udp_sendto(pcb, p, from, port);
	pbuf_free(p);
}

bool echo_start(uint16_t port)
{
	struct udp_pcb *pcb = udp_new_ip_type(IPADDR_TYPE_ANY);

	if (!pcb || udp_bind(pcb, IP_ANY_TYPE, port) != ERR_OK)
		return false;
	udp_recv(pcb, answer, NULL);
	return true;
}
