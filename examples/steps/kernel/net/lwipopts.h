// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// lwIP without an operating system. The sizes keep its memory, all of
// it static, at about 1.5 MiB.
#ifndef STEPS_LWIPOPTS_H
#define STEPS_LWIPOPTS_H

struct ip6_addr;
const struct ip6_addr *net_gateway6(void);

#define NO_SYS 1
#define SYS_LIGHTWEIGHT_PROT 0
#define LWIP_NETCONN 0
#define LWIP_SOCKET 0
#define LWIP_RAW 0
#define LWIP_DNS 1
#define DNS_MAX_SERVERS 2
#define LWIP_IGMP 0
// A static IPv6 address beside the IPv4 one, and nothing that routers tell.
#define LWIP_IPV6 1
#define LWIP_IPV6_AUTOCONFIG 0
#define LWIP_IPV6_SEND_ROUTER_SOLICIT 0
#define LWIP_IPV6_DUP_DETECT_ATTEMPTS 0
#define LWIP_IPV6_MLD 0
#define IPV6_FRAG_COPYHEADER 1 // pointers are larger than its header
#define LWIP_HOOK_ND6_GET_GW(netif, destination) net_gateway6()
#define LWIP_DHCP 1
#define LWIP_DHCP_DOES_ACD_CHECK 0
#define DHCP_DOES_ARP_CHECK 0
#define LWIP_STATS 0
#define LWIP_NETIF_STATUS_CALLBACK 1
#define IP_REASSEMBLY 1 // UDP datagrams may be large
#define IP_FRAG 1
// What is sent before a neighbour's address is known waits for it: many may
// connect at once to a guest that has just started.
#define ARP_QUEUEING 1
#define ARP_QUEUE_LEN 128
#define MEMP_NUM_ARP_QUEUE 128

#define MEM_ALIGNMENT 8
#define MEM_SIZE (512 * 1024)
#define PBUF_POOL_SIZE 256
#define MEMP_NUM_PBUF 2048 // references into pages that are being sent
#define MEMP_NUM_TCP_PCB 256
#define MEMP_NUM_TCP_SEG 2048
#define MEMP_NUM_UDP_PCB 4
#define MEMP_NUM_SYS_TIMEOUT 16

#define TCP_MSS 1460
#define TCP_WND (4 * TCP_MSS)
#define TCP_SND_BUF (16 * TCP_MSS)
#define TCP_SND_QUEUELEN 64
#define TCP_LISTEN_BACKLOG 1
#define TCP_DEFAULT_LISTEN_BACKLOG 255
#define LWIP_TCP_KEEPALIVE 1
#define LWIP_TCP_RTO_TIME 1000 // RFC 6298
// A closed connection's state is kept for 2 x 5 s. Should they run out all the
// same, lwIP gives up the oldest ones.
#define TCP_MSL 5000

#define LWIP_TCP_TIMESTAMPS 0
#define LWIP_CHKSUM_ALGORITHM 3
#define LWIP_NO_INTTYPES_H 1
#define LWIP_NO_LIMITS_H 1
#define LWIP_NO_CTYPE_H 1
#define LWIP_NO_UNISTD_H 1

#endif
