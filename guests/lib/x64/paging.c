// SPDX-License-Identifier: Apache-2.0
/* Page tables of the running CPU, by hand. */
#include "x64.h"

#define POOL_START 0x800000ULL
#define POOL_END 0x2800000ULL

extern char _image_end[];

static u64 pool_next = POOL_START;
static u64 pool_mark; /* tables made before the first test stay */

void pages_reset(void);

void *pages_alloc(unsigned n, u64 align)
{
    u64 p = (pool_next + align - 1) & ~(align - 1);

    if (p + n * 4096ULL > POOL_END) {
        test_error("out of pages");
        guest_exit(1);
    }
    pool_next = p + n * 4096ULL;
    memset((void *)p, 0, n * 4096ULL);
    return (void *)p;
}

void *page_alloc(void)
{
    return pages_alloc(1, 4096);
}

void pages_reset(void)
{
    if (!pool_mark)
        pool_mark = pool_next;
    pool_next = pool_mark;
}

u64 *pte_at(u64 va, int level)
{
    u64 *table = (u64 *)(READ_CR(3) & PTE_ADDR);

    for (int l = 4;; l--) {
        u64 *e = &table[va >> (12 + 9 * (l - 1)) & 511];
        if (l == level)
            return e;
        if (!(*e & PTE_P)) {
            *e = (uptr)page_alloc() | PTE_P | PTE_W | PTE_U;
        } else if (l <= 3 && *e & PTE_PS) {
            u64 *sub = page_alloc();
            u64 size = 1ULL << (12 + 9 * (l - 2));
            u64 flags = *e & ~PTE_ADDR & ~(l == 2 ? PTE_PS : 0);
            u64 base = *e & PTE_ADDR & ~(size * 512 - 1);
            for (unsigned i = 0; i < 512; i++)
                sub[i] = (base + i * size) | flags;
            *e = (uptr)sub | PTE_P | PTE_W | PTE_U;
        }
        table = (u64 *)(*e & PTE_ADDR);
    }
}

void map_level(u64 va, u64 pa, u64 flags, int level)
{
    *pte_at(va, level) = pa | flags | (level > 1 ? PTE_PS : 0);
    invlpg(va);
}

void map(u64 va, u64 pa, u64 flags)
{
    map_level(va, pa, flags, 1);
}

void unmap(u64 va)
{
    *pte_at(va, 1) = 0;
    invlpg(va);
}

void invlpg(u64 va)
{
    __asm__ volatile("invlpg (%0)" ::"r"(va) : "memory");
}
