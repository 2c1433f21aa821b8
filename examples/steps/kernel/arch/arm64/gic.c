// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// The interrupt controller: GICv2 and GICv3, one CPU, one security state as
// virtual machines have it (Arm IHI 0048 and IHI 0069).

#include "arm64.h"

enum { // distributor
	GICD_CTLR = 0x000,
	GICD_IGROUPR = 0x080,
	GICD_ISENABLER = 0x100,
	GICD_IPRIORITYR = 0x400,
	GICD_ITARGETSR = 0x800,
	GICD_ICFGR = 0xc00,
	GICD_IROUTER = 0x6000,
};
enum { // v2: CPU interface
	GICC_CTLR = 0x00,
	GICC_PMR = 0x04,
	GICC_IAR = 0x0c,
	GICC_EOIR = 0x10,
};
enum { // v3: redistributor, and its frame of private interrupts
	GICR_WAKER = 0x14,
	GICR_PRIVATE = 0x10000,
};
enum { FIRST_SHARED = 32, FIRST_SPECIAL = 1020 };

// System registers by number: not every assembler knows their names.
#define ICC_PMR_EL1 S3_0_C4_C6_0
#define ICC_IAR1_EL1 S3_0_C12_C12_0
#define ICC_EOIR1_EL1 S3_0_C12_C12_1
#define ICC_SRE_EL1 S3_0_C12_C12_5
#define ICC_IGRPEN1_EL1 S3_0_C12_C12_7
#define read_icc(name) read_sysreg(name)
#define write_icc(name, value) write_sysreg(name, value)

static int version = GIC_NONE;
static uintptr_t gicd, gicc, gicr;

static void init_v2(void)
{
	mmio_write32(gicd + GICD_CTLR, 1);
	mmio_write32(gicc + GICC_PMR, 0xff);
	mmio_write32(gicc + GICC_CTLR, 1);
}

static void init_v3(void)
{
	write_icc(ICC_SRE_EL1, read_icc(ICC_SRE_EL1) | 1);
	mmio_write32(gicd + GICD_CTLR, 1 << 4 | 1 << 1); // affinity routing, group 1
	mmio_write32(gicr + GICR_WAKER, mmio_read32(gicr + GICR_WAKER) & ~2u);
	while (mmio_read32(gicr + GICR_WAKER) & 4)
		;
	write_icc(ICC_PMR_EL1, 0xff);
	write_icc(ICC_IGRPEN1_EL1, 1);
}

void gic_init(int gic_version, uintptr_t distributor, uintptr_t cpu_or_redistributor)
{
	version = gic_version;
	gicd = distributor;
	gicc = gicr = cpu_or_redistributor;
	if (version == GIC_V2)
		init_v2();
	if (version == GIC_V3)
		init_v3();
}

static void set_bit(uintptr_t reg, unsigned bit)
{
	mmio_write32(reg, mmio_read32(reg) | 1u << bit);
}

// set_byte changes one byte of a register by a 32-bit access.
static void set_byte(uintptr_t reg, uint8_t value)
{
	uintptr_t word = reg & ~(uintptr_t)3;
	unsigned shift = (unsigned)(reg & 3) * 8;

	mmio_write32(word, (mmio_read32(word) & ~(0xffu << shift)) | (uint32_t)value << shift);
}

void gic_enable(unsigned id, bool edge)
{
	// v3 keeps the private interrupts' registers in the redistributor.
	uintptr_t base = version == GIC_V3 && id < FIRST_SHARED ? gicr + GICR_PRIVATE : gicd;

	if (version == GIC_NONE)
		return;
	if (version == GIC_V3)
		set_bit(base + GICD_IGROUPR + id / 32 * 4, id % 32);
	set_byte(base + GICD_IPRIORITYR + id, 0x80);
	if (id >= FIRST_SHARED && edge)
		set_bit(base + GICD_ICFGR + id / 16 * 4, id % 16 * 2 + 1);
	if (id >= FIRST_SHARED && version == GIC_V2)
		set_byte(base + GICD_ITARGETSR + id, 1);
	if (id >= FIRST_SHARED && version == GIC_V3)
		mmio_write64(base + GICD_IROUTER + id * 8, read_sysreg(mpidr_el1) & 0xff00ffffff);
	mmio_write32(base + GICD_ISENABLER + id / 32 * 4, 1u << id % 32);
}

int gic_take(void)
{
	uint32_t id = FIRST_SPECIAL;

	if (version == GIC_V2)
		id = mmio_read32(gicc + GICC_IAR) & 0x3ff;
	if (version == GIC_V3) {
		id = (uint32_t)read_icc(ICC_IAR1_EL1) & 0xffffff;
		__asm__ volatile("dsb sy" ::: "memory");
	}
	return id < FIRST_SPECIAL ? (int)id : -1;
}

void gic_end(int id)
{
	if (version == GIC_V2)
		mmio_write32(gicc + GICC_EOIR, (uint32_t)id);
	if (version == GIC_V3)
		write_icc(ICC_EOIR1_EL1, (uint64_t)id);
}
