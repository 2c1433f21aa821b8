// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// What machine.c is told by the device tree.
#ifndef STEPS_ARM64_MACHINE_H
#define STEPS_ARM64_MACHINE_H

#include <stdint.h>

enum psci { PSCI_NONE, PSCI_HVC, PSCI_SMC };

void machine_set_console(uintptr_t pl011);
void machine_set_psci(enum psci psci);
void machine_set_timer(unsigned irq);
void machine_start_clock(void);

#endif
