// SPDX-License-Identifier: Apache-2.0
/* Access rights, level by level, and faults at page borders (SDM 3A 4.6, 4.7). */
#include "x64.h"

enum { READ, WRITE, FETCH };

#define VA (TEST_VA + 0x40200000ULL) /* not the first entry at any level */

USER_TEXT static u64 user_read(volatile u8 *p)
{
    return *p;
}
USER_TEXT static void user_write(volatile u8 *p)
{
    *p = 0xc3;
}
USER_TEXT static void user_fetch(void (*p)(void))
{
    p();
}

/* The error code of a reserved bit, which counts as present (SDM 3A 4.7). QEMU leaves P clear; one
 * test tells, the others allow for it. */
static u64 rsvd(u64 code)
{
    return code | PF_RSVD | (on_qemu_tcg() ? 0 : PF_P);
}

static void access(struct trap *t, u64 va, int kind, bool user, bool ac)
{
    if (user) {
        if (READ_CR(4) & CR4_SMAP)
            __asm__ volatile("stac" ::: "cc"); /* the start registers go through ring 3's stack */
        user_call(t,
                  kind == READ    ? (void *)user_read
                  : kind == WRITE ? (void *)user_write
                                  : (void *)user_fetch,
                  va, 0);
        if (READ_CR(4) & CR4_SMAP)
            __asm__ volatile("clac" ::: "cc");
        if (t->vector == USER_EXIT_VECTOR)
            t->vector = V_NONE;
        return;
    }
    TRY (t) {
        if (ac)
            __asm__ volatile("pushfq; orl $0x40000, (%%rsp); popfq" ::: "cc", "memory");
        if (kind == READ)
            (void)*(volatile u8 *)va;
        else if (kind == WRITE)
            *(volatile u8 *)va = 0xc3;
        else
            ((void (*)(void))va)();
    }
    __asm__ volatile("pushfq; andl $~0x40000, (%%rsp); popfq" ::: "cc", "memory");
}

/* What the manual says: the error code, or ~0 for no fault. */
static u64 expected(u64 flags, int kind, bool user, bool wp, bool smep, bool smap, bool ac)
{
    u64 code = (kind == WRITE ? PF_W : 0) | (user ? PF_U : 0) | (kind == FETCH ? PF_I : 0);
    bool bad;

    if (!(flags & PTE_P))
        return code;
    bad = (user && !(flags & PTE_U)) || (kind == WRITE && !(flags & PTE_W) && (user || wp)) ||
          (kind == FETCH && flags & PTE_NX);
    if (!user && flags & PTE_U) {
        bad |= kind == FETCH && smep;
        bad |= kind != FETCH && smap && !ac;
    }
    return bad ? code | PF_P : ~0ULL;
}

static void matrix(int level, u64 cr4, bool wp)
{
    bool smep = cr4 & CR4_SMEP, smap = cr4 & CR4_SMAP;
    u64 *e = pte_at(VA, level), full = *e;

    WRITE_CR(4, READ_CR(4) | cr4);
    WRITE_CR(0, wp ? READ_CR(0) | CR0_WP : READ_CR(0) & ~(uptr)CR0_WP);
    for (unsigned n = 0; n < 16; n++) {
        u64 flags =
            (n & 1 ? PTE_P : 0) | (n & 2 ? PTE_W : 0) | (n & 4 ? PTE_U : 0) | (n & 8 ? PTE_NX : 0);
        *e = (full & ~(PTE_P | PTE_W | PTE_U | PTE_NX)) | flags;
        flush_tlb();
        for (int kind = READ; kind <= FETCH; kind++)
            for (int who = 0; who < (smap ? 3 : 2); who++) {
                bool user = who == 1, ac = who == 2;
                struct trap t;
                u64 want = expected(flags, kind, user, wp, smep, smap, ac), got;

                access(&t, VA, kind, user, ac);
                got = t.vector == V_NONE ? ~0ULL : t.vector == V_PF ? t.error : 0xbad00 + t.vector;
                if (got != want)
                    test_failed(__LINE__,
                                "level %d flags %llx kind %d user %d wp %d cr4 %llx ac %d: error "
                                "%llx, want %llx",
                                level, (unsigned long long)flags, kind, user, wp,
                                (unsigned long long)cr4, ac, (unsigned long long)got,
                                (unsigned long long)want);
                else if (want != ~0ULL)
                    CHECK_EQ(t.cr2, VA);
            }
    }
    *e = full;
    WRITE_CR(4, READ_CR(4) & ~cr4);
    WRITE_CR(0, READ_CR(0) | CR0_WP);
}

static void all_levels(u64 cr4)
{
    u8 *page = page_alloc();

    page[0] = 0xc3; /* ret */
    map(VA, (uptr)page, PTE_P | PTE_W | PTE_U);
    for (int level = 1; level <= 4; level++) {
        matrix(level, cr4, true);
        matrix(level, cr4, false);
    }
}

TEST(rights__matrix)
{
    all_levels(0);
}

TEST(rights__matrix_with_smep)
{
    if (!cpu_has(7, 0, 1, 7))
        SKIP("no SMEP");
    all_levels(CR4_SMEP);
}

TEST(rights__matrix_with_smap)
{
    if (!cpu_has(7, 0, 1, 20))
        SKIP("no SMAP");
    all_levels(CR4_SMAP);
    all_levels(CR4_SMAP | CR4_SMEP);
}

TEST(rights__large_pages)
{
    u8 *big = pages_alloc(512, 0x200000);

    big[0] = 0xc3;
    map_level(VA, (uptr)big, PTE_P | PTE_W | PTE_U, 2);
    for (int level = 2; level <= 4; level++)
        matrix(level, 0, true);
    if (!cpu_has(0x80000001, 0, 3, 26))
        return;
    map_level(TEST_VA + 0x40000000, 0, PTE_P | PTE_W | PTE_U, 3); /* 1 GiB from address 0 on */
    flush_tlb();
    CHECK_EQ(*(volatile u8 *)(TEST_VA + 0x40000000 + (uptr)big), 0xc3);
}

TEST(rights__nxe_off_makes_nx_reserved)
{
    struct trap t;
    u8 *page = page_alloc();

    page[0] = 0xc3;
    map(VA, (uptr)page, PTE_P | PTE_W);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(u64)EFER_NXE);
    access(&t, VA + 0x1000, FETCH, false, false);
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.error, 0); /* without NXE (and SMEP) a fetch is not told from a read */
    access(&t, VA, FETCH, false, false);
    CHECK_EQ(t.vector, V_NONE);
    *pte_at(VA, 1) |= PTE_NX;
    flush_tlb();
    access(&t, VA, READ, false, false);
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.error, rsvd(0));
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
}

TEST(rights__wp_acts_at_once)
{
    struct trap t;

    map(VA, (uptr)page_alloc(), PTE_P);
    for (unsigned i = 0; i < 50; i++) {
        WRITE_CR(0, READ_CR(0) & ~(uptr)CR0_WP);
        access(&t, VA, WRITE, false, false);
        CHECK_EQ(t.vector, V_NONE);
        WRITE_CR(0, READ_CR(0) | CR0_WP);
        access(&t, VA, WRITE, false, false);
        CHECK_EQ(t.vector, V_PF);
    }
}

TEST(rights__smap_smep_act_at_once)
{
    struct trap t;
    u8 *page = page_alloc();

    if (!cpu_has(7, 0, 1, 20) || !cpu_has(7, 0, 1, 7))
        SKIP("no SMAP or SMEP");
    page[0] = 0xc3;
    map(VA, (uptr)page, PTE_P | PTE_W | PTE_U);
    for (unsigned i = 0; i < 50; i++) {
        access(&t, VA, READ, false, false);
        CHECK_EQ(t.vector, V_NONE);
        access(&t, VA, FETCH, false, false);
        CHECK_EQ(t.vector, V_NONE);
        WRITE_CR(4, READ_CR(4) | CR4_SMAP | CR4_SMEP);
        access(&t, VA, READ, false, false);
        CHECK_EQ(t.vector, V_PF);
        access(&t, VA, READ, false, true);
        CHECK_EQ(t.vector, V_NONE);
        access(&t, VA, FETCH, false, true); /* AC does not soften SMEP */
        CHECK_EQ(t.vector, V_PF);
        WRITE_CR(4, READ_CR(4) & ~(uptr)(CR4_SMAP | CR4_SMEP));
    }
}

TEST(rights__stac_and_clac)
{
    struct trap t;
    u64 flags;

    if (!cpu_has(7, 0, 1, 20))
        SKIP("no SMAP");
    __asm__ volatile("stac; pushfq; pop %0; clac" : "=r"(flags)::"cc");
    CHECK(flags & F_AC);
    __asm__ volatile("clac; pushfq; pop %0" : "=r"(flags)::"cc");
    CHECK(!(flags & F_AC));
    map(VA, (uptr)page_alloc(), PTE_P | PTE_W | PTE_U);
    WRITE_CR(4, READ_CR(4) | CR4_SMAP);
    for (unsigned i = 0; i < 20; i++) {
        TRY (&t) {
            __asm__ volatile("stac" ::: "cc");
            *(volatile u32 *)VA = i;
            __asm__ volatile("clac" ::: "cc");
        }
        CHECK_EQ(t.vector, V_NONE);
        TRY (&t)
            *(volatile u32 *)VA = i;
        CHECK_EQ(t.vector, V_PF);
        CHECK_EQ(t.error, PF_P | PF_W);
    }
}

/* An implicit supervisor access (here: reading the LDT) is never allowed to a user page under SMAP,
 * AC or not (SDM 3A 4.6.1). */
TEST_QEMU_DEVIATES(rights__smap_and_implicit_accesses, "lets AC cover implicit accesses")
{
    struct trap t;
    u64 *page = page_alloc();

    if (!cpu_has(7, 0, 1, 20))
        SKIP("no SMAP");
    page[1] = 0x00cff3000000ffff;
    map(VA, (uptr)page, PTE_P | PTE_W | PTE_U);
    gdt_set(SEL_SPARE, (u32)VA, 15, 0x82, 0);
    gdt[SEL_SPARE / 8 + 1] = VA >> 32;
    __asm__ volatile("lldt %w0" ::"r"(SEL_SPARE));
    WRITE_CR(4, READ_CR(4) | CR4_SMAP);
    TRY (&t)
        __asm__ volatile("stac; mov %0, %%fs; clac" ::"r"(0xf) : "cc");
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.error, PF_P);
    CHECK_EQ(t.cr2, VA + 8);
}

TEST_QEMU_DEVIATES(reserved__bits_count_as_present, "leaves P clear in the error code")
{
    struct trap t;

    map(VA, (uptr)page_alloc(), PTE_P | PTE_W);
    *pte_at(VA, 4) |= PTE_PS;
    flush_tlb();
    access(&t, VA, READ, false, false);
    CHECK_EQ(t.error, PF_P | PF_RSVD);
}

TEST(reserved__bits_at_each_level)
{
    struct trap t;
    u32 r[4];
    unsigned maxphy;
    u8 *page = page_alloc();

    cpuid(0x80000008, 0, r);
    maxphy = r[0] & 0xff;
    map(VA, (uptr)page, PTE_P | PTE_W | PTE_U);
    for (int level = 1; level <= 4; level++) {
        u64 *e = pte_at(VA, level), full = *e;
        for (unsigned b = maxphy; b < 52; b++) {
            *e = full | 1ULL << b;
            flush_tlb();
            access(&t, VA, READ, false, false);
            CHECK_EQ(t.vector, V_PF);
            CHECK_EQ(t.error, rsvd(0));
            access(&t, VA, WRITE, true, false);
            CHECK_EQ(t.error, rsvd(PF_U | PF_W));
            /* a reserved bit means nothing in an entry that is not present */
            *e = (full & ~PTE_P) | 1ULL << b;
            flush_tlb();
            access(&t, VA, READ, false, false);
            CHECK_EQ(t.error, 0);
        }
        if (level == 4) {
            *e = full | PTE_PS;
            flush_tlb();
            access(&t, VA, READ, false, false);
            CHECK_EQ(t.vector, V_PF);
            CHECK_EQ(t.error, rsvd(0));
        }
        *e = full;
        /* 52-58 and 59-62 (without PKE) are ignored */
        *e = full | 0x7ff0000000000000ULL;
        flush_tlb();
        access(&t, VA, READ, false, false);
        CHECK_EQ(t.vector, V_NONE);
        *e = full;
    }
}

TEST(reserved__low_address_bits_of_large_pages)
{
    struct trap t;
    u64 *e;

    map_level(VA, (uptr)pages_alloc(512, 0x200000), PTE_P | PTE_W, 2);
    e = pte_at(VA, 2);
    for (unsigned b = 13; b <= 20; b++) {
        *e ^= 1ULL << b;
        flush_tlb();
        access(&t, VA, READ, false, false);
        CHECK_EQ(t.vector, V_PF);
        CHECK_EQ(t.error, rsvd(0));
        *e ^= 1ULL << b;
    }
    *e |= 1ULL << 12; /* PAT */
    flush_tlb();
    access(&t, VA, READ, false, false);
    CHECK_EQ(t.vector, V_NONE);
    if (!cpu_has(0x80000001, 0, 3, 26)) {
        /* without 1 GiB pages PS is reserved in a PDPTE */
        map_level(VA, 0, PTE_P | PTE_W, 3);
        access(&t, VA, READ, false, false);
        CHECK_EQ(t.error, rsvd(0));
        return;
    }
    map_level(VA, 0, PTE_P | PTE_W, 3);
    e = pte_at(VA, 3);
    for (unsigned b = 13; b <= 29; b++) {
        *e |= 1ULL << b;
        flush_tlb();
        access(&t, VA, READ, false, false);
        CHECK_EQ(t.error, rsvd(0));
        *e &= ~(1ULL << b);
    }
}
