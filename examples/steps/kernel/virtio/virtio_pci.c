// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// virtio over PCI in its legacy form, which transitional devices have as well:
// QEMU's default on pc, and on q35 for a device on the root bus.

#include "../arch/x86_64/x86_64.h"
#include "virtio.h"

enum { PCI_ADDRESS = 0xcf8, PCI_DATA = 0xcfc };
enum { PCI_ID = 0x00, PCI_COMMAND = 0x04, PCI_HEADER = 0x0c, PCI_BAR0 = 0x10, PCI_IRQ = 0x3c };
enum { COMMAND_IO = 1, COMMAND_MASTER = 4 };
enum { ID_VIRTIO_NET = 0x10001af4 };

enum { // legacy registers, in BAR 0
	DEVICE_FEATURES = 0,
	DRIVER_FEATURES = 4,
	QUEUE_PFN = 8,
	QUEUE_SIZE = 12,
	QUEUE_SEL = 14,
	QUEUE_NOTIFY = 16,
	STATUS = 18,
	ISR = 19,
	CONFIG = 20, // without MSI-X
};

static uint16_t device;

static uint32_t pci_select(unsigned slot, unsigned function, unsigned reg)
{
	uint32_t address = 1u << 31 | slot << 11 | function << 8 | reg;

	out32(PCI_ADDRESS, address);
	return address;
}

static uint32_t pci_read(unsigned slot, unsigned function, unsigned reg)
{
	pci_select(slot, function, reg);
	return in32(PCI_DATA);
}

static bool take(unsigned slot, unsigned function)
{
	uint32_t bar = pci_read(slot, function, PCI_BAR0);
	uint32_t command = pci_read(slot, function, PCI_COMMAND);

	if (!(bar & 1) || (bar & 0xfffc) == 0) // no I/O ports: not a legacy device
		return false;
	device = (uint16_t)(bar & 0xfffc);
	pci_select(slot, function, PCI_COMMAND);
	out32(PCI_DATA, (command & 0xffff) | COMMAND_IO | COMMAND_MASTER);
	interrupts_unmask(pci_read(slot, function, PCI_IRQ) & 0xff);
	return true;
}

// virtio_pci_probe looks at the root bus only.
void virtio_pci_probe(void)
{
	for (unsigned slot = 0; slot < 32; slot++) {
		bool many = pci_read(slot, 0, PCI_HEADER) >> 16 & 0x80;

		for (unsigned function = 0; function < (many ? 8 : 1); function++)
			if (pci_read(slot, function, PCI_ID) == ID_VIRTIO_NET &&
			    take(slot, function))
				return;
	}
}

bool virtio_found(void)
{
	return device != 0;
}

uint8_t virtio_status(void)
{
	return in8(device + STATUS);
}

void virtio_set_status(uint8_t status)
{
	out8(device + STATUS, status);
}

uint64_t virtio_features(void)
{
	return in32(device + DEVICE_FEATURES);
}

void virtio_accept_features(uint64_t features)
{
	out32(device + DRIVER_FEATURES, (uint32_t)features);
}

uint8_t virtio_config8(unsigned offset)
{
	return in8((uint16_t)(device + CONFIG + offset));
}

uint16_t virtio_queue_size(uint16_t index)
{
	out16(device + QUEUE_SEL, index);
	return in16(device + QUEUE_SIZE); // not ours to choose
}

void virtio_queue_start(const struct virtq *q)
{
	out16(device + QUEUE_SEL, q->index);
	out32(device + QUEUE_PFN, (uint32_t)((uintptr_t)q->desc >> 12));
}

void virtio_notify(uint16_t index)
{
	out16(device + QUEUE_NOTIFY, index);
}

void virtio_acknowledge(void)
{
	if (device)
		in8(device + ISR);
}

void virtio_barrier(void)
{
	__asm__ volatile("mfence" ::: "memory");
}
