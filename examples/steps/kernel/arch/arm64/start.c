// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// From the device tree to the machine: console, memory, interrupts, devices.

#include <string.h>

#include "../../cmdline.h"
#include "../../fdt.h"
#include "../../kernel.h"
#include "../../virtio/virtio.h"
#include "arm64.h"
#include "machine.h"

extern uint64_t page_table_1g[512];
extern char _start[], _end[];

// On arm64 the loader puts no name in front of the command line; Unikraft puts
// its own there, and so do we.
static char cmdline[CMDLINE_MAX + sizeof("steps ")] = "steps ";

// reserved is what of RAM is in use before the kernel hands out the rest.
static struct reserved {
	uintptr_t start, end;
} reserved[3];

static void map_ram(struct fdt_range ram)
{
	const uint64_t gib = 1ull << 30;

	for (uint64_t i = ram.start / gib; i < 512 && i * gib < ram.start + ram.size; i++)
		if (i > 0 && page_table_1g[i] == 0)
			page_table_1g[i] = i * gib | 0x705; // as in boot.S
	__asm__ volatile("dsb ishst\n\tisb" ::: "memory");
}

// add_free hands out [start, end) without what is reserved in it.
static void add_free(uintptr_t start, uintptr_t end, size_t i)
{
	for (; i < 3; i++) {
		struct reserved r = reserved[i];

		if (r.end <= start || r.start >= end)
			continue;
		if (r.start > start)
			add_free(start, r.start, i + 1);
		if (r.end < end)
			add_free(r.end, end, i + 1);
		return;
	}
	memory_add(start, end);
}

static void read_chosen(const struct fdt *t, const struct fdt_node *node, struct boot_info *boot)
{
	size_t len, start_len, end_len;
	const char *bootargs = fdt_prop(t, node, "bootargs", &len);
	const void *start = fdt_prop(t, node, "linux,initrd-start", &start_len);
	const void *end = fdt_prop(t, node, "linux,initrd-end", &end_len);

	if (bootargs) {
		size_t name = strlen("steps "), room = sizeof(cmdline) - name - 1;

		memcpy(cmdline + name, bootargs, len < room ? len : room);
	}
	if (start && end && start_len >= 4 && end_len >= 4) {
		boot->initrd = (const char *)fdt_cells(start, start_len / 4);
		boot->initrd_len = fdt_cells(end, end_len / 4) - (uintptr_t)boot->initrd;
	}
}

static void read_gic(const struct fdt *t, const struct fdt_node *node, int version)
{
	struct fdt_range distributor, other;

	if (fdt_reg(t, node, 0, &distributor) && fdt_reg(t, node, 1, &other))
		gic_init(version, distributor.start, other.start);
}

// read_irq reads the i-th interrupt: type (0 shared, 1 private), number, flags.
static bool read_irq(const struct fdt *t, const struct fdt_node *node, size_t i, unsigned *id,
		     bool *edge)
{
	size_t len;
	const uint8_t *irqs = fdt_prop(t, node, "interrupts", &len);

	if (!irqs || len < (i + 1) * 12)
		return false;
	irqs += i * 12;
	*id = (unsigned)fdt_cells(irqs + 4, 1) + (fdt_cells(irqs, 1) == 0 ? 32 : 16);
	*edge = (fdt_cells(irqs + 8, 1) & 3) != 0;
	return true;
}

static void read_psci(const struct fdt *t, const struct fdt_node *node)
{
	size_t len;
	const char *method = fdt_prop(t, node, "method", &len);

	machine_set_psci(method && strncmp(method, "smc", len) == 0 ? PSCI_SMC : PSCI_HVC);
}

// read_nodes finds what everything else needs.
static void read_nodes(const struct fdt *t, struct boot_info *boot)
{
	struct fdt_node node = { 0 };
	struct fdt_range range;

	while (fdt_next(t, &node)) {
		if (strcmp(node.name, "chosen") == 0)
			read_chosen(t, &node, boot);
		else if (fdt_is_compatible(t, &node, "arm,pl011") && fdt_reg(t, &node, 0, &range))
			machine_set_console(range.start);
		else if (fdt_is_compatible(t, &node, "arm,psci-0.2") ||
			 fdt_is_compatible(t, &node, "arm,psci"))
			read_psci(t, &node);
		else if (fdt_is_compatible(t, &node, "arm,cortex-a15-gic") ||
			 fdt_is_compatible(t, &node, "arm,gic-400"))
			read_gic(t, &node, GIC_V2);
		else if (fdt_is_compatible(t, &node, "arm,gic-v3"))
			read_gic(t, &node, GIC_V3);
	}
}

static void read_memory(const struct fdt *t)
{
	struct fdt_node node = { 0 };
	struct fdt_range ram;

	while (fdt_next(t, &node)) {
		size_t len;
		const char *type = fdt_prop(t, &node, "device_type", &len);

		if (!type || strncmp(type, "memory", len) != 0)
			continue;
		for (size_t i = 0; fdt_reg(t, &node, i, &ram); i++) {
			map_ram(ram);
			add_free(ram.start, ram.start + ram.size, 0);
		}
	}
}

// read_devices comes last: drivers need memory and interrupts.
static void read_devices(const struct fdt *t)
{
	struct fdt_node node = { 0 };
	struct fdt_range range;
	unsigned irq;
	bool edge;

	while (fdt_next(t, &node)) {
		if (fdt_is_compatible(t, &node, "arm,armv8-timer") &&
		    read_irq(t, &node, 2, &irq, &edge)) // the third is the virtual one
			machine_set_timer(irq);
		else if (fdt_is_compatible(t, &node, "virtio,mmio") &&
			 fdt_reg(t, &node, 0, &range) && read_irq(t, &node, 0, &irq, &edge) &&
			 virtio_mmio_probe(range.start))
			gic_enable(irq, edge);
	}
}

_Noreturn void arm64_start(const void *blob)
{
	struct boot_info boot = { .cmdline = cmdline };
	struct fdt t;

	machine_start_clock();
	if (!fdt_open(&t, blob)) // no console either: there is nobody to tell
		cpu_hang();
	read_nodes(&t, &boot);
	reserved[0] = (struct reserved){ (uintptr_t)_start, (uintptr_t)_end };
	reserved[1] = (struct reserved){ (uintptr_t)t.start, (uintptr_t)t.start + t.size };
	reserved[2] = (struct reserved){ (uintptr_t)boot.initrd,
					 (uintptr_t)boot.initrd + boot.initrd_len };
	read_memory(&t);
	read_devices(&t);
	kernel_main(&boot);
}
