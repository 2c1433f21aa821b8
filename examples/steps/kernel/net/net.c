// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// lwIP on top of the network device.

#include "net.h"

#include <string.h>

#include "lwip/dhcp.h"
#include "lwip/dns.h"
#include "lwip/etharp.h"
#include "lwip/ethip6.h"
#include "lwip/init.h"
#include "lwip/ip4_addr.h"
#include "lwip/ip6_addr.h"
#include "lwip/netif.h"
#include "lwip/pbuf.h"
#include "lwip/timeouts.h"
#include "netif/ethernet.h"

#include "../../app/text.h"
#include "../kernel.h"
#include "../virtio/virtio.h"

enum { FRAME_MAX = 1514, FRAMES_PER_POLL = 64 };

static struct netif nic;
static uint16_t told_mtu; // 0: none
static ip6_addr_t gateway6;
static bool started;
static uint64_t random_state;

u32_t sys_now(void)
{
	return (u32_t)(clock_ns() / NS_PER_MS);
}

// net_random (xorshift64*) is for ports and sequence numbers, not for secrets.
uint32_t net_random(void)
{
	random_state ^= random_state >> 12 ^ clock_ns();
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (uint32_t)(random_state * 0x2545f4914f6cdd1du >> 32);
}

_Noreturn void net_assert_failed(const char *message, const char *file, int line)
{
	print_log("CRIT: ", "liblwip", file, line, "Assertion failure: %s\n", message);
	power_off(true);
}

static err_t send_frame(struct netif *netif, struct pbuf *p)
{
	void *frame;

	(void)netif;
	if (p->tot_len > FRAME_MAX)
		return ERR_BUF;
	frame = net_device_send();
	if (!frame) // full: TCP sends it again
		return ERR_MEM;
	pbuf_copy_partial(p, frame, p->tot_len, 0);
	net_device_sent(p->tot_len);
	return ERR_OK;
}

static err_t init_nic(struct netif *netif)
{
	netif->name[0] = 'e';
	netif->name[1] = 'n';
	netif->output = etharp_output;
	netif->output_ip6 = ethip6_output;
	netif->linkoutput = send_frame;
	netif->mtu = told_mtu ? told_mtu : 1500;
	netif->hwaddr_len = ETH_HWADDR_LEN;
	netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET |
		       NETIF_FLAG_LINK_UP;
	return ERR_OK;
}

static void print_ip(const char *what, const ip4_addr_t *ip)
{
	if (!ip4_addr_isany(ip))
		print("%s%u.%u.%u.%u", what, ip4_addr1(ip), ip4_addr2(ip), ip4_addr3(ip), ip4_addr4(ip));
}

static void print_address(struct netif *netif)
{
	if (ip4_addr_isany(netif_ip4_addr(netif)))
		return;
	print_ip("steps: address ", netif_ip4_addr(netif));
	print("/%u", (unsigned)__builtin_popcount(netif_ip4_netmask(netif)->addr));
	print_ip(" gateway ", netif_ip4_gw(netif));
	for (u8_t i = 0; i < DNS_MAX_SERVERS; i++)
		if (IP_IS_V4(dns_getserver(i)))
			print_ip(" dns ", ip_2_ip4(dns_getserver(i)));
	if (told_mtu)
		print(" mtu %u", told_mtu);
	print("\n");
}

// net_gateway6 is lwIP's hook for the next hop; NULL: none.
const struct ip6_addr *net_gateway6(void)
{
	return ip6_addr_isany(&gateway6) ? NULL : &gateway6;
}

// add_ipv6 gives the device its IPv6 address. lwIP takes every /64 of its own
// for its link, so the prefix is not kept.
static void add_ipv6(const struct ipv6_config *config)
{
	ip6_addr_t ip;
	s8_t index;

	netif_create_ip6_linklocal_address(&nic, 1);
	if (!config->cidr)
		return;
	// The parser stops at the slash.
	if (!ip6addr_aton(config->cidr, &ip) || netif_add_ip6_address(&nic, &ip, &index) != ERR_OK ||
	    (config->gateway && !ip6addr_aton(config->gateway, &gateway6))) {
		print("steps: --ipv6: \"%s\" is not an IPv6 address\n", config->cidr);
		return;
	}
	netif_ip6_addr_set_state(&nic, index, IP6_ADDR_PREFERRED);
	ip6_addr_assign_zone(&gateway6, IP6_UNICAST, &nic);
	print("steps: address %s\n", config->cidr);
}

static void add_dns(const struct ipv4_config *config)
{
	for (u8_t i = 0; i < DNS_MAX_SERVERS; i++) {
		ip_addr_t server = IPADDR4_INIT(lwip_htonl(config->dns[i]));

		if (config->dns[i])
			dns_setserver(i, &server);
	}
}

bool net_start(const struct net_config *config)
{
	const struct ipv4_config *ipv4 = &config->ipv4;
	uint32_t mask = ipv4->prefix ? ~0u << (32 - ipv4->prefix) : 0;
	ip4_addr_t ip = { lwip_htonl(ipv4->ip) }, netmask = { lwip_htonl(mask) };
	ip4_addr_t gateway = { lwip_htonl(ipv4->gateway) };

	if (!virtio_found())
		return false;
	if (!net_device_start(nic.hwaddr, &told_mtu)) {
		log_err("libuknetdev", "The network device does not start\n");
		return false;
	}
	memcpy(&random_state, nic.hwaddr, 6);
	random_state ^= clock_ns() << 16 | 1;
	lwip_init();
	if (!netif_add(&nic, &ip, &netmask, &gateway, NULL, init_nic, ethernet_input))
		return false;
	netif_set_default(&nic);
	add_dns(ipv4);
	netif_set_status_callback(&nic, print_address);
	started = true;
	netif_set_up(&nic);
	add_ipv6(&config->ipv6);
	if (ipv4->ip == 0 && !config->ipv6.cidr)
		return dhcp_start(&nic) == ERR_OK;
	return true;
}

bool net_has_address(void)
{
	return started && (!ip4_addr_isany(netif_ip4_addr(&nic)) || net_gateway6());
}

static bool receive_frame(void)
{
	size_t len;
	const void *frame = net_device_receive(&len);
	struct pbuf *p;

	if (!frame)
		return false;
	p = pbuf_alloc(PBUF_RAW, (u16_t)len, PBUF_POOL);
	if (p) // else it is lost, as on any full network
		pbuf_take(p, frame, (u16_t)len);
	net_device_received();
	if (p && nic.input(p, &nic) != ERR_OK)
		pbuf_free(p);
	return true;
}

uint64_t net_poll(void)
{
	u32_t ms;

	if (!started)
		return NEVER;
	for (int i = 0; i < FRAMES_PER_POLL; i++)
		if (!receive_frame())
			break;
	sys_check_timeouts();
	ms = sys_timeouts_sleeptime();
	return ms == SYS_TIMEOUTS_SLEEPTIME_INFINITE ? NEVER : clock_ns() + ms * NS_PER_MS;
}
