// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// What the parts of the kernel offer each other.
#ifndef STEPS_KERNEL_H
#define STEPS_KERNEL_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NS_PER_SEC 1000000000ull
#define NS_PER_MS 1000000ull
#define NEVER UINT64_MAX

// ---- boot.c: where an architecture's start code hands over

struct boot_info {
	const char *cmdline;  // starts with argv[0]
	const char *initrd;   // NULL: none
	size_t initrd_len;
};

_Noreturn void kernel_main(const struct boot_info *boot);

// ---- arch/: what an architecture offers

// console_write sends bytes as they are and returns when they are sent.
void console_write(const char *s, size_t n);

// console_read returns a byte that was typed, or -1 where none waits.
int console_read(void);

// clock_ns is the time since the start, monotonic.
uint64_t clock_ns(void);

// cpu_sleep halts the CPU until the deadline or a device's interrupt, which is
// acknowledged. An interrupt that came since the last sleep ends it at once.
void cpu_sleep(uint64_t deadline_ns);

// cpu_hang spins for ever, deaf to interrupts.
_Noreturn void cpu_hang(void);

// power_off ends the machine the way Unikraft does.
_Noreturn void power_off(bool crashed);

// ---- memory.c: memory that is never given back

void memory_add(uintptr_t start, uintptr_t end);
// memory_take returns zeroed memory, NULL if there is no more; align is a power of 2.
void *memory_take(size_t bytes, size_t align);
void *memory_alloc(size_t bytes);
// memory_fill writes to all memory that is free and returns its size in bytes.
uint64_t memory_fill(void);

// ---- print.c: the console, in the form of Unikraft's messages

__attribute__((format(printf, 1, 2))) void print(const char *format, ...);
__attribute__((format(printf, 5, 6))) void print_log(const char *level, const char *lib,
						     const char *file, int line,
						     const char *format, ...);

#define log_crit(lib, ...) print_log("CRIT: ", lib, __FILE_NAME__, __LINE__, __VA_ARGS__)
#define log_err(lib, ...) print_log("ERR:  ", lib, __FILE_NAME__, __LINE__, __VA_ARGS__)
#define log_warn(lib, ...) print_log("Warn: ", lib, __FILE_NAME__, __LINE__, __VA_ARGS__)
#define log_info(lib, ...) print_log("Info: ", lib, __FILE_NAME__, __LINE__, __VA_ARGS__)

#endif
