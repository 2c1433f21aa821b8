// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// One virtio network device (OASIS Virtual I/O Device 1.2). The transport is
// virtio_mmio.c on arm64 and virtio_pci.c on x86_64; virtio_net.c is above both.
#ifndef STEPS_VIRTIO_H
#define STEPS_VIRTIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	VIRTIO_STATUS_ACKNOWLEDGE = 1,
	VIRTIO_STATUS_DRIVER = 2,
	VIRTIO_STATUS_DRIVER_OK = 4,
	VIRTIO_STATUS_FEATURES_OK = 8,
	VIRTIO_STATUS_FAILED = 128,
};

#define VIRTIO_F_ANY_LAYOUT (1ull << 27)
#define VIRTIO_F_VERSION_1 (1ull << 32)
#define VIRTIO_NET_F_MTU (1ull << 3)
#define VIRTIO_NET_F_MAC (1ull << 5)

struct virtq_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

struct virtq_avail {
	uint16_t flags, idx, ring[];
};

struct virtq_used {
	uint16_t flags, idx;
	struct {
		uint32_t id, len;
	} ring[];
};

struct virtq {
	uint16_t index, size, last_used;
	struct virtq_desc *desc;
	volatile struct virtq_avail *avail;
	volatile struct virtq_used *used;
};

// ---- the transport

// The probes take a device only if it is a network device, and the first of these.
bool virtio_mmio_probe(uintptr_t base);
void virtio_pci_probe(void);

bool virtio_found(void);
uint8_t virtio_status(void);
void virtio_set_status(uint8_t status); // 0 resets the device
uint64_t virtio_features(void);
void virtio_accept_features(uint64_t features);
uint8_t virtio_config8(unsigned offset);
// virtio_queue_size chooses the size of a queue, 0 if there is no such queue.
uint16_t virtio_queue_size(uint16_t index);
void virtio_queue_start(const struct virtq *q);
void virtio_notify(uint16_t index);
// virtio_acknowledge lowers the device's interrupt.
void virtio_acknowledge(void);

// virtio_barrier orders what the device and the CPU see of each other's memory.
void virtio_barrier(void);

// ---- the network device

// net_device_start also tells the MTU that the device advises; 0: none.
bool net_device_start(uint8_t mac[6], uint16_t *mtu);
// net_device_send returns where to put a frame of up to 1514 bytes, NULL if the
// queue is full; net_device_sent hands it over.
void *net_device_send(void);
void net_device_sent(size_t len);
// net_device_receive returns a frame, NULL if there is none; it is the
// device's again after net_device_received.
const void *net_device_receive(size_t *len);
void net_device_received(void);

#endif
