// SPDX-License-Identifier: Apache-2.0
/*
 * Direct branches from one page to another, in the upper half and in global pages, as kernels have
 * them: where they lead when the target's page is another one (SDM 3A 4.10.4).
 */
#include "x64.h"

#define FROM 0xffff900000200000ULL
#define TO (FROM + 0x400000) /* other entries at two levels */
#define G (PTE_P | PTE_W | PTE_G)

typedef u64 (*fn)(void);

/* mov $n, %eax; ret */
static void put_function(u8 *at, u8 n)
{
    at[0] = 0xb8;
    at[1] = n;
    at[2] = at[3] = at[4] = 0;
    at[5] = 0xc3;
}

/* jmp, or test and a conditional branch, or call and ret, from va to target */
static void put_branch(u8 *at, u64 va, u64 target, unsigned kind)
{
    unsigned n = 0;

    if (kind == 1) {
        at[n++] = 0x39; /* cmp %eax, %eax; je */
        at[n++] = 0xc0;
        at[n++] = 0x0f;
        at[n++] = 0x84;
    } else {
        at[n++] = kind ? 0xe8 : 0xe9;
    }
    *(int *)(at + n) = (int)(target - (va + n + 4));
    at[n + 4] = 0xc3;
}

static u8 *from, *a, *b;

/* Branches at FROM to TO, where a is mapped with flags. */
static void setup(u64 flags)
{
    /* The tables of the test before are free pages now. */
    boot_pml4[FROM >> 39 & 511] = 0;
    WRITE_CR(4, READ_CR(4) & ~(uptr)CR4_PGE);
    WRITE_CR(4, READ_CR(4) | CR4_PGE);
    from = page_alloc();
    a = page_alloc();
    b = page_alloc();
    put_function(a, 1);
    put_function(b, 2);
    for (unsigned k = 0; k < 3; k++)
        put_branch(from + 64 * k, FROM + 64 * k, TO, k);
    map(FROM, (uptr)from, G);
    map(TO, (uptr)a, flags);
}

static void check(u64 want)
{
    for (unsigned i = 0; i < 5; i++)
        for (unsigned k = 0; k < 3; k++)
            CHECK_EQ(((fn)(FROM + 64 * k))(), want);
}

TEST(far__invlpg)
{
    setup(G);
    for (unsigned i = 0; i < 50; i++) {
        check(i & 1 ? 2 : 1);
        *pte_at(TO, 1) = (uptr)(i & 1 ? a : b) | G;
        invlpg(TO + 0x234); /* of any address in the page */
    }
}

TEST(far__clearing_pge)
{
    setup(G);
    for (unsigned i = 0; i < 50; i++) {
        check(i & 1 ? 2 : 1);
        *pte_at(TO, 1) = (uptr)(i & 1 ? a : b) | G;
        WRITE_CR(4, READ_CR(4) & ~(uptr)CR4_PGE);
        if (i & 2)
            check(i & 1 ? 1 : 2);
        WRITE_CR(4, READ_CR(4) | CR4_PGE);
    }
}

TEST(far__pages_that_are_not_global)
{
    setup(PTE_P | PTE_W);
    for (unsigned i = 0; i < 50; i++) {
        check(i & 1 ? 2 : 1);
        *pte_at(TO, 1) = (uptr)(i & 1 ? a : b) | PTE_P;
        flush_tlb();
    }
}

TEST(far__global_and_not_by_turns)
{
    setup(G);
    for (unsigned i = 0; i < 50; i++) {
        check(i & 1 ? 2 : 1);
        *pte_at(TO, 1) = (uptr)(i & 1 ? a : b) | PTE_P | (i & 2 ? PTE_G : 0);
        invlpg(TO);
        if (!(i & 2)) {
            check(i & 1 ? 1 : 2);
            *pte_at(TO, 1) = (uptr)(i & 1 ? b : a) | PTE_P;
            flush_tlb();
            check(i & 1 ? 2 : 1);
            *pte_at(TO, 1) = (uptr)(i & 1 ? a : b) | G;
            flush_tlb();
        }
    }
}

TEST(far__two_address_spaces)
{
    u64 *root = page_alloc(), *home = boot_pml4;

    setup(PTE_P | PTE_W);
    memcpy(root, home, 4096);
    root[FROM >> 39 & 511] = 0;
    WRITE_CR(3, (uptr)root);
    map(FROM, (uptr)from, G);
    map(TO, (uptr)b, PTE_P | PTE_W);
    for (unsigned i = 0; i < 50; i++) {
        check(2);
        WRITE_CR(3, (uptr)home);
        check(1);
        WRITE_CR(3, (uptr)root);
    }
    WRITE_CR(3, (uptr)home);
}

TEST_QEMU_DEVIATES(far__large_pages, "keeps jumps to other pieces of the page")
{
    u8 *x = pages_alloc(512, 0x200000), *y = pages_alloc(512, 0x200000);

    setup(G);
    *pte_at(TO, 1) = 0;
    invlpg(TO);
    put_function(x, 1);
    put_function(y, 2);
    map_level(TO, (uptr)x, G, 2);
    for (unsigned i = 0; i < 20; i++) {
        check(i & 1 ? 2 : 1);
        *pte_at(TO, 2) = (uptr)(i & 1 ? x : y) | G | PTE_PS;
        if (i & 2)
            WRITE_CR(4, READ_CR(4) & ~(uptr)CR4_PGE);
        else
            invlpg(TO + 0x123000); /* the whole 2 MiB translation goes */
        WRITE_CR(4, READ_CR(4) | CR4_PGE);
    }
    map_level(TO, 0, 0, 2);
}

TEST(far__unmapped_and_not_executable)
{
    struct trap t;

    setup(G);
    check(1);
    for (unsigned i = 0; i < 20; i++) {
        unmap(TO);
        TRY (&t)
            ((fn)(FROM + 64 * (i % 2)))();
        CHECK_EQ(t.vector, V_PF);
        CHECK_EQ(t.cr2, TO);
        CHECK_EQ(t.regs.rip, TO);
        map(TO, (uptr)a, G | PTE_NX);
        TRY (&t)
            ((fn)(FROM + 64 * (i % 2)))();
        CHECK_EQ(t.vector, V_PF);
        CHECK_EQ(t.error, PF_I | PF_P);
        map(TO, (uptr)a, G);
        check(1);
    }
}

TEST(far__smep_set_later)
{
    struct trap t;

    if (!cpu_has(7, 0, 1, 7))
        SKIP("no SMEP");
    setup(G | PTE_U);
    for (int level = 2; level <= 4; level++)
        *pte_at(TO, level) |= PTE_U;
    flush_tlb();
    check(1);
    WRITE_CR(4, READ_CR(4) | CR4_SMEP);
    TRY (&t)
        ((fn)FROM)();
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.regs.rip, TO);
    WRITE_CR(4, READ_CR(4) & ~(uptr)CR4_SMEP);
    check(1);
}

TEST(far__target_rewritten)
{
    setup(G);
    for (unsigned i = 0; i < 50; i++) {
        check(i & 1 ? 2 : 1);
        a[1] = i & 1 ? 1 : 2;
    }
}
