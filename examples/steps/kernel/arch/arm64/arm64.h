// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

#ifndef STEPS_ARM64_H
#define STEPS_ARM64_H

#include <stdbool.h>
#include <stdint.h>

#define read_sysreg(name)                                         \
	({                                                        \
		uint64_t value_;                                  \
		__asm__ volatile("mrs %0, " #name : "=r"(value_)); \
		value_;                                           \
	})
#define write_sysreg(name, value) \
	__asm__ volatile("msr " #name ", %0\n\tisb" ::"r"((uint64_t)(value)) : "memory")

// Device registers are read and written by these plain instructions only: KVM
// cannot emulate an access with pre- or post-indexing, and a compiler may choose one.
static inline uint32_t mmio_read32(uintptr_t at)
{
	uint32_t value;

	__asm__ volatile("ldr %w0, [%1]" : "=r"(value) : "r"(at) : "memory");
	return value;
}

static inline uint8_t mmio_read8(uintptr_t at)
{
	uint32_t value;

	__asm__ volatile("ldrb %w0, [%1]" : "=r"(value) : "r"(at) : "memory");
	return (uint8_t)value;
}

static inline void mmio_write32(uintptr_t at, uint32_t value)
{
	__asm__ volatile("str %w0, [%1]" ::"r"(value), "r"(at) : "memory");
}

static inline void mmio_write64(uintptr_t at, uint64_t value)
{
	__asm__ volatile("str %0, [%1]" ::"r"(value), "r"(at) : "memory");
}

// ---- gic.c

enum { GIC_NONE, GIC_V2, GIC_V3 };

// gic_init takes the distributor and the CPU interface (v2) or redistributor (v3).
void gic_init(int version, uintptr_t distributor, uintptr_t cpu_or_redistributor);

// gic_enable enables an interrupt; edge as the device tree says.
void gic_enable(unsigned id, bool edge);

// gic_take returns the interrupt that is pending and makes it active, or -1.
int gic_take(void);
void gic_end(int id);

#endif
