// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// What lwIP asks of the compiler and the platform.
#ifndef STEPS_CC_H
#define STEPS_CC_H

#include <stddef.h>
#include <stdint.h>

#define BYTE_ORDER LITTLE_ENDIAN
#define SSIZE_MAX __INT_MAX__
typedef long ssize_t;

#define X8_F "02x"
#define U16_F "u"
#define S16_F "d"
#define X16_F "x"
#define U32_F "u"
#define S32_F "d"
#define X32_F "x"
#define SZT_F "zu"

void print(const char *format, ...);
_Noreturn void net_assert_failed(const char *message, const char *file, int line);
uint32_t net_random(void);

#define LWIP_PLATFORM_DIAG(x) do { print x; } while (0)
#define LWIP_PLATFORM_ASSERT(x) net_assert_failed(x, __FILE_NAME__, __LINE__)
#define LWIP_RAND() net_random()

#endif
