// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Console, clock, sleep, power and exceptions of QEMU's virt machine.

#include "machine.h"

#include "../../kernel.h"
#include "../../virtio/virtio.h"
#include "arm64.h"

enum { UART_DR = 0x00, UART_FR = 0x18, UART_FR_RXFE = 1 << 4, UART_FR_TXFF = 1 << 5 };
enum { TIMER_ENABLE = 1, PSCI_SYSTEM_OFF = 0x84000008 };

static uintptr_t uart;
static enum psci psci;
static unsigned timer_irq;
static uint64_t start_ticks, frequency;

void machine_set_console(uintptr_t pl011)
{
	uart = pl011;
}

void machine_set_psci(enum psci method)
{
	psci = method;
}

void machine_set_timer(unsigned irq)
{
	timer_irq = irq;
	gic_enable(irq, false);
}

static uint64_t ticks(void)
{
	__asm__ volatile("isb" ::: "memory"); // not earlier than what came before
	return read_sysreg(cntvct_el0);
}

void machine_start_clock(void)
{
	frequency = read_sysreg(cntfrq_el0);
	start_ticks = ticks();
}

void console_write(const char *s, size_t n)
{
	if (!uart)
		return;
	for (size_t i = 0; i < n; i++) {
		while (mmio_read32(uart + UART_FR) & UART_FR_TXFF)
			;
		mmio_write32(uart + UART_DR, (unsigned char)s[i]);
	}
}

int console_read(void)
{
	if (!uart || mmio_read32(uart + UART_FR) & UART_FR_RXFE)
		return -1;
	return mmio_read32(uart + UART_DR) & 0xff;
}

uint64_t clock_ns(void)
{
	uint64_t t = ticks() - start_ticks;

	return t / frequency * NS_PER_SEC + t % frequency * NS_PER_SEC / frequency;
}

static void set_timer(uint64_t deadline_ns)
{
	uint64_t t = deadline_ns / NS_PER_SEC * frequency +
		     deadline_ns % NS_PER_SEC * frequency / NS_PER_SEC;

	write_sysreg(cntv_cval_el0, start_ticks + t);
	write_sysreg(cntv_ctl_el0, TIMER_ENABLE);
}

// Interrupts stay masked: WFI wakes by a pending one all the same, and it is
// then taken from the controller by hand. So nothing can come between looking
// for work and sleeping.
void cpu_sleep(uint64_t deadline_ns)
{
	int id;

	if (deadline_ns != NEVER)
		set_timer(deadline_ns);
	__asm__ volatile("dsb sy\n\twfi" ::: "memory");
	write_sysreg(cntv_ctl_el0, 0);
	while ((id = gic_take()) >= 0) {
		if ((unsigned)id != timer_irq)
			virtio_acknowledge();
		gic_end(id);
	}
}

_Noreturn void cpu_hang(void)
{
	for (;;)
		__asm__ volatile("");
}

_Noreturn void power_off(bool crashed)
{
	register uint64_t x0 __asm__("x0") = PSCI_SYSTEM_OFF;

	(void)crashed; // a crash and a halt look the same from outside, as in Unikraft
	if (psci == PSCI_SMC)
		__asm__ volatile("smc #0" : "+r"(x0)::"memory");
	else
		__asm__ volatile("hvc #0" : "+r"(x0)::"memory");
	for (;;)
		__asm__ volatile("wfi");
}

// registers is what boot.S saves.
struct registers {
	uint64_t x[31], sp, elr, spsr, esr, far;
};

_Noreturn void arm64_exception(const struct registers *r, uint64_t vector)
{
	static const char *const kinds[] = { "Synchronous Abort", "IRQ", "FIQ", "Error" };
	static bool crashing;

	if (crashing) // in what follows
		power_off(true);
	crashing = true;
	if (vector == 4)
		log_crit("libkvmplat", "EL1 sync trap caught\n");
	else
		log_crit("libkvmplat", "EL1 invalid %s trap caught\n", kinds[vector & 3]);
	log_crit("libkvmplat", "\t SP       : 0x%016lx\n", r->sp);
	log_crit("libkvmplat", "\t ESR_EL1  : 0x%016lx\n", r->esr);
	log_crit("libkvmplat", "\t ELR_EL1  : 0x%016lx\n", r->elr);
	log_crit("libkvmplat", "\t LR (x30) : 0x%016lx\n", r->x[30]);
	log_crit("libkvmplat", "\t PSTATE   : 0x%016lx\n", r->spsr);
	log_crit("libkvmplat", "\t FAR_EL1  : 0x%016lx\n", r->far);
	for (unsigned i = 0; i < 28; i += 4)
		log_crit("libkvmplat", "\t x%02u ~ x%02u: 0x%016lx 0x%016lx 0x%016lx 0x%016lx\n", i,
			 i + 3, r->x[i], r->x[i + 1], r->x[i + 2], r->x[i + 3]);
	log_crit("libkvmplat", "\t x28 ~ x29: 0x%016lx 0x%016lx\n", r->x[28], r->x[29]);
	power_off(true);
}
