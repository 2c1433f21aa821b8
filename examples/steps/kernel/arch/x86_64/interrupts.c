// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// The vector table, the interrupt controllers (two 8259), and exceptions.
// Interrupts are let in by cpu_sleep only, so handlers need no locking.

#include "../../kernel.h"
#include "../../virtio/virtio.h"
#include "x86_64.h"

enum { VECTORS = 48, VECTOR_SIZE = 16, FIRST_LINE = 32, TIMER_LINE = 0, SECOND_PIC_LINE = 2 };
enum { PIC1 = 0x20, PIC2 = 0xa0, PIC_END = 0x20 };
enum { PAGE_FAULT = 14 };

// registers is what boot.S and the CPU push.
struct registers {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
	uint64_t vector, error, rip, cs, eflags, rsp, ss;
};

struct gate {
	uint16_t offset_low, selector;
	uint8_t stack, type;
	uint16_t offset_middle;
	uint32_t offset_high, zero;
};

extern const char vectors[];

static struct gate gates[VECTORS];

// pic_init moves lines 0 to 15 to vectors 32 to 47, all masked but the second
// controller's.
static void pic_init(void)
{
	static const uint8_t first[] = { FIRST_LINE, 1 << SECOND_PIC_LINE, 1 };
	static const uint8_t second[] = { FIRST_LINE + 8, SECOND_PIC_LINE, 1 };

	out8(PIC1, 0x11);
	out8(PIC2, 0x11);
	for (int i = 0; i < 3; i++) {
		out8(PIC1 + 1, first[i]);
		out8(PIC2 + 1, second[i]);
	}
	out8(PIC1 + 1, 0xff & ~(1 << SECOND_PIC_LINE));
	out8(PIC2 + 1, 0xff);
}

void interrupts_unmask(unsigned line)
{
	uint16_t port = line < 8 ? PIC1 + 1 : PIC2 + 1;

	if (line < 16)
		out8(port, in8(port) & ~(1u << line % 8));
}

void interrupts_init(void)
{
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) pointer = { sizeof(gates) - 1, (uintptr_t)gates };

	for (int i = 0; i < VECTORS; i++) {
		uintptr_t handler = (uintptr_t)vectors + (uintptr_t)i * VECTOR_SIZE;

		gates[i] = (struct gate){
			.offset_low = (uint16_t)handler,
			.selector = 8,
			.type = 0x8e, // interrupt gate
			.offset_middle = (uint16_t)(handler >> 16),
		};
	}
	__asm__ volatile("lidt %0" ::"m"(pointer));
	pic_init();
	interrupts_unmask(TIMER_LINE);
}

static _Noreturn void crash(const struct registers *r)
{
	static bool crashing;
	uint64_t cr2;

	if (crashing) // in what follows
		power_off(true);
	crashing = true;
	__asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
	if (r->vector == PAGE_FAULT)
		log_crit("libkvmplat", "Page fault at linear address %lx, error code=0x%lx\n", cr2,
			 r->error);
	else
		log_crit("libkvmplat", "Unhandled Trap %lu, error code=0x%lx\n", r->vector,
			 r->error);
	log_crit("libkvmplat", "RIP: %016lx CS: %04lx\n", r->rip, r->cs & 0xffff);
	log_crit("libkvmplat", "RSP: %016lx SS: %04lx EFLAGS: %08lx\n", r->rsp, r->ss & 0xffff,
		 r->eflags);
	log_crit("libkvmplat", "RAX: %016lx RBX: %016lx RCX: %016lx\n", r->rax, r->rbx, r->rcx);
	log_crit("libkvmplat", "RDX: %016lx RSI: %016lx RDI: %016lx\n", r->rdx, r->rsi, r->rdi);
	log_crit("libkvmplat", "RBP: %016lx R08: %016lx R09: %016lx\n", r->rbp, r->r8, r->r9);
	log_crit("libkvmplat", "R10: %016lx R11: %016lx R12: %016lx\n", r->r10, r->r11, r->r12);
	log_crit("libkvmplat", "R13: %016lx R14: %016lx R15: %016lx\n", r->r13, r->r14, r->r15);
	log_crit("libkvmplat", "Crashing\n");
	power_off(true);
}

void x86_64_interrupt(const struct registers *r)
{
	if (r->vector < FIRST_LINE)
		crash(r);
	if (r->vector != FIRST_LINE + TIMER_LINE)
		virtio_acknowledge();
	if (r->vector >= FIRST_LINE + 8)
		out8(PIC2, PIC_END);
	out8(PIC1, PIC_END);
}
