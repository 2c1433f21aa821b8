// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Entry by multiboot 1: 32-bit protected mode without paging, EBX is the address
// of the multiboot information.

#define MAGIC 0x1badb002
#define FLAGS 3			// modules on page boundaries, memory map

#define CR0_PG_WP_PE 0x80010001
#define CR4_PAE 0x20
#define EFER 0xc0000080
#define EFER_LME 0x100

	.section .head, "ax"
	.balign	4
	.long	MAGIC, FLAGS, -(MAGIC + FLAGS)

	.code32
	.globl	_start
_start:
	cld
	movl	%ebx, %edi		// first argument of x86_64_start
	movl	$page_table_512g, %eax
	movl	%eax, %cr3
	movl	$CR4_PAE, %eax
	movl	%eax, %cr4
	movl	$EFER, %ecx
	rdmsr
	orl	$EFER_LME, %eax
	wrmsr
	movl	$CR0_PG_WP_PE, %eax
	movl	%eax, %cr0
	lgdt	gdt_pointer
	ljmp	$8, $start64

	.code64
	.text
start64:
	movl	$16, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %fs
	movl	%eax, %gs
	movl	%eax, %ss
	movl	$stack_top, %esp
	movl	%edi, %ebx
	movl	$_bss, %edi
	movl	$_end, %ecx
	subl	%edi, %ecx
	shrl	$3, %ecx
	xorl	%eax, %eax
	rep stosq
	movl	%ebx, %edi
	xorl	%ebp, %ebp
	call	x86_64_start
1:	hlt
	jmp	1b

// Each vector pushes an error code, if the CPU does not, and its number.
	.balign	16
	.globl	vectors
vectors:
	.set	number, 0
	.rept	48
	.balign	16
	.if	number != 8 && (number < 10 || number > 14) && number != 17 && number != 21
	pushq	$0
	.endif
	pushq	$number
	jmp	interrupt
	.set	number, number + 1
	.endr

interrupt:
	pushq	%rax
	pushq	%rbx
	pushq	%rcx
	pushq	%rdx
	pushq	%rsi
	pushq	%rdi
	pushq	%rbp
	pushq	%r8
	pushq	%r9
	pushq	%r10
	pushq	%r11
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	movq	%rsp, %rdi
	movq	%rsp, %rbx
	andq	$-16, %rsp
	call	x86_64_interrupt
	movq	%rbx, %rsp
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%r11
	popq	%r10
	popq	%r9
	popq	%r8
	popq	%rbp
	popq	%rdi
	popq	%rsi
	popq	%rdx
	popq	%rcx
	popq	%rbx
	popq	%rax
	addq	$16, %rsp
	iretq

	.data
	.balign	8
gdt:
	.quad	0
	.quad	0x00af9b000000ffff	// code, 64 bits
	.quad	0x00cf93000000ffff	// data
gdt_pointer:
	.word	. - gdt - 1
	.long	gdt
	.long	0

// The address space is the identity of the first 4 GiB, but page 0: what goes
// through a null pointer faults.
	.balign	4096
page_table_512g:
	.quad	page_table_1g + 3
	.fill	511, 8, 0
page_table_1g:
	.quad	page_table_2m + 0x0003
	.quad	page_table_2m + 0x1003
	.quad	page_table_2m + 0x2003
	.quad	page_table_2m + 0x3003
	.fill	508, 8, 0
page_table_2m:
	.quad	page_table_4k + 3
	.set	address, 0x200000
	.rept	2047
	.quad	address + 0x83
	.set	address, address + 0x200000
	.endr
page_table_4k:
	.quad	0
	.set	address, 0x1000
	.rept	511
	.quad	address + 3
	.set	address, address + 0x1000
	.endr

	.section .stack, "aw", @nobits
	.balign	4096
	.skip	32768
stack_top:
