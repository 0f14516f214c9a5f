/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "board/boot.h"
#include "board/layout.h"

/* Below lie the real-mode vector table and BIOS data; also Linux's decompressor borrows the top of
 * conventional memory for a while, so things are placed from the bottom. */
#define LOWEST_ADDRESS 0x7000ull

#define SEG_CODE32                                                                                 \
    (X86_SEG_P | X86_SEG_S | X86_SEG_CODE | X86_SEG_RW | X86_SEG_ACCESSED | X86_SEG_DB | X86_SEG_G)
#define SEG_CODE64                                                                                 \
    (X86_SEG_P | X86_SEG_S | X86_SEG_CODE | X86_SEG_RW | X86_SEG_ACCESSED | X86_SEG_L | X86_SEG_G)
#define SEG_DATA (X86_SEG_P | X86_SEG_S | X86_SEG_RW | X86_SEG_ACCESSED | X86_SEG_DB | X86_SEG_G)
#define SEG_TSS32_BUSY (X86_SEG_P | 11)

#define GDT_ENTRIES 5
#define PTE_P 1ull
#define PTE_RW 2ull
#define PTE_PS 0x80ull

int boot_fail(struct boot *b, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(b->err, b->err_size, fmt, ap);
    va_end(ap);
    return -EINVAL;
}

/* The end of the first range taken that overlaps [start, start + size), or 0. */
static int overlap(const struct boot *b, u64 start, u64 size)
{
    for (unsigned i = 0; i < b->n_used; i++)
        if (start < b->used[i].end && b->used[i].start < start + size)
            return (int)i;
    return -1;
}

static const struct e820_entry *ram_entry(const struct boot *b, u64 start, u64 size)
{
    for (unsigned i = 0; i < b->map->n; i++) {
        const struct e820_entry *e = &b->map->entry[i];

        if (e->type == E820_RAM && start >= e->addr && size <= e->size &&
            start - e->addr <= e->size - size)
            return e;
    }
    return NULL;
}

bool boot_is_free(const struct boot *b, u64 start, u64 size)
{
    return start < LAYOUT_HIGH_RAM && ram_entry(b, start, size) && overlap(b, start, size) < 0;
}

static bool take(struct boot *b, u64 start, u64 size)
{
    if (b->n_used == BOOT_RANGES_MAX)
        return false;
    b->used[b->n_used].start = start;
    b->used[b->n_used].end = start + size;
    b->n_used++;
    return true;
}

int boot_take(struct boot *b, const char *what, u64 start, u64 size)
{
    if (start >= LAYOUT_HIGH_RAM || !ram_entry(b, start, size))
        return boot_fail(
            b, "%s: %s does not fit: it needs memory at %#llx to %#llx, and there are %llu MiB",
            b->kernel_name, what, (unsigned long long)start, (unsigned long long)(start + size),
            (unsigned long long)(b->ram >> 20));
    if (overlap(b, start, size) >= 0 || !take(b, start, size))
        return boot_fail(b, "%s: %s overlaps another part at %#llx", b->kernel_name, what,
                         (unsigned long long)start);
    return 0;
}

/* In one RAM entry: the lowest (highest) aligned place in [lo, hi). */
static bool find(const struct boot *b, u64 size, u64 align, u64 lo, u64 hi, enum boot_where where,
                 u64 *out)
{
    u64 at;

    if (size > hi - lo)
        return false;
    at = where == BOOT_LOWEST ? align_up(lo, align) : align_down(hi - size, align);
    /* Every step leaves one taken range behind, so this ends. */
    while (at >= lo && at <= hi - size) {
        int i = overlap(b, at, size);

        if (i < 0) {
            *out = at;
            return true;
        }
        if (where == BOOT_LOWEST)
            at = align_up(b->used[i].end, align);
        else if (b->used[i].start < size)
            return false;
        else
            at = align_down(b->used[i].start - size, align);
    }
    return false;
}

bool boot_place(struct boot *b, u64 size, u64 align, u64 lo, u64 hi, enum boot_where where,
                u64 *out)
{
    for (unsigned i = 0; i < b->map->n; i++) {
        unsigned k = where == BOOT_LOWEST ? i : b->map->n - 1 - i;
        const struct e820_entry *e = &b->map->entry[k];
        u64 from = e->addr > lo ? e->addr : lo;
        u64 to = e->addr + e->size < hi ? e->addr + e->size : hi;

        if (e->type == E820_RAM && e->addr < LAYOUT_HIGH_RAM && from < to &&
            find(b, size, align, from, to, where, out))
            return take(b, *out, size);
    }
    return false;
}

int boot_place_low(struct boot *b, const char *what, u64 size, u64 align, u64 *out)
{
    if (boot_place(b, size, align, LOWEST_ADDRESS, LAYOUT_EBDA, BOOT_LOWEST, out) ||
        boot_place(b, size, align, LAYOUT_1M, LAYOUT_HIGH_RAM, BOOT_HIGHEST, out))
        return 0;
    return boot_fail(b, "%s: no room for %s in %llu MiB of memory", b->kernel_name, what,
                     (unsigned long long)(b->ram >> 20));
}

int boot_write(struct boot *b, u64 addr, const void *data, u64 size)
{
    if (guest_mem_write(b->mem, gpa(addr), data, size))
        return boot_fail(b, "%s: no memory at %#llx", b->kernel_name, (unsigned long long)addr);
    return 0;
}

int boot_place_string(struct boot *b, const char *what, const char *text, u64 *out)
{
    u64 size = strlen(text) + 1;
    int r = boot_place_low(b, what, size, 16, out);

    return r ? r : boot_write(b, *out, text, size);
}

int boot_place_initrd(struct boot *b, const char *path, u64 hi, u64 *addr, u64 *size)
{
    struct image_file f;
    u8 *dst;
    u64 at;
    int fd = b->initrd_fd, r;

    b->initrd_fd = 0;
    r = fd > 0 ? image_file_open_fd(&f, "initrd", path, fd, b->ram, b->err, b->err_size)
               : image_file_open(&f, "initrd", path, b->ram, b->err, b->err_size);
    if (r)
        return r;
    /* Linux looks for the next archive at multiples of four. */
    at = b->extra_initrd ? align_up(f.size, 4) : f.size;
    *size = at + b->extra_initrd_size;
    if (!boot_place(b, align_up(*size, PAGE_SIZE), PAGE_SIZE, LAYOUT_1M, hi, BOOT_HIGHEST, addr)) {
        image_close(&f);
        return boot_fail(
            b, "initrd %s (%llu KiB) does not fit beside the kernel in %llu MiB of memory", path,
            (unsigned long long)(*size + 1023) >> 10, (unsigned long long)(b->ram >> 20));
    }
    dst = guest_mem_ptr(b->mem, gpa(*addr), *size);
    r = dst ? image_copy(&f, dst, b->err, b->err_size)
            : boot_fail(b, "initrd %s: no memory at %#llx", path, (unsigned long long)*addr);
    if (!r && b->extra_initrd)
        memcpy(dst + at, b->extra_initrd, b->extra_initrd_size);
    image_close(&f);
    return r;
}

static struct x86_seg flat(u16 sel, u32 attr)
{
    return (struct x86_seg){.limit = 0xffffffff, .sel = sel, .attr = (u16)attr};
}

/* A descriptor with base 0 and limit FFFFFH pages (SDM 3A figure 3-8). */
static u64 flat_descriptor(u32 attr)
{
    return 0xffffull | (u64)(attr & 0xff) << 40 | 0xfull << 48 | (u64)(attr >> 12) << 52;
}

/* GDT with code at cs and data at ds, and every segment register loaded from it. */
static int set_segments(struct boot *b, u16 cs, u16 ds, u32 code_attr)
{
    u64 gdt[GDT_ENTRIES] = {0};
    struct x86_vcpu_state *s = b->s;
    u64 at;
    int r;

    gdt[cs / 8] = flat_descriptor(code_attr);
    gdt[ds / 8] = flat_descriptor(SEG_DATA);
    r = boot_place_low(b, "the start-up GDT", sizeof(gdt), 16, &at);
    if (!r)
        r = boot_write(b, at, gdt, sizeof(gdt));
    if (r)
        return r;
    s->gdtr = (struct x86_dtr){.base = at, .limit = sizeof(gdt) - 1};
    s->idtr = (struct x86_dtr){0};
    for (unsigned i = 0; i < X86_NSEG; i++)
        s->seg[i] = flat(ds, SEG_DATA);
    s->seg[X86_CS] = flat(cs, code_attr);
    s->ldtr = (struct x86_seg){0};
    /* PVH asks for a 32-bit TSS with base 0 and limit 67H; nobody minds. */
    s->tr = (struct x86_seg){.limit = 0x67, .attr = SEG_TSS32_BUSY};
    memset(s->gpr, 0, sizeof(s->gpr));
    s->rflags = RFLAGS_FIXED;
    s->cpl = 0;
    s->activity = X86_RUNNING;
    return 0;
}

int boot_enter_flat32(struct boot *b, u16 cs, u16 ds, u64 entry)
{
    int r = set_segments(b, cs, ds, SEG_CODE32);

    if (r)
        return r;
    b->s->cr0 = CR0_PE | CR0_ET;
    b->s->rip = entry;
    return 0;
}

int boot_enter_flat64(struct boot *b, u64 entry)
{
    /* PML4, PDPT, four page directories of 2 MiB pages. */
    static const unsigned pages = 6;
    u64 table[512];
    u64 at;
    int r = set_segments(b, 0x10, 0x18, SEG_CODE64);

    if (!r)
        r = boot_place_low(b, "the start-up page tables", pages * PAGE_SIZE, PAGE_SIZE, &at);
    if (r)
        return r;
    for (unsigned p = 0; p < pages; p++) {
        memset(table, 0, sizeof(table));
        if (p == 0)
            table[0] = (at + PAGE_SIZE) | PTE_P | PTE_RW;
        else if (p == 1)
            for (unsigned i = 0; i < 4; i++)
                table[i] = (at + (2 + i) * PAGE_SIZE) | PTE_P | PTE_RW;
        else
            for (unsigned i = 0; i < 512; i++)
                table[i] = ((u64)(p - 2) << 30 | (u64)i << 21) | PTE_P | PTE_RW | PTE_PS;
        r = boot_write(b, at + p * PAGE_SIZE, table, sizeof(table));
        if (r)
            return r;
    }
    b->s->cr3 = at;
    b->s->cr4 = CR4_PAE;
    b->s->efer = EFER_LME | EFER_LMA;
    b->s->cr0 = CR0_PE | CR0_ET | CR0_PG;
    b->s->rip = entry;
    return 0;
}
