/* SPDX-License-Identifier: Apache-2.0 */
/* Page walks against tables built in memory. */
#include "x86/paging.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define RAM 0x100000u
#define P 1u
#define RW 2u
#define US 4u
#define A 0x20u
#define D 0x40u
#define PS 0x80u
#define G 0x100u
#define XD BIT64(63)

struct fixture {
    u8 *ram;
    struct x86_vcpu_state s;
    struct x86_walk_mem m;
    struct x86_walk w;
    unsigned touched;
};

static void *ptr(void *opaque, u64 gpa)
{
    struct fixture *f = opaque;
    assert_int_equal(gpa & 7, 0);
    return gpa + 8 <= RAM ? f->ram + gpa : NULL;
}

static void touched(void *opaque, u64 gpa)
{
    (void)gpa;
    ((struct fixture *)opaque)->touched++;
}

static struct fixture *make(void)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->ram = calloc(1, RAM);
    f->m = (struct x86_walk_mem){.ptr = ptr, .touched = touched, .opaque = f, .phys_bits = 40};
    f->s.cr0 = CR0_PE | CR0_PG | CR0_WP;
    f->s.cr3 = 0x1000;
    return f;
}

static void drop(struct fixture *f)
{
    free(f->ram);
    free(f);
}

static void put32(struct fixture *f, u32 at, u32 v)
{
    memcpy(f->ram + at, &v, 4);
}

static void put64(struct fixture *f, u32 at, u64 v)
{
    memcpy(f->ram + at, &v, 8);
}

static u64 get64(struct fixture *f, u32 at)
{
    u64 v;
    memcpy(&v, f->ram + at, 8);
    return v;
}

static bool walk(struct fixture *f, u64 va, unsigned access)
{
    return x86_walk(&f->s, &f->m, va, access, &f->w);
}

/* 4-level: one 4-KByte page at va 0x403000 -> 0x55000 with the given leaf and PDE bits. */
static void long_tables(struct fixture *f, u64 pde, u64 pte)
{
    f->s.cr4 = CR4_PAE;
    f->s.efer = EFER_LME | EFER_LMA | EFER_NXE;
    put64(f, 0x1000, 0x2000 | P | RW | US);
    put64(f, 0x2000, 0x3000 | P | RW | US);
    put64(f, 0x3000 + 8 * 2, 0x4000 | pde);
    put64(f, 0x4000 + 8 * 3, 0x55000 | pte);
}

static void paging__off_is_identity(void **state)
{
    struct fixture *f = make();
    (void)state;
    f->s.cr0 = CR0_PE;
    assert_true(walk(f, 0x1ffff0123, X86_ACC_WRITE));
    assert_int_equal(f->w.gpa, 0xffff0123);
    assert_true(f->w.user && f->w.writable && f->w.executable && f->w.dirty);
    drop(f);
}

static void paging__four_levels(void **state)
{
    struct fixture *f = make();
    (void)state;
    long_tables(f, P | RW | US, P | RW | US | G);
    f->s.cr4 |= CR4_PGE;
    assert_true(walk(f, 0x403abc, X86_ACC_READ | X86_ACC_USER));
    assert_int_equal(f->w.gpa, 0x55abc);
    assert_int_equal(f->w.page_size, 4096);
    assert_true(f->w.user && f->w.writable && f->w.executable && f->w.global);
    assert_false(f->w.dirty);
    assert_int_equal(get64(f, 0x1000) & A, A);
    assert_int_equal(get64(f, 0x4018) & (A | D), A);
    assert_int_equal(f->touched, 4);
    assert_true(walk(f, 0x403abc, X86_ACC_WRITE));
    assert_true(f->w.dirty);
    assert_int_equal(get64(f, 0x4018) & (A | D), A | D);
    assert_int_equal(get64(f, 0x3010) & (A | D), A);
    assert_int_equal(f->touched, 5);
    assert_false(walk(f, 0x404000, X86_ACC_WRITE | X86_ACC_USER));
    assert_int_equal(f->w.error, PFEC_W | PFEC_U);
    drop(f);
}

static void paging__probe_leaves_bits_alone(void **state)
{
    struct fixture *f = make();
    (void)state;
    long_tables(f, P | RW | US, P | RW | US);
    assert_true(walk(f, 0x403000, X86_ACC_WRITE | X86_ACC_NO_SET_AD));
    assert_false(f->w.dirty);
    assert_int_equal(f->touched, 0);
    assert_int_equal(get64(f, 0x4018) & (A | D), 0);
    drop(f);
}

static void paging__rights(void **state)
{
    enum { WP = 1, SMEP = 2, NOX = 4 };
    static const struct {
        u64 pde, pte;
        unsigned mode, access;
        u32 error; /* ~0: allowed */
    } c[] = {
        {P | RW | US, P | US, WP, X86_ACC_WRITE, PFEC_P | PFEC_W},
        {P | RW | US, P | US, 0, X86_ACC_WRITE, ~0u},
        {P | US, P | RW | US, 0, X86_ACC_WRITE | X86_ACC_USER, PFEC_P | PFEC_W | PFEC_U},
        {P | RW, P | RW | US, 0, X86_ACC_READ | X86_ACC_USER, PFEC_P | PFEC_U},
        {P | RW | US, P | RW | US, 0, X86_ACC_READ | X86_ACC_SMAP, PFEC_P},
        {P | RW | US, P | RW | US, 0, X86_ACC_WRITE | X86_ACC_SMAP, PFEC_P | PFEC_W},
        {P | RW, P | RW | US, 0, X86_ACC_READ | X86_ACC_SMAP, ~0u},
        {P | RW | US, P | RW | US, SMEP, X86_ACC_EXEC, PFEC_P | PFEC_I},
        {P | RW | US, P | RW | US, 0, X86_ACC_EXEC, ~0u},
        {P | RW | US, P | RW | US, SMEP, X86_ACC_EXEC | X86_ACC_USER, ~0u},
        {P | RW | US | XD, P | RW | US, 0, X86_ACC_EXEC, PFEC_P | PFEC_I},
        {P | RW | US, P | RW | US | XD, 0, X86_ACC_EXEC | X86_ACC_USER, PFEC_P | PFEC_I | PFEC_U},
        {P | RW | US, P | RW | US | XD, 0, X86_ACC_READ | X86_ACC_USER, ~0u},
        {P | RW | US, P | RW | US | XD, NOX, X86_ACC_READ, PFEC_P | PFEC_RSVD},
        {P | RW | US, P | RW | US | BIT64(45), 0, X86_ACC_READ, PFEC_P | PFEC_RSVD},
        {P | RW | US, P | RW | US | BIT64(52), 0, X86_ACC_READ, ~0u},
        {P | RW | US | BIT64(40), P, 0, X86_ACC_READ, PFEC_P | PFEC_RSVD},
        {0, P, 0, X86_ACC_EXEC, PFEC_I},
        {0, P, NOX, X86_ACC_EXEC, 0},
    };
    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(c); i++) {
        struct fixture *f = make();
        long_tables(f, c[i].pde, c[i].pte);
        if (!(c[i].mode & WP))
            f->s.cr0 &= ~CR0_WP;
        if (c[i].mode & SMEP)
            f->s.cr4 |= CR4_SMEP;
        if (c[i].mode & NOX)
            f->s.efer &= ~EFER_NXE;
        bool ok = walk(f, 0x403000, c[i].access);
        if (ok != (c[i].error == ~0u) || (!ok && f->w.error != c[i].error))
            print_message("case %u\n", i);
        assert_int_equal(ok, c[i].error == ~0u);
        if (!ok)
            assert_int_equal(f->w.error, c[i].error);
        if (!ok)
            assert_int_equal(f->touched, 0);
        drop(f);
    }
}

static void paging__large_pages(void **state)
{
    struct fixture *f = make();
    (void)state;
    long_tables(f, 0, 0);
    put64(f, 0x3000 + 8 * 5, 0x40000000 | P | RW | PS);
    assert_true(walk(f, 0xa12345, X86_ACC_READ));
    assert_int_equal(f->w.gpa, 0x40012345);
    assert_int_equal(f->w.page_size, 2u << 20);
    put64(f, 0x3000 + 8 * 5, 0x40002000 | P | PS); /* bit 13 is reserved */
    assert_false(walk(f, 0xa12345, X86_ACC_READ));
    assert_int_equal(f->w.error, PFEC_P | PFEC_RSVD);
    put64(f, 0x2000 + 8 * 3, 0x80000000 | P | PS);
    assert_true(walk(f, 0xc0123456, X86_ACC_READ));
    assert_int_equal(f->w.gpa, 0x80123456);
    assert_int_equal(f->w.page_size, 1u << 30);
    f->m.no_gbpages = true;
    assert_false(walk(f, 0xc0123456, X86_ACC_READ));
    assert_int_equal(f->w.error, PFEC_P | PFEC_RSVD);
    put64(f, 0x1000, 0x2000 | P | PS); /* PS in a PML4E */
    assert_false(walk(f, 0, X86_ACC_READ));
    assert_int_equal(f->w.error, PFEC_P | PFEC_RSVD);
    drop(f);
}

static void paging__five_levels(void **state)
{
    struct fixture *f = make();
    (void)state;
    long_tables(f, P | RW | US, P | RW | US);
    put64(f, 0x6000 + 8 * 1, 0x1000 | P | RW | US);
    f->s.cr3 = 0x6000;
    f->s.cr4 |= CR4_LA57;
    assert_true(walk(f, BIT64(48) | 0x403123, X86_ACC_READ));
    assert_int_equal(f->w.gpa, 0x55123);
    drop(f);
}

static void paging__thirty_two_bit(void **state)
{
    struct fixture *f = make();
    (void)state;
    put32(f, 0x1000 + 4 * 1, 0x2000 | P | RW | US);
    put32(f, 0x2000 + 4 * 7, 0x77000 | P | US);
    assert_true(walk(f, 0x407abc, X86_ACC_READ | X86_ACC_USER));
    assert_int_equal(f->w.gpa, 0x77abc);
    assert_false(f->w.writable);
    assert_int_equal(f->ram[0x201c] & A, A);
    assert_false(walk(f, 0x407abc, X86_ACC_WRITE));
    assert_int_equal(f->w.error, PFEC_P | PFEC_W);
    assert_false(walk(f, 0x407abc, X86_ACC_EXEC | X86_ACC_USER) && f->w.error);
    /* 4-MByte page with PSE-36 address bits 32..39 */
    put32(f, 0x1000 + 4 * 2, 0x00c00000 | 0x5 << 13 | P | RW | PS);
    f->s.cr4 = CR4_PSE;
    assert_true(walk(f, 0x812345, X86_ACC_WRITE));
    assert_int_equal(f->w.gpa, 0x500c12345);
    assert_int_equal(f->w.page_size, 4u << 20);
    assert_true(f->w.dirty);
    f->m.phys_bits = 34; /* then bits 15 and up are reserved */
    assert_false(walk(f, 0x812345, X86_ACC_READ));
    assert_int_equal(f->w.error, PFEC_P | PFEC_RSVD);
    f->s.cr4 = 0; /* without PSE it points to a table */
    assert_false(walk(f, 0x812345, X86_ACC_READ) && f->w.page_size == 4u << 20);
    drop(f);
}

static void paging__pae(void **state)
{
    struct fixture *f = make();
    u64 pdpte[4];
    (void)state;
    f->s.cr4 = CR4_PAE;
    f->s.cr3 = 0x1020;
    put64(f, 0x1020 + 8 * 3, 0x3000 | P);
    assert_true(x86_load_pdptes(&f->m, f->s.cr3, pdpte));
    memcpy(f->s.pdpte, pdpte, sizeof(pdpte));
    put64(f, 0x3000, 0x4000 | P | RW | US);
    put64(f, 0x4008, 0x123456000ull | P | RW | US);
    assert_true(walk(f, 0xc0001777, X86_ACC_WRITE | X86_ACC_USER));
    assert_int_equal(f->w.gpa, 0x123456777ull);
    assert_false(walk(f, 0x1000, X86_ACC_READ));
    assert_int_equal(f->w.error, 0);
    put64(f, 0x4008, 0x123456000ull | P | BIT64(58)); /* reserved in PAE, ignored in long mode */
    assert_false(walk(f, 0xc0001777, X86_ACC_READ));
    assert_int_equal(f->w.error, PFEC_P | PFEC_RSVD);
    put64(f, 0x1020, 0x3000 | P | US); /* reserved in a PDPTE */
    assert_false(x86_load_pdptes(&f->m, f->s.cr3, pdpte));
    drop(f);
}

static void paging__tables_outside_ram(void **state)
{
    struct fixture *f = make();
    (void)state;
    long_tables(f, 0, 0);
    f->s.cr3 = 0x10000000;
    assert_false(walk(f, 0, X86_ACC_WRITE));
    assert_int_equal(f->w.error, PFEC_P | PFEC_RSVD | PFEC_W);
    drop(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paging__off_is_identity),
        cmocka_unit_test(paging__four_levels),
        cmocka_unit_test(paging__probe_leaves_bits_alone),
        cmocka_unit_test(paging__rights),
        cmocka_unit_test(paging__large_pages),
        cmocka_unit_test(paging__five_levels),
        cmocka_unit_test(paging__thirty_two_bit),
        cmocka_unit_test(paging__pae),
        cmocka_unit_test(paging__tables_outside_ram),
    };
    return cmocka_run_group_tests_name("paging", tests, NULL, NULL);
}
