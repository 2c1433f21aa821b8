// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// The arm64 payload of the KVM probe. QEMU loads it as a Linux Image on its
// machine "virt" and enters it at EL1 with the MMU off. It goes the way that
// Unikraft goes: FP and SIMD allowed, MMU and caches on, and then checks that
// floating point, vectors and exclusive stores compute what they should. It
// prints "probe: ok" or "probe: wrong" on the PL011 and ends by PSCI
// SYSTEM_OFF. Any exception loops, as there are no vectors that do more.

	.set	PL011,		0x09000000
	.set	SYSTEM_OFF,	0x84000008

	.set	BLOCK,		0x401		// a 1 GiB block, accessed
	.set	DEVICE,		0 << 2		// attribute 0 of MAIR
	.set	NORMAL,		1 << 2 | 3 << 8	// attribute 1, inner shareable
	.set	MAIR,		0xff00		// 0: device nGnRnE, 1: normal write-back
	.set	TCR,		25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23
	.set	SCTLR_M_C_I,	1 << 0 | 1 << 2 | 1 << 12

	.text
	.globl	_start
_start:
	b	start
	.long	0
	.quad	0x80000			// load at this offset into RAM
	.quad	image_end - _start
	.quad	0x0a			// little endian, 4 KiB pages, anywhere
	.quad	0, 0, 0
	.ascii	"ARM\x64"
	.long	0

start:
	mov	x0, #3 << 20		// CPACR: no trap of FP and SIMD
	msr	cpacr_el1, x0
	adr	x0, vectors
	msr	vbar_el1, x0
	isb
	ldr	x0, =MAIR
	msr	mair_el1, x0
	ldr	x0, =TCR
	msr	tcr_el1, x0
	adr	x0, tables		// ready-made: nothing is stored before the MMU is on
	msr	ttbr0_el1, x0
	isb
	tlbi	vmalle1
	dsb	nsh
	isb
	mrs	x0, sctlr_el1
	ldr	x1, =SCTLR_M_C_I
	orr	x0, x0, x1
	msr	sctlr_el1, x0
	isb

	adr	x19, wrong

	adr	x0, cell		// the thread-local base
	msr	tpidr_el0, x0
	mrs	x1, tpidr_el0
	cmp	x0, x1
	b.ne	finish

	msr	fpcr, xzr		// doubles
	mov	x1, #7
	scvtf	d0, x1
	fmul	d0, d0, d0
	fcvtzs	x1, d0
	cmp	x1, #49
	b.ne	finish

	fmov	v1.4s, #1.0		// vectors of floats
	fadd	v1.4s, v1.4s, v1.4s
	fmov	v2.4s, #2.0
	fcmeq	v3.4s, v1.4s, v2.4s
	uminv	s3, v3.4s
	fmov	w1, s3
	cmn	w1, #1
	b.ne	finish

	stp	q1, q2, [x0]		// floating-point state saved and restored
	movi	v1.4s, #0
	ldp	q1, q2, [x0]
	fcmeq	v3.4s, v1.4s, v2.4s
	uminv	s3, v3.4s
	fmov	w1, s3
	cmn	w1, #1
	b.ne	finish

	mov	w3, #1000		// an exclusive store may fail, not for ever
again:	ldaxr	x1, [x0]
	add	x1, x1, #1
	stlxr	w2, x1, [x0]
	cbz	w2, stored
	subs	w3, w3, #1
	b.ne	again
	b	finish
stored:
	mrs	x1, cntvct_el0		// the virtual counter
	adr	x19, ok

finish:
	ldr	x1, =PL011
next:	ldrb	w0, [x19], #1
	cbz	w0, off
	str	w0, [x1]
	b	next
off:
	ldr	x0, =SYSTEM_OFF
	hvc	#0
halt:	wfi
	b	halt

	.balign	8
ok:	.asciz	"probe: ok\n"
wrong:	.asciz	"probe: wrong\n"
	.ltorg

	.balign	2048
vectors:
	.rept	16
	b	halt
	.balign	128
	.endr

	.balign	4096
tables:	.quad	0x00000000 + BLOCK + DEVICE
	.quad	0x40000000 + BLOCK + NORMAL
	.balign	4096
cell:	.skip	64
image_end:
