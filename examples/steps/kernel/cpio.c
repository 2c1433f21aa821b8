// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

#include "cpio.h"

#include <stdint.h>
#include <string.h>

// A header is the magic and 13 numbers of 8 hexadecimal digits.
enum { HEADER = 110, MAGIC = 6, MODE = 1, FILE_SIZE = 6, NAME_SIZE = 11 };

enum { TYPE_MASK = 0170000, TYPE_FILE = 0100000 };

static bool header_number(const char *header, int index, uint32_t *out)
{
	uint32_t value = 0;

	for (int i = 0; i < 8; i++) {
		char c = header[MAGIC + index * 8 + i];
		uint32_t digit;

		if (c >= '0' && c <= '9')
			digit = (uint32_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			digit = (uint32_t)(c - 'a' + 10);
		else if (c >= 'A' && c <= 'F')
			digit = (uint32_t)(c - 'A' + 10);
		else
			return false;
		value = value << 4 | digit;
	}
	*out = value;
	return true;
}

static uint64_t align4(uint64_t n)
{
	return (n + 3) & ~(uint64_t)3;
}

// next reads the entry at *at and moves on. False: the end, or not an archive.
static bool next(const char *archive, size_t len, size_t *at, struct cpio_file *f, uint32_t *mode)
{
	const char *header = archive + *at;
	uint32_t file_size, name_size;
	uint64_t data, end;

	if (len - *at < HEADER)
		return false;
	if (memcmp(header, "070701", MAGIC) != 0 && memcmp(header, "070702", MAGIC) != 0)
		return false;
	if (!header_number(header, MODE, mode) || !header_number(header, FILE_SIZE, &file_size) ||
	    !header_number(header, NAME_SIZE, &name_size))
		return false;
	data = align4((uint64_t)*at + HEADER + name_size);
	end = data + file_size;
	if (name_size == 0 || end > len || header[HEADER + name_size - 1] != '\0')
		return false;

	f->name = header + HEADER;
	f->data = archive + data;
	f->len = file_size;
	*at = align4(end) < len ? (size_t)align4(end) : len;
	return strcmp(f->name, "TRAILER!!!") != 0;
}

static const char *plain_name(const char *name)
{
	if (name[0] == '.' && name[1] == '/')
		name++;
	while (*name == '/')
		name++;
	return name;
}

static bool ends_in_csv(const char *name)
{
	size_t len = strlen(name);

	return len >= 4 && memcmp(name + len - 4, ".csv", 4) == 0;
}

bool cpio_find_csv(const char *archive, size_t len, struct cpio_file *found)
{
	struct cpio_file f;
	bool any = false;
	size_t at = 0;
	uint32_t mode;

	while (next(archive, len, &at, &f, &mode)) {
		if ((mode & TYPE_MASK) != TYPE_FILE)
			continue;
		f.name = plain_name(f.name);
		if (strcmp(f.name, "steps.csv") == 0) {
			*found = f;
			return true;
		}
		if (!any && ends_in_csv(f.name)) {
			*found = f;
			any = true;
		}
	}
	return any;
}
