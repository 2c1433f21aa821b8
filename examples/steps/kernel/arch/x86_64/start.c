// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// From the multiboot information to memory, initrd and command line
// (Multiboot Specification 0.6.96, 3.3).

#include <string.h>

#include "../../cmdline.h"
#include "../../kernel.h"
#include "../../virtio/virtio.h"
#include "x86_64.h"

enum { HAS_CMDLINE = 1 << 2, HAS_MODULES = 1 << 3, HAS_MAP = 1 << 6, MAP_AVAILABLE = 1 };

struct multiboot_info {
	uint32_t flags, mem_lower, mem_upper, boot_device, cmdline;
	uint32_t module_count, modules, syms[4], map_len, map;
};

struct multiboot_module {
	uint32_t start, end, string, reserved;
};

struct multiboot_map {
	uint32_t size; // of what follows
	uint64_t start, len;
	uint32_t type;
} __attribute__((packed));

extern const char _end[];

static char cmdline[CMDLINE_MAX + 64];

// used_end returns the end of all that the loader put behind the kernel.
static uintptr_t used_end(const struct multiboot_info *info)
{
	const struct multiboot_module *m = (void *)(uintptr_t)info->modules;
	uintptr_t end = (uintptr_t)_end;

	for (uint32_t i = 0; info->flags & HAS_MODULES && i < info->module_count; i++)
		if (m[i].end > end)
			end = m[i].end;
	return (end + 4095) & ~(uintptr_t)4095;
}

static void add_memory(const struct multiboot_info *info)
{
	const uint64_t limit = 1ull << 32; // what boot.S maps
	uintptr_t first = used_end(info);
	uintptr_t at = info->map;

	while (info->flags & HAS_MAP && at < (uintptr_t)info->map + info->map_len) {
		const struct multiboot_map *m = (void *)at;
		uint64_t start = m->start < first ? first : m->start;
		uint64_t end = m->start + m->len;

		at += m->size + sizeof(m->size);
		if (m->type == MAP_AVAILABLE && start < limit)
			memory_add(start, end < limit ? end : limit);
	}
}

_Noreturn void x86_64_start(const struct multiboot_info *info)
{
	struct boot_info boot = { .cmdline = cmdline };

	interrupts_init();
	machine_start_clock();
	// The loader's strings and tables may lie anywhere, so they are read before
	// memory is handed out.
	if (info->flags & HAS_CMDLINE) {
		const char *given = (const char *)(uintptr_t)info->cmdline;

		memcpy(cmdline, given, strnlen(given, sizeof(cmdline) - 1));
	}
	if (info->flags & HAS_MODULES && info->module_count > 0) {
		const struct multiboot_module *m = (void *)(uintptr_t)info->modules;

		boot.initrd = (const char *)(uintptr_t)m->start;
		boot.initrd_len = m->end - m->start;
	}
	add_memory(info);
	virtio_pci_probe();
	kernel_main(&boot);
}
