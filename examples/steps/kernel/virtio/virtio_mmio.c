// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// virtio over MMIO, in its legacy form (version 1: QEMU's default) and in its
// present one (version 2).

#include "../arch/arm64/arm64.h"
#include "virtio.h"

enum {
	MAGIC = 0x000,
	VERSION = 0x004,
	DEVICE_ID = 0x008,
	DEVICE_FEATURES = 0x010,
	DEVICE_FEATURES_SEL = 0x014,
	DRIVER_FEATURES = 0x020,
	DRIVER_FEATURES_SEL = 0x024,
	GUEST_PAGE_SIZE = 0x028, // legacy
	QUEUE_SEL = 0x030,
	QUEUE_NUM_MAX = 0x034,
	QUEUE_NUM = 0x038,
	QUEUE_ALIGN = 0x03c, // legacy
	QUEUE_PFN = 0x040,   // legacy
	QUEUE_READY = 0x044,
	QUEUE_NOTIFY = 0x050,
	INTERRUPT_STATUS = 0x060,
	INTERRUPT_ACK = 0x064,
	STATUS = 0x070,
	QUEUE_DESC = 0x080,
	QUEUE_DRIVER = 0x090,
	QUEUE_DEVICE = 0x0a0,
	CONFIG = 0x100,
};
enum { MAGIC_VALUE = 0x74726976, DEVICE_NET = 1, PAGE = 4096, MAX_QUEUE = 256 };

static uintptr_t device;
static bool legacy;

bool virtio_mmio_probe(uintptr_t base)
{
	if (device || mmio_read32(base + MAGIC) != MAGIC_VALUE ||
	    mmio_read32(base + DEVICE_ID) != DEVICE_NET)
		return false;
	device = base;
	legacy = mmio_read32(base + VERSION) == 1;
	return true;
}

bool virtio_found(void)
{
	return device != 0;
}

uint8_t virtio_status(void)
{
	return (uint8_t)mmio_read32(device + STATUS);
}

void virtio_set_status(uint8_t status)
{
	mmio_write32(device + STATUS, status);
	if (status == 0 && legacy)
		mmio_write32(device + GUEST_PAGE_SIZE, PAGE);
}

uint64_t virtio_features(void)
{
	uint64_t low, high;

	mmio_write32(device + DEVICE_FEATURES_SEL, 0);
	low = mmio_read32(device + DEVICE_FEATURES);
	mmio_write32(device + DEVICE_FEATURES_SEL, 1);
	high = mmio_read32(device + DEVICE_FEATURES);
	return legacy ? low : high << 32 | low;
}

void virtio_accept_features(uint64_t features)
{
	mmio_write32(device + DRIVER_FEATURES_SEL, 0);
	mmio_write32(device + DRIVER_FEATURES, (uint32_t)features);
	mmio_write32(device + DRIVER_FEATURES_SEL, 1);
	mmio_write32(device + DRIVER_FEATURES, (uint32_t)(features >> 32));
}

uint8_t virtio_config8(unsigned offset)
{
	return mmio_read8(device + CONFIG + offset);
}

uint16_t virtio_queue_size(uint16_t index)
{
	uint32_t max;

	mmio_write32(device + QUEUE_SEL, index);
	max = mmio_read32(device + QUEUE_NUM_MAX);
	return (uint16_t)(max < MAX_QUEUE ? max : MAX_QUEUE);
}

static void write_address(unsigned reg, volatile const void *p)
{
	mmio_write32(device + reg, (uint32_t)(uintptr_t)p);
	mmio_write32(device + reg + 4, (uint32_t)((uintptr_t)p >> 32));
}

void virtio_queue_start(const struct virtq *q)
{
	mmio_write32(device + QUEUE_SEL, q->index);
	mmio_write32(device + QUEUE_NUM, q->size);
	if (legacy) {
		mmio_write32(device + QUEUE_ALIGN, PAGE);
		mmio_write32(device + QUEUE_PFN, (uint32_t)((uintptr_t)q->desc / PAGE));
		return;
	}
	write_address(QUEUE_DESC, q->desc);
	write_address(QUEUE_DRIVER, q->avail);
	write_address(QUEUE_DEVICE, q->used);
	mmio_write32(device + QUEUE_READY, 1);
}

void virtio_notify(uint16_t index)
{
	mmio_write32(device + QUEUE_NOTIFY, index);
}

void virtio_acknowledge(void)
{
	if (device)
		mmio_write32(device + INTERRUPT_ACK, mmio_read32(device + INTERRUPT_STATUS));
}

void virtio_barrier(void)
{
	__asm__ volatile("dmb sy" ::: "memory");
}
