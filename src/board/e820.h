/* SPDX-License-Identifier: Apache-2.0 */
/* The memory map told to the guest (ACPI 6.4 chapter 15: E820H). */
#ifndef TRIVISOR_BOARD_E820_H
#define TRIVISOR_BOARD_E820_H

#include "base/types.h"

#define E820_RAM 1
#define E820_RESERVED 2

struct e820_entry {
    u64 addr, size;
    u32 type;
};

struct e820_map {
    struct e820_entry entry[8];
    unsigned n;
};

/* The map of a board with ram bytes of memory (at least 2 MiB), in ascending order. */
void e820_build(struct e820_map *m, u64 ram);

/* RAM bytes below 4 GiB, and from there on. */
u64 e820_low_ram(u64 ram);
u64 e820_high_ram(u64 ram);

#endif
