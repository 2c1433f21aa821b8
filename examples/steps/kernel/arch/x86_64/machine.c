// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Console, clock, sleep and power of a PC.

#include "../../kernel.h"
#include "x86_64.h"

enum { COM1 = 0x3f8, UART_LSR = 5, UART_LSR_DR = 0x01, UART_LSR_THRE = 0x20 };
enum { PIT_CHANNEL0 = 0x40, PIT_CHANNEL2 = 0x42, PIT_MODE = 0x43, PIT_HZ = 1193182 };
enum { SPEAKER = 0x61, SPEAKER_GATE = 1, SPEAKER_OUT = 0x20 };
enum { ACPI_PM1A_CNT = 0x604, ACPI_SLEEP_OFF = 0x2000 };
enum { DEBUG_EXIT = 0x501, DEBUG_EXIT_HALT = 41, DEBUG_EXIT_CRASH = 42 };
enum { PVPANIC = 0x505, PVPANIC_PANICKED = 1 };
enum { CALIBRATION_MS = 4 };

static uint64_t start_tsc, tsc_per_ms;

static uint64_t tsc(void)
{
	uint32_t low, high;

	__asm__ volatile("lfence\n\trdtsc" : "=a"(low), "=d"(high)::"memory");
	return (uint64_t)high << 32 | low;
}

// machine_start_clock measures the TSC against the PIT's second channel, the
// one whose end can be read.
void machine_start_clock(void)
{
	enum { COUNT = PIT_HZ / 1000 * CALIBRATION_MS };
	uint8_t speaker = in8(SPEAKER) & ~(SPEAKER_GATE | 2);
	uint64_t end;

	out8(SPEAKER, speaker);
	out8(PIT_MODE, 0xb0); // channel 2, both bytes, interrupt on terminal count
	out8(PIT_CHANNEL2, (uint8_t)COUNT);
	out8(PIT_CHANNEL2, COUNT >> 8);
	out8(SPEAKER, speaker | SPEAKER_GATE);
	start_tsc = tsc();
	while (!(in8(SPEAKER) & SPEAKER_OUT))
		;
	end = tsc();
	out8(SPEAKER, speaker);
	tsc_per_ms = (end - start_tsc) / CALIBRATION_MS;
	if (tsc_per_ms == 0)
		tsc_per_ms = 1;
}

uint64_t clock_ns(void)
{
	uint64_t t = tsc() - start_tsc;

	if (tsc_per_ms == 0) // a crash before the clock runs
		return 0;
	return t / tsc_per_ms * NS_PER_MS + t % tsc_per_ms * NS_PER_MS / tsc_per_ms;
}

void console_write(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		while (!(in8(COM1 + UART_LSR) & UART_LSR_THRE))
			;
		out8(COM1, (uint8_t)s[i]);
	}
}

int console_read(void)
{
	return in8(COM1 + UART_LSR) & UART_LSR_DR ? in8(COM1) : -1;
}

// set_timer asks for one interrupt; the PIT can wait 54 ms at most, the caller
// goes back to sleep then.
static void set_timer(uint64_t deadline_ns)
{
	uint64_t now = clock_ns(), count = 0xffff;

	if (deadline_ns <= now)
		count = 2;
	else if (deadline_ns - now < 54 * NS_PER_MS)
		count = (deadline_ns - now) * PIT_HZ / NS_PER_SEC + 2;
	out8(PIT_MODE, 0x30); // channel 0, both bytes, interrupt on terminal count
	out8(PIT_CHANNEL0, (uint8_t)count);
	out8(PIT_CHANNEL0, (uint8_t)(count >> 8));
}

void cpu_sleep(uint64_t deadline_ns)
{
	if (deadline_ns != NEVER)
		set_timer(deadline_ns);
	// STI takes effect after HLT has begun: no interrupt can slip in between.
	__asm__ volatile("sti\n\thlt\n\tcli" ::: "memory");
}

_Noreturn void cpu_hang(void)
{
	for (;;)
		__asm__ volatile("");
}

_Noreturn void power_off(bool crashed)
{
	if (crashed) {
		out16(DEBUG_EXIT, DEBUG_EXIT_CRASH);
		out8(PVPANIC, PVPANIC_PANICKED);
	}
	out16(ACPI_PM1A_CNT, ACPI_SLEEP_OFF);
	out16(DEBUG_EXIT, DEBUG_EXIT_HALT);
	for (;;)
		__asm__ volatile("hlt");
}
