// SPDX-License-Identifier: Apache-2.0
/* Accessed and dirty bits, and what must be forgotten when (SDM 3A 4.8, 4.10). */
#include "x64.h"

#define VA (TEST_VA + 0x40200000ULL)

static void touch(u64 va)
{
    (void)*(volatile u8 *)va;
}

static void store(u64 va, u8 v)
{
    *(volatile u8 *)va = v;
}

static u8 load(u64 va)
{
    return *(volatile u8 *)va;
}

TEST(ad__set_at_every_level)
{
    map(VA, (uptr)page_alloc(), PTE_P | PTE_W);
    for (int level = 1; level <= 4; level++)
        *pte_at(VA, level) &= ~(PTE_A | PTE_D);
    flush_tlb();
    touch(VA);
    for (int level = 1; level <= 4; level++) {
        CHECK(*pte_at(VA, level) & PTE_A);
        CHECK(!(*pte_at(VA, level) & PTE_D));
    }
    store(VA, 1);
    CHECK(*pte_at(VA, 1) & PTE_D);
    for (int level = 2; level <= 4; level++)
        CHECK(!(*pte_at(VA, level) & PTE_D)); /* D is for the entry that maps the page */
}

TEST(ad__set_by_fetch_and_rmw)
{
    u8 *page = page_alloc();

    page[0] = 0xc3;
    map(VA, (uptr)page, PTE_P | PTE_W);
    ((void (*)(void))VA)();
    CHECK_EQ(*pte_at(VA, 1) & (PTE_A | PTE_D), PTE_A);
    map(VA, (uptr)page, PTE_P | PTE_W);
    __asm__ volatile("lock orb $0, (%0)" ::"r"(VA) : "memory", "cc");
    CHECK_EQ(*pte_at(VA, 1) & (PTE_A | PTE_D), PTE_A | PTE_D);
}

TEST(ad__large_pages)
{
    map_level(VA, (uptr)pages_alloc(512, 0x200000), PTE_P | PTE_W, 2);
    touch(VA + 0x12345);
    CHECK_EQ(*pte_at(VA, 2) & (PTE_A | PTE_D), PTE_A);
    store(VA + 0x1fffff, 1);
    CHECK_EQ(*pte_at(VA, 2) & (PTE_A | PTE_D), PTE_A | PTE_D);
    if (!cpu_has(0x80000001, 0, 3, 26))
        return;
    map_level(VA, 0, PTE_P | PTE_W, 3);
    flush_tlb();
    touch(VA);
    CHECK_EQ(*pte_at(VA, 3) & (PTE_A | PTE_D), PTE_A);
}

TEST(ad__cleared_and_flushed_come_back)
{
    map(VA, (uptr)page_alloc(), PTE_P | PTE_W);
    for (unsigned i = 0; i < 100; i++) {
        store(VA, 1);
        CHECK_EQ(*pte_at(VA, 1) & (PTE_A | PTE_D), PTE_A | PTE_D);
        *pte_at(VA, 1) &= ~PTE_D;
        invlpg(VA);
        touch(VA);
        CHECK_EQ(*pte_at(VA, 1) & PTE_D, 0);
        *pte_at(VA, 1) &= ~PTE_A;
        invlpg(VA);
        touch(VA);
        CHECK_EQ(*pte_at(VA, 1) & (PTE_A | PTE_D), PTE_A);
    }
}

TEST(ad__not_dirty_after_a_refused_store)
{
    struct trap t;

    map(VA, (uptr)page_alloc(), PTE_P);
    TRY (&t)
        store(VA, 1);
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(*pte_at(VA, 1) & PTE_D, 0);
}

TEST(tlb__missing_entries_are_not_cached)
{
    struct trap t;
    u8 *page = page_alloc();

    page[0] = 0x5a;
    for (int level = 1; level <= 4; level++) {
        u64 *e, full;
        map(VA, (uptr)page, PTE_P | PTE_W);
        e = pte_at(VA, level);
        full = *e;
        *e = 0;
        flush_tlb();
        TRY (&t)
            touch(VA);
        CHECK_EQ(t.vector, V_PF);
        *e = full; /* no flush: SDM 3A 4.10.2.3, entries with P = 0 are never cached */
        TRY (&t)
            touch(VA);
        CHECK_EQ(t.vector, V_NONE);
    }
}

TEST(tlb__more_rights_need_at_most_one_fault)
{
    struct trap t;

    map(VA, (uptr)page_alloc(), PTE_P);
    touch(VA);
    *pte_at(VA, 1) |= PTE_W;
    TRY (&t)
        store(VA, 1);
    if (t.vector != V_NONE) /* the fault has dropped the old entry */
        TRY (&t)
            store(VA, 1);
    CHECK_EQ(t.vector, V_NONE);
}

TEST(tlb__invlpg_shows_the_new_frame)
{
    u8 *a = page_alloc(), *b = page_alloc();

    *a = 0xa;
    *b = 0xb;
    map(VA, (uptr)a, PTE_P | PTE_W);
    for (unsigned i = 0; i < 200; i++) {
        CHECK_EQ(load(VA), i & 1 ? 0xb : 0xa);
        *pte_at(VA, 1) = (uptr)(i & 1 ? a : b) | PTE_P | PTE_W;
        invlpg(VA + (i * 37 & 0xfff)); /* any address in the page */
    }
}

/* The first and the last page of all: what is next to them wraps. */
TEST(tlb__invlpg_at_the_ends)
{
    static const u64 page[] = {0, ~0xfffULL};

    for (unsigned i = 0; i < 2; i++) {
        u8 *a = page_alloc(), *b = page_alloc();
        volatile u64 fn = page[i] + 0x100;
        u64 was = *pte_at(page[i], 1);

        memcpy(a + 0x100, "\xb8\1\0\0\0\xc3", 6); /* mov $1, %eax; ret */
        memcpy(b + 0x100, "\xb8\2\0\0\0\xc3", 6);
        map(page[i], (uptr)a, PTE_P | PTE_W);
        for (unsigned k = 0; k < 3; k++)
            CHECK_EQ(((u64(*)(void))fn)(), 1);
        map(page[i], (uptr)b, PTE_P | PTE_W);
        CHECK_EQ(((u64(*)(void))fn)(), 2);
        *pte_at(page[i], 1) = was;
        invlpg(page[i]);
        /* Tables made for it are this test's. */
        if (i)
            boot_pml4[511] = 0;
    }
    flush_tlb();
}

TEST(tlb__invlpg_of_one_page_of_a_large_page)
{
    u8 *a = pages_alloc(512, 0x200000), *b = pages_alloc(512, 0x200000);

    a[0x5000] = 0xa;
    b[0x5000] = 0xb;
    map_level(VA, (uptr)a, PTE_P | PTE_W, 2);
    CHECK_EQ(load(VA + 0x5000), 0xa);
    touch(VA + 0x123000);
    *pte_at(VA, 2) = (uptr)b | PTE_P | PTE_W | PTE_PS;
    invlpg(VA + 0x123000); /* the whole 2 MiB translation goes */
    CHECK_EQ(load(VA + 0x5000), 0xb);
    map_level(VA, 0, 0, 2);
}

TEST(tlb__invlpg_drops_upper_levels_too)
{
    u64 *e, *t2 = page_alloc();
    u8 *a = page_alloc(), *b = page_alloc();

    *a = 0xa;
    *b = 0xb;
    map(VA, (uptr)a, PTE_P | PTE_W);
    CHECK_EQ(load(VA), 0xa);
    t2[VA >> 12 & 511] = (uptr)b | PTE_P | PTE_W;
    e = pte_at(VA, 2);
    *e = (uptr)t2 | PTE_P | PTE_W;
    invlpg(VA);
    CHECK_EQ(load(VA), 0xb);
}

TEST(tlb__fewer_rights_after_invlpg)
{
    struct trap t;

    map(VA, (uptr)page_alloc(), PTE_P | PTE_W);
    for (unsigned i = 0; i < 50; i++) {
        store(VA, 1);
        *pte_at(VA, 1) &= ~PTE_W;
        invlpg(VA);
        TRY (&t)
            store(VA, 2);
        CHECK_EQ(t.vector, V_PF);
        *pte_at(VA, 1) &= ~PTE_P;
        invlpg(VA);
        TRY (&t)
            touch(VA);
        CHECK_EQ(t.vector, V_PF);
        *pte_at(VA, 1) |= PTE_P | PTE_W;
        invlpg(VA);
    }
}

TEST(tlb__loading_cr3_forgets)
{
    u8 *a = page_alloc(), *b = page_alloc();

    *a = 0xa;
    *b = 0xb;
    map(VA, (uptr)a, PTE_P);
    for (unsigned i = 0; i < 100; i++) {
        CHECK_EQ(load(VA), i & 1 ? 0xb : 0xa);
        *pte_at(VA, 1) = (uptr)(i & 1 ? a : b) | PTE_P;
        flush_tlb();
    }
}

TEST(tlb__two_address_spaces)
{
    u64 *root = page_alloc(), *home = boot_pml4;
    u8 *a = page_alloc(), *b = page_alloc();

    *a = 0xa;
    *b = 0xb;
    map(VA, (uptr)a, PTE_P);
    memcpy(root, home, 4096);
    root[1] = 0;
    WRITE_CR(3, (uptr)root);
    map(VA, (uptr)b, PTE_P);
    for (unsigned i = 0; i < 200; i++) {
        CHECK_EQ(load(VA), 0xb);
        WRITE_CR(3, (uptr)home);
        CHECK_EQ(load(VA), 0xa);
        WRITE_CR(3, (uptr)root);
    }
}

TEST(tlb__clearing_pge_forgets_global_pages)
{
    u8 *a = page_alloc(), *b = page_alloc();

    if (!cpu_has(1, 0, 3, 13))
        SKIP("no global pages");
    *a = 0xa;
    *b = 0xb;
    WRITE_CR(4, READ_CR(4) | CR4_PGE);
    map(VA, (uptr)a, PTE_P | PTE_G);
    for (unsigned i = 0; i < 50; i++) {
        CHECK_EQ(load(VA), i & 1 ? 0xb : 0xa);
        *pte_at(VA, 1) = (uptr)(i & 1 ? a : b) | PTE_P | PTE_G;
        if (i & 2) {
            invlpg(VA); /* INVLPG takes global entries too */
        } else {
            WRITE_CR(4, READ_CR(4) & ~(uptr)CR4_PGE);
            WRITE_CR(4, READ_CR(4) | CR4_PGE);
        }
    }
}

static void invpcid(u64 type, u64 pcid, u64 va)
{
    struct {
        u64 pcid, va;
    } d = {pcid, va};
    __asm__ volatile("invpcid %1, %0" ::"r"(type), "m"(d) : "memory");
}

TEST(pcid__cr3_and_cr4_rules)
{
    struct trap t;

    if (!cpu_has(1, 0, 2, 17)) {
        if (on_qemu_tcg())
            SKIP("no PCID, and QEMU takes PCIDE all the same");
        TRY (&t)
            WRITE_CR(4, READ_CR(4) | CR4_PCIDE);
        CHECK_EQ(t.vector, V_GP);
        SKIP("no PCID");
    }
    WRITE_CR(3, READ_CR(3) | PTE_PCD); /* bits 11:0 must be 0 when PCIDE is set */
    TRY (&t)
        WRITE_CR(4, READ_CR(4) | CR4_PCIDE);
    CHECK_EQ(t.vector, V_GP);
    WRITE_CR(3, (uptr)boot_pml4);
    TRY (&t)
        WRITE_CR(3, (uptr)boot_pml4 | 1ULL << 63); /* reserved without PCIDE */
    CHECK_EQ(t.vector, V_GP);
    WRITE_CR(4, READ_CR(4) | CR4_PCIDE);
    WRITE_CR(3, (uptr)boot_pml4 | 0x123 | 1ULL << 63);
    CHECK_EQ(READ_CR(3), (uptr)boot_pml4 | 0x123); /* bit 63 is not kept */
    TRY (&t)
        WRITE_CR(0, READ_CR(0) & ~(uptr)CR0_PG);
    CHECK_EQ(t.vector, V_GP);
}

TEST(pcid__spaces_do_not_mix)
{
    u64 *root = page_alloc();
    u8 *a = page_alloc(), *b = page_alloc();
    u64 nf = 1ULL << 63;

    if (!cpu_has(1, 0, 2, 17))
        SKIP("no PCID");
    *a = 0xa;
    *b = 0xb;
    map(VA, (uptr)a, PTE_P);
    memcpy(root, boot_pml4, 4096);
    root[1] = 0;
    WRITE_CR(3, (uptr)root);
    map(VA, (uptr)b, PTE_P);
    WRITE_CR(3, (uptr)boot_pml4);
    WRITE_CR(4, READ_CR(4) | CR4_PCIDE);
    WRITE_CR(3, (uptr)root | 1);
    for (unsigned i = 0; i < 200; i++) {
        CHECK_EQ(load(VA), 0xb);
        WRITE_CR(3, (uptr)boot_pml4 | 2 | (i & 1 ? nf : 0));
        CHECK_EQ(load(VA), 0xa);
        WRITE_CR(3, (uptr)root | 1 | (i & 2 ? nf : 0));
    }
    /* a change, and a load of CR3 with bit 63 clear: that PCID's old entry must go */
    *pte_at(VA, 1) = (uptr)a | PTE_P;
    WRITE_CR(3, (uptr)boot_pml4 | 2 | nf);
    WRITE_CR(3, (uptr)root | 1);
    CHECK_EQ(load(VA), 0xa);
    /* INVLPG drops the current PCID's entry only, so it must be enough here */
    *pte_at(VA, 1) = (uptr)b | PTE_P;
    invlpg(VA);
    CHECK_EQ(load(VA), 0xb);
    /* changed in PCID 2's tables while away, entered without a flush: INVPCID makes it seen */
    WRITE_CR(3, (uptr)boot_pml4 | 2 | nf);
    CHECK_EQ(load(VA), 0xa);
    if (cpu_has(7, 0, 1, 10)) {
        for (unsigned type = 0; type < 4; type++) {
            u64 *e = pte_at(VA, 1);
            touch(VA);
            WRITE_CR(3, (uptr)root | 1 | nf);
            *e = (uptr)(type & 1 ? a : b) | PTE_P;
            invpcid(type, 2, VA);
            WRITE_CR(3, (uptr)boot_pml4 | 2 | nf);
            CHECK_EQ(load(VA), type & 1 ? 0xa : 0xb);
        }
    }
    /* clearing PCIDE forgets all */
    WRITE_CR(3, (uptr)boot_pml4);
    *pte_at(VA, 1) = (uptr)a | PTE_P;
    WRITE_CR(4, READ_CR(4) & ~(uptr)CR4_PCIDE);
    CHECK_EQ(load(VA), 0xa);
}

USER_TEXT static void user_invpcid(void)
{
    __asm__ volatile("invpcid -32(%%rsp), %%rax" ::"a"(2ULL));
}

#define LOCAL 40

/* A function in a page of its own that returns n. */
static void put_function(u8 *page, u8 n)
{
    page[0] = 0xb8; /* mov $n, %eax; ret */
    page[1] = n;
    page[2] = page[3] = page[4] = 0;
    page[5] = 0xc3;
}

/* As with page-table isolation: a kernel's pages, data and code, are not global, and other ones at
 * the same addresses in the other space. */
TEST(pcid__a_kernel_with_many_local_pages)
{
    u64 *root[2] = {boot_pml4, page_alloc()};
    u64 nf = 1ULL << 63;

    if (!cpu_has(1, 0, 2, 17))
        SKIP("no PCID");
    memcpy(root[1], boot_pml4, 4096);
    root[1][1] = 0;
    WRITE_CR(4, READ_CR(4) | CR4_PCIDE);
    for (unsigned space = 0; space < 2; space++) {
        WRITE_CR(3, (uptr)root[space] | (space + 1));
        for (unsigned i = 0; i < LOCAL; i++) {
            u8 *page = page_alloc();

            put_function(page, (u8)(100 * space + i));
            map(VA + 4096 * i, (uptr)page, PTE_P | PTE_W);
        }
    }
    for (unsigned n = 0; n < 400; n++) {
        unsigned space = n & 1;

        WRITE_CR(3, (uptr)root[space] | (space + 1) | nf);
        for (unsigned i = 0; i < LOCAL; i++) {
            u64 va = VA + 4096 * i;

            store(va + 64, (u8)(n + i));
            CHECK_EQ(((u64(*)(void))va)(), 100 * space + i);
        }
        WRITE_CR(3, (uptr)root[!space] | (!space + 1) | nf);
        for (unsigned i = 0; n && i < LOCAL; i++)
            CHECK_EQ(load(VA + 4096 * i + 64), (u8)(n - 1 + i));
    }
    WRITE_CR(3, (uptr)boot_pml4);
    WRITE_CR(4, READ_CR(4) & ~(uptr)CR4_PCIDE);
}

TEST(invpcid__checks)
{
    struct trap t;

    if (!cpu_has(7, 0, 1, 10))
        SKIP("no INVPCID");
    TRY (&t)
        invpcid(2, 0, 0);
    CHECK_EQ(t.vector, V_NONE);
    TRY (&t)
        invpcid(4, 0, 0);
    CHECK_EQ(t.vector, V_GP);
    TRY (&t)
        invpcid(0, 1ULL << 12, 0); /* reserved bits of the descriptor */
    CHECK_EQ(t.vector, V_GP);
    TRY (&t)
        invpcid(0, 1, VA); /* PCID not 0 without PCIDE */
    CHECK_EQ(t.vector, V_GP);
    TRY (&t)
        invpcid(0, 0, 1ULL << 50);
    CHECK_EQ(t.vector, V_GP);
    user_call(&t, user_invpcid, 0, 0);
    CHECK_EQ(t.vector, V_GP);
}

TEST(cr__reserved_bits_and_dependencies)
{
    struct trap t;

    if (on_qemu_tcg())
        SKIP("QEMU lets LME be cleared while paging, and is lost");
    TRY (&t)
        WRITE_CR(4, READ_CR(4) | 1ULL << 31);
    CHECK_EQ(t.vector, V_GP);
    TRY (&t)
        wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(u64)EFER_LME); /* while paging */
    CHECK_EQ(t.vector, V_GP);
    TRY (&t)
        wrmsr(MSR_EFER, rdmsr(MSR_EFER) | 2);
    CHECK_EQ(t.vector, V_GP);
    CHECK_EQ(rdmsr(MSR_EFER) & (EFER_LMA | EFER_LME), EFER_LMA | EFER_LME);
}

TEST(cr0_cr4__rules_qemu_does_not_know)
{
    struct trap t;
    u32 r[4];

    if (on_qemu_tcg())
        SKIP("QEMU checks none of this, and leaves long mode");
    TRY (&t)
        WRITE_CR(0, (READ_CR(0) | CR0_NW) & ~(uptr)CR0_CD);
    CHECK_EQ(t.vector, V_GP);
    TRY (&t)
        WRITE_CR(0, READ_CR(0) & ~(uptr)CR0_PE); /* PG without PE */
    CHECK_EQ(t.vector, V_GP);
    TRY (&t)
        WRITE_CR(0, READ_CR(0) | 1ULL << 32);
    CHECK_EQ(t.vector, V_GP);
    TRY (&t)
        WRITE_CR(0, READ_CR(0) & ~(uptr)CR0_PG); /* from 64-bit code */
    CHECK_EQ(t.vector, V_GP);
    cpuid(0x80000008, 0, r);
    if ((r[0] & 0xff) < 52) {
        TRY (&t)
            WRITE_CR(3, READ_CR(3) | 1ULL << (r[0] & 0xff));
        CHECK_EQ(t.vector, V_GP);
    }
    TRY (&t)
        WRITE_CR(4, READ_CR(4) & ~(uptr)CR4_PAE); /* in long mode */
    CHECK_EQ(t.vector, V_GP);
    TRY (&t)
        WRITE_CR(4, READ_CR(4) | CR4_LA57); /* not while paging, whether there is LA57 or not */
    CHECK_EQ(t.vector, V_GP);
}

TEST(cr__undefined_control_registers)
{
    struct trap t;

    TRY (&t)
        __asm__ volatile(".byte 0x0f, 0x20, 0xc8" ::: "rax"); /* mov %cr1, %rax */
    CHECK_EQ(t.vector, V_UD);
    TRY (&t)
        __asm__ volatile(".byte 0x0f, 0x20, 0xe8" ::: "rax"); /* mov %cr5, %rax */
    CHECK_EQ(t.vector, V_UD);
    TRY (&t)
        __asm__ volatile("mov %0, %%cr8; mov %%cr8, %0" ::"r"(5ULL));
    CHECK_EQ(t.vector, V_NONE);
    CHECK_EQ(READ_CR(8), 5);
    WRITE_CR(8, 0);
    if (on_qemu_tcg())
        return; /* takes any value */
    TRY (&t)
        WRITE_CR(8, 16);
    CHECK_EQ(t.vector, V_GP);
}

#define HOLE 0xd0000000ULL /* between RAM and the chipset's windows: nobody answers */

TEST(hole__tables_outside_memory)
{
    struct trap t;

    /* all ones where tables should be: present, and every reserved bit set */
    map(VA, (uptr)page_alloc(), PTE_P | PTE_W);
    *pte_at(VA, 2) = HOLE | PTE_P | PTE_W;
    flush_tlb();
    TRY (&t)
        touch(VA);
    CHECK_EQ(t.vector, V_PF);
}

TEST(pku__rights_by_key)
{
    struct trap t;

    if (!cpu_has(7, 0, 2, 3)) {
        TRY (&t)
            WRITE_CR(4, READ_CR(4) | CR4_PKE);
        CHECK_EQ(t.vector, V_GP);
        SKIP("no PKU");
    }
    WRITE_CR(4, READ_CR(4) | CR4_PKE);
    map(VA, (uptr)page_alloc(), PTE_P | PTE_W | PTE_U | 3ULL << 59);
    __asm__ volatile(".byte 0x0f, 0x01, 0xef" ::"a"(2 << 6), "c"(0),
                     "d"(0)); /* WRPKRU: key 3 no write */
    TRY (&t)
        touch(VA);
    CHECK_EQ(t.vector, V_NONE);
    TRY (&t)
        store(VA, 1);
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.error, PF_P | PF_W | 0x20);
    __asm__ volatile(".byte 0x0f, 0x01, 0xef" ::"a"(1 << 6), "c"(0), "d"(0)); /* no access */
    TRY (&t)
        touch(VA);
    CHECK_EQ(t.error, PF_P | 0x20);
    __asm__ volatile(".byte 0x0f, 0x01, 0xef" ::"a"(0), "c"(0), "d"(0));
}
