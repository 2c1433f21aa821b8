// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// The x86_64 payload of the KVM probe. QEMU loads it as a multiboot 1 kernel
// and enters it in 32-bit protected mode. It goes the way that Unikraft and
// Solo5 go: page tables, long mode, SSE, thread-local base, and then checks
// that floating point, its saved state and the wide compare-and-swap compute
// what they should. It ends by QEMU's isa-debug-exit on port 0x501: QEMU exits
// with 2*value+1. Any exception ends in a triple fault, as there is no IDT.

	.set	LOAD,		0x100000
	.set	MAGIC,		0x1badb002
	.set	ADDRESSES,	1 << 16		// the header tells where to load
	.set	EXIT_PORT,	0x501
	.set	DONE,		0x31		// QEMU exits with 99
	.set	WRONG,		0x41		// + the step: 131, 133, …

	.set	PRESENT_RW,	0x03
	.set	PAGE_2MIB,	0x83
	.set	CR0_PE_MP_PG,	0x80000003
	.set	CR0_EM_TS,	0x0000000c
	.set	CR4_PAE_FXSR_XMM, 0x620
	.set	MSR_EFER,	0xc0000080
	.set	EFER_LME,	0x100
	.set	MSR_FS_BASE,	0xc0000100

	.text
	.code32
	.globl	_start
load:
	.long	MAGIC, ADDRESSES, -(MAGIC + ADDRESSES)
	.long	load, load, load_end, bss_end, _start

_start:
	cli
	cld
	mov	$tables, %edi		// multiboot clears up to bss_end, but be sure
	xor	%eax, %eax
	mov	$(3 * 4096 / 4), %ecx
	rep	stosl
	movl	$(tables + 0x1000 + PRESENT_RW), tables
	movl	$(tables + 0x2000 + PRESENT_RW), tables + 0x1000
	movl	$PAGE_2MIB, tables + 0x2000

	mov	$tables, %eax
	mov	%eax, %cr3
	mov	%cr4, %eax
	or	$CR4_PAE_FXSR_XMM, %eax
	mov	%eax, %cr4
	mov	$MSR_EFER, %ecx
	rdmsr
	or	$EFER_LME, %eax
	wrmsr
	mov	%cr0, %eax
	and	$~CR0_EM_TS, %eax
	or	$CR0_PE_MP_PG, %eax
	mov	%eax, %cr0
	lgdt	gdt_pointer
	ljmp	$0x08, $long_mode

	.code64
long_mode:
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$stack_end, %esp
	fninit
	ldmxcsr	mxcsr

	mov	$WRONG, %ebx		// step 0: the thread-local base
	mov	$MSR_FS_BASE, %ecx
	mov	$ones, %eax
	xor	%edx, %edx
	wrmsr
	mov	%fs:0, %eax
	cmp	ones, %eax
	jne	finish

	inc	%ebx			// step 1: packed floats
	movups	ones, %xmm0
	movups	ones, %xmm1
	addps	%xmm1, %xmm0
	movups	%xmm0, scratch
	movaps	twos, %xmm2
	cmpneqps %xmm0, %xmm2
	movmskps %xmm2, %eax
	test	%eax, %eax
	jnz	finish

	inc	%ebx			// step 2: a double there and back
	mov	$7, %eax
	cvtsi2sd %rax, %xmm3
	mulsd	%xmm3, %xmm3
	cvttsd2si %xmm3, %rax
	cmp	$49, %rax
	jne	finish

	inc	%ebx			// step 3: floating-point state saved and restored
	fxsave64 state
	xorps	%xmm0, %xmm0
	fxrstor64 state
	movaps	twos, %xmm2
	cmpneqps %xmm0, %xmm2
	movmskps %xmm2, %eax
	test	%eax, %eax
	jnz	finish

	inc	%ebx			// step 4: 16 bytes compared and swapped
	movl	%ebx, %esi
	mov	scratch, %rax
	mov	scratch + 8, %rdx
	mov	$1, %ebx
	mov	$2, %ecx
	lock cmpxchg16b scratch
	mov	%esi, %ebx
	jnz	finish
	cmpq	$2, scratch + 8
	jne	finish

	inc	%ebx			// step 5: a call on the stack
	call	identify
	test	%eax, %eax
	jz	finish

	mov	$DONE, %ebx
finish:
	mov	%ebx, %eax
	mov	$EXIT_PORT, %dx
	outw	%ax, %dx
halt:
	hlt
	jmp	halt

identify:				// cpuid leaf 1, which clobbers rbx
	push	%rbx
	mov	$1, %eax
	xor	%ecx, %ecx
	cpuid
	pop	%rbx
	ret

	.balign	16
ones:	.float	1, 1, 1, 1
twos:	.float	2, 2, 2, 2
mxcsr:	.long	0x1f80
	.balign	8
gdt:	.quad	0
	.quad	0x00af9a000000ffff	// 64-bit code
	.quad	0x00cf92000000ffff	// data
gdt_pointer:
	.word	. - gdt - 1
	.long	gdt
	.balign	16
load_end:

	.bss
	.balign	4096
tables:	.skip	3 * 4096
state:	.skip	512
scratch: .skip	16
	.skip	1024
stack_end:
bss_end:
