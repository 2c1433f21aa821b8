// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

#ifndef STEPS_TEST_H
#define STEPS_TEST_H

#include <stddef.h>

// CHECK ends the program, naming the place and what was got, unless ok.
#define CHECK(ok, ...) ((ok) ? (void)0 : test_fail(__FILE__, __LINE__, #ok, __VA_ARGS__))

__attribute__((format(printf, 4, 5))) _Noreturn void
test_fail(const char *file, int line, const char *expected, const char *format, ...);

// test_alloc is an alloc_fn; test_free_all gives all of it back.
void *test_alloc(size_t bytes);
void test_free_all(void);

void test_cmdline(void);
void test_cpio(void);
void test_fdt(void);
void test_http(void);
void test_options(void);
void test_site(void);
void test_stats(void);
void test_text(void);

#endif
