/* SPDX-License-Identifier: Apache-2.0 */
/* A guest memory to load into, and small valid images of every format to break. */
#ifndef TRIVISOR_TESTS_UNIT_BOARD_IMAGES_H
#define TRIVISOR_TESTS_UNIT_BOARD_IMAGES_H

#include "board/boot.h"

#define TEST_RAM (64ull << 20)

struct test_machine {
    struct guest_mem mem;
    struct e820_map map;
    struct x86_vcpu_state s;
    struct boot b;
    u8 *ram;
    char err[512];
};

/* Fresh, zeroed memory and a loader that writes there. */
void machine_init(struct test_machine *t, u64 ram);
void machine_free(struct test_machine *t);
/* The machine's bytes at a guest address. */
u8 *machine_at(struct test_machine *t, u64 addr);

/* Images; the buffer has room for 64 KiB. Each returns its size. */
u64 make_bzimage(u8 *buf);
u64 make_pvh_elf(u8 *buf, bool is64);
u64 make_multiboot_elf(u8 *buf);
u64 make_multiboot_flat(u8 *buf);

#define TEST_IMAGE_MAX 65536

#endif
