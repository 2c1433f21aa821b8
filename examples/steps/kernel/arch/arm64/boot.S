// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Entry as a Linux kernel "Image" (Linux, Documentation/arch/arm64/booting.rst):
// MMU and caches are off, x0 is the physical address of the device tree, EL1.

#define LOAD_OFFSET 0x80000

	.section .head, "ax"
	.globl	_start
_start:
	b	start
	.long	0
	.quad	LOAD_OFFSET		// from the start of RAM
	.quad	_end - _start		// what is to be left free for us, .bss included
	.quad	0x2			// little endian, 4 KiB pages
	.quad	0, 0, 0
	.ascii	"ARM\x64"
	.long	0

	.text
start:
	mov	x19, x0

	// The tables are part of the image: nothing is written before the caches
	// are on, so there is nothing to be kept coherent.
	ldr	x1, =0xff04		// MAIR: 0 device nGnRE, 1 normal write-back
	msr	mair_el1, x1
	mrs	x2, id_aa64mmfr0_el1
	and	x2, x2, #0xf
	mov	x3, #5			// 48 bits are the most without LPA
	cmp	x2, x3
	csel	x2, x2, x3, lo
	ldr	x1, =(25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23)
	orr	x1, x1, x2, lsl #32	// 39-bit addresses, cacheable walks, no TTBR1
	msr	tcr_el1, x1
	adrp	x1, page_table_1g
	msr	ttbr0_el1, x1
	tlbi	vmalle1
	ic	iallu
	dsb	sy
	isb
	ldr	x1, =0x30d01805		// RES1 bits, instruction cache, data cache, MMU
	msr	sctlr_el1, x1
	mov	x1, #3 << 20		// floating point: libgcc may use its registers
	msr	cpacr_el1, x1
	isb

	adrp	x1, stack_top
	mov	sp, x1
	adrp	x1, vectors
	add	x1, x1, :lo12:vectors
	msr	vbar_el1, x1
	isb

	adrp	x1, _bss
	add	x1, x1, :lo12:_bss
	adrp	x2, _end
	add	x2, x2, :lo12:_end
1:	cmp	x1, x2
	b.hs	2f
	stp	xzr, xzr, [x1], #16
	b	1b
2:	mov	x0, x19
	mov	x29, #0
	bl	arm64_start
3:	b	3b

// Any exception is a crash: interrupts are never unmasked, cpu_sleep polls them.
	.macro	vector kind
	.balign	0x80
	sub	sp, sp, #288
	stp	x0, x1, [sp]
	mov	x1, #\kind
	b	exception
	.endm

	.balign	0x800
vectors:
	.irp	kind, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	vector	\kind
	.endr

exception:
	stp	x2, x3, [sp, #16]
	stp	x4, x5, [sp, #32]
	stp	x6, x7, [sp, #48]
	stp	x8, x9, [sp, #64]
	stp	x10, x11, [sp, #80]
	stp	x12, x13, [sp, #96]
	stp	x14, x15, [sp, #112]
	stp	x16, x17, [sp, #128]
	stp	x18, x19, [sp, #144]
	stp	x20, x21, [sp, #160]
	stp	x22, x23, [sp, #176]
	stp	x24, x25, [sp, #192]
	stp	x26, x27, [sp, #208]
	stp	x28, x29, [sp, #224]
	add	x2, sp, #288
	stp	x30, x2, [sp, #240]
	mrs	x2, elr_el1
	mrs	x3, spsr_el1
	stp	x2, x3, [sp, #256]
	mrs	x2, esr_el1
	mrs	x3, far_el1
	stp	x2, x3, [sp, #272]
	mov	x0, sp
	bl	arm64_exception
1:	b	1b

// The address space is the identity: device memory at 128 to 256 MiB (GIC, UART,
// virtio-mmio of QEMU's virt machine) and RAM from 1 GiB on. All else faults, so
// does address 0. Later GiB of RAM are added by arm64_map_ram.
	.data
	.balign	4096
	.globl	page_table_1g
page_table_1g:
	.quad	page_table_2m + 3
	.quad	0x40000705		// block, normal, inner shareable, accessed
	.fill	510, 8, 0
page_table_2m:
	.fill	64, 8, 0
	.set	address, 0x08000000
	.rept	64
	.quad	address + 0x0060000000000401	// block, device, accessed, never executed
	.set	address, address + 0x200000
	.endr
	.fill	384, 8, 0

	.section .stack, "aw", @nobits
	.balign	4096
	.skip	32768
	.globl	stack_top
stack_top:
