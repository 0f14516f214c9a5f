// SPDX-License-Identifier: Apache-2.0
/* The string instructions: sizes, directions, overlap, counts, faults in the middle and restart
 * (SDM 2B REP, MOVS, STOS, CMPS, SCAS, LODS). */
#include "x64.h"

#define VA (TEST_VA + 0x300000ULL)
#define PAGES 4

static u8 *frame[PAGES];

static void window(u64 flags)
{
    for (unsigned i = PAGES; i-- > 0;)
        frame[i] = page_alloc();
    for (unsigned i = 0; i < PAGES; i++)
        map(VA + i * 4096, (uptr)frame[i], flags);
}

static u8 at(u64 off)
{
    return *(volatile u8 *)(VA + off);
}

static void put(u64 off, u8 v)
{
    *(volatile u8 *)(VA + off) = v;
}

struct rep {
    u64 rsi, rdi, rcx, rax, rflags;
};

#define REP(insn, r, df)                                                                           \
    __asm__ volatile(df " ; mov %5, %%r8; push %%r8; push %%rbx; xor %%r8d, %%r8d; " insn          \
                        "; pop %%rbx; pop %%r8; pushfq; pop %4; cld"                               \
                     : "+S"((r)->rsi), "+D"((r)->rdi), "+c"((r)->rcx), "+a"((r)->rax),             \
                       "=&r"((r)->rflags)                                                          \
                     : "r"(0ULL)                                                                   \
                     : "r8", "memory", "cc")

TEST(movs__sizes_and_directions)
{
    struct rep r;

    window(PTE_P | PTE_W);
#define MOVS(insn, size, dir, back)                                                                \
    for (unsigned i = 0; i < 4096; i++)                                                            \
        put(i, (u8)(i * 7)), put(8192 + i, 0);                                                     \
    r = (struct rep){VA + (back ? 100 * size - size : 0),                                          \
                     VA + 8192 + (back ? 100 * size - size : 0), 100, 0, 0};                       \
    REP(insn, &r, dir);                                                                            \
    CHECK_EQ(r.rcx, 0);                                                                            \
    CHECK_EQ(r.rsi, back ? VA - size : VA + 100 * size);                                           \
    CHECK_EQ(r.rdi, back ? VA + 8192 - size : VA + 8192 + 100 * size);                             \
    for (unsigned i = 0; i < 100 * size; i++)                                                      \
        if (at(8192 + i) != (u8)(i * 7)) {                                                         \
            test_failed(__LINE__, "%s %s: byte %u is %x", insn, dir, i, at(8192 + i));             \
            break;                                                                                 \
        }                                                                                          \
    CHECK_EQ(at(8192 + 100 * size), 0)
    MOVS("rep movsb", 1, "cld", 0);
    MOVS("rep movsw", 2, "cld", 0);
    MOVS("rep movsl", 4, "cld", 0);
    MOVS("rep movsq", 8, "cld", 0);
    MOVS("rep movsb", 1, "std", 1);
    MOVS("rep movsw", 2, "std", 1);
    MOVS("rep movsl", 4, "std", 1);
    MOVS("rep movsq", 8, "std", 1);
}

TEST(movs__overlap_spreads_byte_by_byte)
{
    struct rep r;

    window(PTE_P | PTE_W);
    for (unsigned i = 0; i < 8; i++)
        put(i, (u8)(0xa0 + i));
    r = (struct rep){VA, VA + 3, 5000, 0, 0}; /* destination 3 above the source: a pattern of 3 */
    REP("rep movsb", &r, "cld");
    for (unsigned i = 0; i < 5003; i++)
        if (at(i) != 0xa0 + i % 3) {
            test_failed(__LINE__, "byte %u is %x", i, at(i));
            break;
        }
    for (unsigned i = 0; i < 64; i++)
        put(i, (u8)i);
    r = (struct rep){VA, VA + 4, 100, 0, 0}; /* quads: each reads half of the one just written */
    REP("rep movsq", &r, "cld");
    for (unsigned i = 0; i < 800; i++) {
        /* the model: plain 8-byte steps */
        static u8 model[1024];
        if (i == 0) {
            for (unsigned k = 0; k < 64; k++)
                model[k] = (u8)k;
            for (unsigned k = 64; k < 1024; k++)
                model[k] = k < 5003 ? (u8)(0xa0 + k % 3) : 0;
            for (unsigned n = 0; n < 100; n++) {
                u8 q[8];
                memcpy(q, model + n * 8, 8);
                memcpy(model + n * 8 + 4, q, 8);
            }
        }
        if (at(i) != model[i]) {
            test_failed(__LINE__, "byte %u is %x, want %x", i, at(i), model[i]);
            break;
        }
    }
    /* downwards, overlapping the other way: a true move */
    for (unsigned i = 0; i < 200; i++)
        put(i, (u8)i);
    r = (struct rep){VA + 199, VA + 209, 200, 0, 0};
    REP("rep movsb", &r, "std");
    for (unsigned i = 0; i < 200; i++)
        CHECK_EQ(at(i + 10), i);
}

TEST(stos__sizes_and_directions)
{
    struct rep r;

    window(PTE_P | PTE_W);
#define STOS(insn, size, dir, back)                                                                \
    memset((void *)VA, 0x55, 8192);                                                                \
    r = (struct rep){0, VA + 4096 - 40 * size + (back ? 80 * size - size : 0), 80,                 \
                     0x8877665544332211ULL, 0};                                                    \
    REP(insn, &r, dir);                                                                            \
    CHECK_EQ(r.rcx, 0);                                                                            \
    CHECK_EQ(r.rdi, VA + 4096 - 40 * size + (back ? -(s64)size : 80 * size));                      \
    for (unsigned i = 0; i < 80 * size; i++)                                                       \
        CHECK_EQ(at(4096 - 40 * size + i), 0x11 * (i % size + 1));                                 \
    CHECK_EQ(at(4096 - 40 * size - 1), 0x55);                                                      \
    CHECK_EQ(at(4096 + 40 * size), 0x55)
    STOS("rep stosb", 1, "cld", 0);
    STOS("rep stosw", 2, "cld", 0);
    STOS("rep stosl", 4, "cld", 0);
    STOS("rep stosq", 8, "cld", 0);
    STOS("rep stosb", 1, "std", 1);
    STOS("rep stosw", 2, "std", 1);
    STOS("rep stosl", 4, "std", 1);
    STOS("rep stosq", 8, "std", 1);
}

TEST(lods__and_single_steps_without_rep)
{
    struct rep r;

    window(PTE_P | PTE_W);
    for (unsigned i = 0; i < 64; i++)
        put(i, (u8)(0x10 + i));
    r = (struct rep){VA, 0, 5, ~0ULL, 0};
    REP("lodsb", &r, "cld");
    CHECK_EQ(r.rsi, VA + 1);
    CHECK_EQ(r.rax, 0xffffffffffffff10);
    CHECK_EQ(r.rcx, 5);
    r = (struct rep){VA, 0, 5, ~0ULL, 0};
    REP("lodsw", &r, "std");
    CHECK_EQ(r.rsi, VA - 2);
    CHECK_EQ(r.rax, 0xffffffffffff1110);
    r = (struct rep){VA, 0, 5, ~0ULL, 0};
    REP("lodsl", &r, "cld");
    CHECK_EQ(r.rax, 0x13121110); /* a 32-bit result clears the upper half */
    r = (struct rep){VA, 0, 5, ~0ULL, 0};
    REP("rep lodsq", &r, "cld");
    CHECK_EQ(r.rsi, VA + 40);
    CHECK_EQ(r.rcx, 0);
    CHECK_EQ(r.rax, 0x3736353433323130);
    r = (struct rep){VA, VA + 100, 5, 0xee, 0};
    REP("movsb", &r, "cld");
    CHECK_EQ(r.rsi, VA + 1);
    CHECK_EQ(r.rdi, VA + 101);
    CHECK_EQ(r.rcx, 5);
    REP("stosb", &r, "std");
    CHECK_EQ(r.rdi, VA + 100);
    CHECK_EQ(at(101), 0xee);
}

TEST(once__sizes_and_directions)
{
    struct rep r;

    window(PTE_P | PTE_W);
    for (unsigned i = 0; i < 64; i++)
        put(i, (u8)(0x10 + i));
#define ONCE(insn, size, df, step)                                                                 \
    memset((void *)(VA + 0x100), 0, 64);                                                           \
    r = (struct rep){VA + 16, VA + 0x110, 5, 0x8877665544332211, 0};                               \
    REP("movs" insn, &r, df);                                                                      \
    CHECK_EQ(r.rsi, VA + 16 + (step));                                                             \
    CHECK_EQ(r.rdi, VA + 0x110 + (step));                                                          \
    CHECK_EQ(r.rcx, 5);                                                                            \
    CHECK_EQ(memcmp((void *)(VA + 16), (void *)(VA + 0x110), size), 0);                            \
    CHECK_EQ(at(0x10f) | at(0x110 + (size)), 0);                                                   \
    REP("stos" insn, &r, df);                                                                      \
    CHECK_EQ(r.rdi, VA + 0x110 + 2 * (step));                                                      \
    CHECK_EQ(memcmp((void *)(VA + 0x110 + (step)), &r.rax, size), 0);                              \
    /* across a page's end */                                                                      \
    r = (struct rep){VA + 16, VA + 4095, 5, 0x8877665544332211, 0};                                \
    REP("movs" insn, &r, df);                                                                      \
    CHECK_EQ(memcmp((void *)(VA + 16), (void *)(VA + 4095), size), 0);                             \
    r.rsi = VA + 4095;                                                                             \
    REP("lods" insn, &r, df);                                                                      \
    CHECK_EQ(r.rsi, VA + 4095 + (step));                                                           \
    r.rsi = VA + 4095;                                                                             \
    r.rdi = VA + 16;                                                                               \
    REP("stc; cmps" insn, &r, df);                                                                 \
    CHECK_EQ(r.rflags &(F_ZF | F_CF | F_SF), F_ZF);                                                \
    CHECK_EQ(r.rsi, VA + 4095 + (step));                                                           \
    CHECK_EQ(r.rdi, VA + 16 + (step));                                                             \
    r.rdi = VA + 16;                                                                               \
    r.rsi = VA + 17; /* more than at VA + 16 */                                                    \
    REP("cmps" insn, &r, df);                                                                      \
    CHECK_EQ(r.rflags &(F_ZF | F_CF), 0);                                                          \
    r.rdi = VA + 17;                                                                               \
    r.rsi = VA + 16;                                                                               \
    REP("cmps" insn, &r, df);                                                                      \
    CHECK_EQ(r.rflags &(F_ZF | F_CF | F_SF), F_CF | F_SF);                                         \
    r.rdi = VA + 17;                                                                               \
    memcpy(&r.rax, (void *)(VA + 16), 8);                                                          \
    REP("scas" insn, &r, df);                                                                      \
    CHECK_EQ(r.rflags &(F_ZF | F_CF | F_SF), F_CF | F_SF);                                         \
    CHECK_EQ(r.rdi, VA + 17 + (step));                                                             \
    r.rdi = VA + 4095;                                                                             \
    REP("scas" insn, &r, df);                                                                      \
    CHECK(r.rflags &F_ZF);                                                                         \
    CHECK_EQ(r.rdi, VA + 4095 + (step));                                                           \
    CHECK_EQ(memcmp((void *)(VA + 16), &r.rax, size), 0)
    /* more than once: at first it is the miss that is taken */
    for (unsigned i = 0; i < 3; i++) {
        ONCE("b", 1, "cld", 1);
        ONCE("w", 2, "cld", 2);
        ONCE("l", 4, "cld", 4);
        ONCE("q", 8, "cld", 8);
        ONCE("b", 1, "std", -1LL);
        ONCE("w", 2, "std", -2LL);
        ONCE("l", 4, "std", -4LL);
        ONCE("q", 8, "std", -8LL);
    }
}

TEST(once__faults_change_nothing)
{
    struct trap t;

    window(PTE_P | PTE_W);
    unmap(VA + 4096);
    put(1, 0x77);
    for (unsigned i = 0; i < 3; i++) {
        struct rep r = {VA + 1, VA + 4096, 0, 0, 0};

        TRY (&t)
            REP("movsb", &r, "cld");
        CHECK_EQ(t.vector, V_PF);
        CHECK_EQ(t.error & 2, 2);
        CHECK_EQ(t.regs.rsi, VA + 1);
        CHECK_EQ(t.regs.rdi, VA + 4096);
        r = (struct rep){VA + 4096, VA + 1, 0, 0, 0};
        TRY (&t)
            REP("movsb", &r, "cld");
        CHECK_EQ(t.vector, V_PF);
        CHECK_EQ(t.error & 2, 0);
        CHECK_EQ(t.regs.rsi, VA + 4096);
        CHECK_EQ(t.regs.rdi, VA + 1);
        CHECK_EQ(at(1), 0x77);
    }
}

TEST(cmps__stops_at_difference_or_equality)
{
    struct rep r;

    window(PTE_P | PTE_W);
    for (unsigned i = 0; i < 1000; i++)
        put(i, (u8)i), put(5000 + i, (u8)i);
    put(5000 + 321, 0);
    r = (struct rep){VA, VA + 5000, 1000, 0, 0};
    REP("repe cmpsb", &r, "cld");
    CHECK_EQ(r.rcx, 1000 - 322);
    CHECK_EQ(r.rsi, VA + 322);
    CHECK_EQ(r.rdi, VA + 5322);
    CHECK(!(r.rflags & F_ZF));
    CHECK(!(r.rflags & F_CF)); /* 0x41 - 0 */
    r = (struct rep){VA, VA + 5000, 321, 0, 0};
    REP("repe cmpsb", &r, "cld");
    CHECK_EQ(r.rcx, 0);
    CHECK(r.rflags & F_ZF);
    r = (struct rep){VA + 8, VA + 5000, 100, 0, 0};
    REP("repne cmpsl", &r, "cld");
    CHECK_EQ(r.rcx, 0);
    CHECK(!(r.rflags & F_ZF));
    r = (struct rep){VA + 321 + 7, VA + 5000 + 321 + 7, 10, 0, 0};
    REP("repe cmpsb", &r, "std");
    CHECK_EQ(r.rcx, 2);
    CHECK_EQ(r.rsi, VA + 320);
}

TEST(scas__finds)
{
    struct rep r;

    window(PTE_P | PTE_W);
    memset((void *)VA, 7, 6000);
    put(4500, 9);
    r = (struct rep){0, VA, 6000, 9, 0};
    REP("repne scasb", &r, "cld");
    CHECK_EQ(r.rdi, VA + 4501);
    CHECK_EQ(r.rcx, 6000 - 4501);
    CHECK(r.rflags & F_ZF);
    r = (struct rep){0, VA, 6000, 7, 0};
    REP("repe scasb", &r, "cld");
    CHECK_EQ(r.rdi, VA + 4501);
    CHECK(r.rflags & F_CF); /* 7 - 9 */
    r = (struct rep){0, VA, 100, 0x0707070707070707, 0};
    REP("repe scasq", &r, "cld");
    CHECK_EQ(r.rcx, 0);
    CHECK(r.rflags & F_ZF);
    r = (struct rep){0, VA, ~0ULL, 9, 0}; /* strlen's way */
    REP("repne scasb", &r, "cld");
    CHECK_EQ(~r.rcx, 4501);
}

TEST(rep__count_zero_touches_nothing)
{
    struct rep r;
    struct trap t;

    TRY (&t) {
        r = (struct rep){VA, VA, 0, 5, 0};
        REP("rep movsb", &r, "cld");
        REP("rep stosq", &r, "cld");
        REP("rep lodsl", &r, "cld");
        REP("cmp %%eax, %%eax; repne cmpsb", &r, "cld");
        CHECK(r.rflags & F_ZF); /* flags as before */
        REP("cmp $4, %%eax; repe scasb", &r, "cld");
        CHECK(!(r.rflags & F_ZF));
        CHECK_EQ(r.rsi, VA);
        CHECK_EQ(r.rdi, VA);
        CHECK_EQ(r.rcx, 0);
        CHECK_EQ(r.rax, 5);
    }
    CHECK_EQ(t.vector, V_NONE);
}

/* A fault in the middle: counters tell how far it came, and the handler's repair lets it go on. */
static unsigned repairs;
static u64 repair_rip, seen_rcx[8], seen_rsi[8], seen_rdi[8], seen_cr2[8], seen_error[8];

static bool repair(struct regs *r)
{
    u64 va = READ_CR(2) & ~0xfffULL;

    if (va < VA || va >= VA + PAGES * 4096 || repairs >= 8)
        return false;
    seen_rcx[repairs] = r->rcx;
    seen_rsi[repairs] = r->rsi;
    seen_rdi[repairs] = r->rdi;
    seen_cr2[repairs] = READ_CR(2);
    seen_error[repairs] = r->error;
    repair_rip = r->rip;
    repairs++;
    map(va, (uptr)frame[(va - VA) / 4096], PTE_P | PTE_W);
    return true;
}

TEST(rep__stos_restarts_after_faults)
{
    struct rep r;

    window(0);
    repairs = 0;
    trap_set_hook(V_PF, repair);
    r = (struct rep){0, VA + 0x800, 0x3000 / 8, 0x1122334455667788, 0};
    REP("rep stosq", &r, "cld");
    CHECK_EQ(repairs, 4);
    CHECK_EQ(seen_rcx[0], 0x600);
    CHECK_EQ(seen_cr2[0], VA + 0x800);
    CHECK_EQ(seen_error[0], PF_W);
    for (unsigned i = 1; i < 4; i++) {
        CHECK_EQ(seen_rcx[i], 0x600 - (i * 0x200 - 0x100));
        CHECK_EQ(seen_rdi[i], VA + i * 0x1000);
        CHECK_EQ(seen_cr2[i], VA + i * 0x1000);
    }
    CHECK_EQ(r.rcx, 0);
    for (unsigned i = 0; i < 0x3000; i += 8)
        CHECK_EQ(*(volatile u64 *)(VA + 0x800 + i), 0x1122334455667788);
}

TEST(rep__movs_restarts_after_faults_on_both_sides)
{
    struct rep r;

    window(0);
    for (unsigned i = 0; i < 8192; i++)
        frame[i / 4096][i % 4096] = (u8)(i * 11);
    repairs = 0;
    trap_set_hook(V_PF, repair);
    r = (struct rep){VA + 0x333, VA + 0x2000 + 0x111, 0x1800, 0, 0};
    REP("rep movsb", &r, "cld");
    CHECK_EQ(repairs, 4);
    CHECK_EQ(seen_cr2[0], VA + 0x333); /* the source is read first */
    CHECK_EQ(seen_error[0], 0);
    CHECK_EQ(seen_cr2[1], VA + 0x2111);
    CHECK_EQ(seen_error[1], PF_W);
    CHECK_EQ(seen_cr2[2], VA + 0x1000);
    CHECK_EQ(seen_rcx[2], 0x1800 - (0x1000 - 0x333));
    CHECK_EQ(seen_rdi[2], VA + 0x2111 + (0x1000 - 0x333));
    CHECK_EQ(seen_cr2[3], VA + 0x3000);
    CHECK_EQ(seen_rcx[3], 0x1800 - (0x1000 - 0x111));
    for (unsigned i = 0; i < 0x1800; i++)
        if (at(0x2111 + i) != (u8)((i + 0x333) * 11)) {
            test_failed(__LINE__, "byte %u", i);
            break;
        }
}

TEST(rep__downwards_restarts_after_faults)
{
    struct rep r;

    window(0);
    repairs = 0;
    trap_set_hook(V_PF, repair);
    r = (struct rep){0, VA + 0x2ffc, 0x2800 / 4, 0xabcdef01, 0};
    REP("rep stosl", &r, "std");
    CHECK_EQ(repairs, 3);
    CHECK_EQ(seen_cr2[1], VA + 0x1ffc);
    CHECK_EQ(seen_rcx[1], 0x1800 / 4);
    CHECK_EQ(r.rdi, VA + 0x7fc);
    CHECK_EQ(*(volatile u32 *)(VA + 0x800), 0xabcdef01);
}

TEST(rep__element_across_a_page_faults_whole)
{
    struct rep r;
    struct trap t;

    window(PTE_P | PTE_W);
    unmap(VA + 0x1000);
    memset(frame[0], 0, 4096);
    TRY (&t) {
        r = (struct rep){0, VA + 0xfec, 5, ~0ULL, 0};
        REP("rep stosq", &r, "cld");
    }
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.cr2, VA + 0x1000);
    CHECK_EQ(t.regs.rcx, 3);
    CHECK_EQ(t.regs.rdi, VA + 0xffc);
    CHECK_EQ(at(0xffb), 0xff);
    CHECK_EQ(at(0xffc), 0); /* no half store */
}

TEST(rep__cmps_and_scas_fault_with_the_right_counters)
{
    struct rep r;
    struct trap t;

    window(PTE_P | PTE_W);
    unmap(VA + 0x1000);
    TRY (&t) {
        r = (struct rep){0, VA + 0xf00, 1000, 1, 0};
        REP("repne scasb", &r, "cld");
    }
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.regs.rcx, 1000 - 256);
    CHECK_EQ(t.regs.rdi, VA + 0x1000);
    TRY (&t) {
        r = (struct rep){VA + 0x2000, VA + 0xfe0, 1000, 1, 0};
        REP("repe cmpsl", &r, "cld");
    }
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.regs.rcx, 1000 - 8);
    CHECK_EQ(t.regs.rsi, VA + 0x2020);
    CHECK_EQ(t.cr2, VA + 0x1000);
}

TEST(rep__non_canonical)
{
    struct rep r;
    struct trap t;

    window(PTE_P | PTE_W);
    TRY (&t) {
        r = (struct rep){VA, 1ULL << 62, 10, 1, 0};
        REP("rep movsb", &r, "cld");
    }
    CHECK_EQ(t.vector, V_GP);
    CHECK_EQ(t.regs.rcx, 10);
}

TEST(rep__address_size_32)
{
    struct rep r;
    u32 low = (u32)(uptr)pages_alloc(4, 4096);
    u64 junk = 0xabcd00000000;

    r = (struct rep){0, junk | low, junk << 4 | 100, 0x77, 0};
    REP("addr32 rep stosb", &r, "cld");
    CHECK_EQ(((u8 *)(uptr)low)[99], 0x77);
    CHECK_EQ(((u8 *)(uptr)low)[100], 0);
    CHECK_EQ(r.rdi, low + 100); /* 32-bit registers are written, so upper halves go */
    CHECK_EQ(r.rcx, 0);
    r = (struct rep){junk | low, junk | (low + 4096), 50, 0, 0};
    REP("addr32 rep movsw", &r, "cld");
    CHECK_EQ(((u8 *)(uptr)low)[4096 + 99], 0x77);
    CHECK_EQ(r.rsi, low + 100);
    CHECK_EQ(r.rdi, low + 4196);
}

TEST(rep__segment_bases)
{
    struct rep r;

    window(PTE_P | PTE_W);
    for (unsigned i = 0; i < 16; i++)
        put(i, (u8)(i + 1));
    wrmsr(MSR_FS_BASE, VA - 0x500);
    /* an override moves the source, never the ES:RDI side */
    r = (struct rep){0x500, VA + 0x100, 16, 0, 0};
    REP("rep movsb %%fs:(%%rsi), %%es:(%%rdi)", &r, "cld");
    CHECK_EQ(at(0x10f), 16);
    wrmsr(MSR_FS_BASE, 0);
}

TEST(rep__large_counts_in_both_directions)
{
    u8 *a = pages_alloc(256, 4096), *b = pages_alloc(256, 4096);
    struct rep r;

    for (unsigned n = 0; n < 4; n++) {
        r = (struct rep){0, (uptr)a, 256 * 4096 / 8, 0x0101010101010101ULL * (n + 1), 0};
        REP("rep stosq", &r, "cld");
        r = (struct rep){(uptr)a + 1, (uptr)b + 3, 256 * 4096 - 4, 0, 0};
        REP("rep movsb", &r, "cld");
        CHECK_EQ(b[3], n + 1);
        CHECK_EQ(b[256 * 4096 - 2], n + 1);
        r = (struct rep){(uptr)a, (uptr)b + 3, 256 * 4096 - 4, 0, 0};
        REP("repe cmpsb", &r, "cld");
        CHECK_EQ(r.rcx, 0);
        CHECK(r.rflags & F_ZF);
    }
}

#define HOLE 0xd0000000ULL

TEST_QEMU_DEVIATES(rep__from_and_to_a_hole, "reads zeroes where nobody answers")
{
    struct rep r;

    window(PTE_P | PTE_W);
    CHECK_EQ(*(volatile u32 *)HOLE, 0xffffffff);
    r = (struct rep){HOLE, VA, 1000, 0, 0};
    REP("rep movsb", &r, "cld");
    CHECK_EQ(r.rcx, 0);
    for (unsigned i = 0; i < 1000; i++)
        if (at(i) != 0xff) {
            test_failed(__LINE__, "byte %u is %x", i, at(i));
            break;
        }
    r = (struct rep){0, HOLE + 0xf00, 1000, 0, 0};
    REP("rep stosb", &r, "cld");
    CHECK_EQ(r.rcx, 0);
    CHECK_EQ(*(volatile u32 *)(HOLE + 0xf00), 0xffffffff);
    r = (struct rep){VA, HOLE, 100, 0, 0};
    REP("rep movsq", &r, "cld");
    CHECK_EQ(r.rcx, 0);
    r = (struct rep){HOLE, VA, 300, 0, 0};
    REP("repe cmpsb", &r, "cld");
    CHECK_EQ(r.rcx, 0);
    r = (struct rep){0, HOLE, 300, 0, 0};
    REP("repne scasb", &r, "cld");
    CHECK_EQ(r.rcx, 0);
}

TEST(rep__reads_from_an_mmio_register)
{
    struct rep r;
    u32 *p;

    window(PTE_P | PTE_W);
    apic_enable();
    r = (struct rep){0xfee00030, VA, 1, 0, 0};
    REP("rep movsl", &r, "cld");
    p = (u32 *)VA;
    CHECK_EQ(*p, apic_read(APIC_VERSION));
}

TEST(rep__prefix_on_other_instructions_is_ignored)
{
    u64 a = 1;

    __asm__ volatile(".byte 0xf3, 0x48, 0x01, 0xc0" : "+a"(a)::"cc"); /* rep add %rax, %rax */
    CHECK_EQ(a, 2);
    __asm__ volatile("mov $3, %%ecx; .byte 0xf3, 0x90" ::: "rcx"); /* pause */
}
