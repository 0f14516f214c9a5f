/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading a kernel without firmware: what all loaders share. A loader parses its format as a pure
 * function over a buffer, then places things in guest memory through this, and sets the registers
 * the first vCPU starts with.
 */
#ifndef TRIVISOR_BOARD_BOOT_H
#define TRIVISOR_BOARD_BOOT_H

#include "board/e820.h"
#include "board/image.h"
#include "core/mem.h"
#include "x86/state.h"

#define BOOT_RANGES_MAX 256

struct boot {
    const struct guest_mem *mem;
    u64 ram; /* bytes of guest memory */
    const struct e820_map *map;
    u64 rsdp;                  /* guest-physical, 0: none */
    const char *cmdline;       /* NULL: none given */
    const char *linux_default; /* in its place for a bzImage; NULL: the empty one */
    const char *initrd;        /* file name (or Multiboot module list), NULL: none */
    int initrd_fd;             /* > 0: the initrd itself, initrd is for messages; taken over */
    const u8 *extra_initrd;    /* an archive for Linux to unpack after it; NULL: none */
    u64 extra_initrd_size;
    const char *kernel_name;  /* file name, for messages and Multiboot */
    struct x86_vcpu_state *s; /* RESET's state on entry, the start state on return */
    char *err;
    size_t err_size;
    /* Guest memory taken so far. */
    struct {
        u64 start, end;
    } used[BOOT_RANGES_MAX];
    unsigned n_used;
};

enum boot_where { BOOT_LOWEST, BOOT_HIGHEST };

/* Reports one line in b->err and returns -EINVAL. */
int boot_fail(struct boot *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* True when [start, start + size) is RAM below 4 GiB and nothing is there yet. */
bool boot_is_free(const struct boot *b, u64 start, u64 size);
/* Takes [start, start + size). 0, or -EINVAL: no RAM there, or taken; what names it in the message.
 */
int boot_take(struct boot *b, const char *what, u64 start, u64 size);
/* Finds and takes size bytes, aligned (a power of two), in [lo, hi). false: no room. */
bool boot_place(struct boot *b, u64 size, u64 align, u64 lo, u64 hi, enum boot_where where,
                u64 *out);
/* The same in conventional memory from 7000H on, or else above 1 MiB. 0, or -EINVAL. */
int boot_place_low(struct boot *b, const char *what, u64 size, u64 align, u64 *out);

/* Copies into guest memory that was taken before. */
int boot_write(struct boot *b, u64 addr, const void *data, u64 size);
/* Places text with its NUL in low memory. 0, or -EINVAL. */
int boot_place_string(struct boot *b, const char *what, const char *text, u64 *out);
/* Opens an initrd, takes memory for it (as high as it goes below hi) and reads it there. */
int boot_place_initrd(struct boot *b, const char *path, u64 hi, u64 *addr, u64 *size);

/* Start states. All: interrupts off, cpl 0. */
/* 32-bit protected mode, flat segments, paging off; GDT with code at selector cs, data at ds. */
int boot_enter_flat32(struct boot *b, u16 cs, u16 ds, u64 entry);
/* 64-bit mode with the first 4 GiB mapped one to one; code 10H, data 18H (Linux x86/boot.rst). */
int boot_enter_flat64(struct boot *b, u64 entry);

/* Little-endian fields of untrusted buffers. */
static inline u16 get_le16(const u8 *p)
{
    return (u16)(p[0] | p[1] << 8);
}

static inline u32 get_le32(const u8 *p)
{
    return p[0] | (u32)p[1] << 8 | (u32)p[2] << 16 | (u32)p[3] << 24;
}

static inline u64 get_le64(const u8 *p)
{
    return get_le32(p) | (u64)get_le32(p + 4) << 32;
}

static inline void put_le16(u8 *p, u16 v)
{
    p[0] = (u8)v;
    p[1] = (u8)(v >> 8);
}

static inline void put_le32(u8 *p, u32 v)
{
    put_le16(p, (u16)v);
    put_le16(p + 2, (u16)(v >> 16));
}

static inline void put_le64(u8 *p, u64 v)
{
    put_le32(p, (u32)v);
    put_le32(p + 4, (u32)(v >> 32));
}

#endif
