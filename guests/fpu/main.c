// SPDX-License-Identifier: Apache-2.0
/* x87, SSE, AVX and their state: exceptions, control registers, FXSAVE and XSAVE
 * (SDM 1 chapters 8, 10, 13; 3A 2.5, 2.6). */
#include "x64.h"

#define VA (TEST_VA + 0x700000ULL)

static u8 area[8192] ALIGNED(64), area2[8192] ALIGNED(64);

static u16 fsw(void)
{
    u16 v;
    __asm__ volatile("fnstsw %0" : "=a"(v));
    return v;
}
static u16 fcw(void)
{
    u16 v;
    __asm__ volatile("fnstcw %0" : "=m"(v));
    return v;
}
static u32 mxcsr(void)
{
    u32 v;
    __asm__ volatile("stmxcsr %0" : "=m"(v));
    return v;
}
static void set_mxcsr(u32 v)
{
    __asm__ volatile("ldmxcsr %0" ::"m"(v));
}

TEST(x87__fninit)
{
    __asm__ volatile("fld1; fldpi; fninit");
    CHECK_EQ(fcw(), 0x37f);
    CHECK_EQ(fsw(), 0);
    __asm__ volatile("fnstenv %0" : "=m"(area));
    CHECK_EQ(((u16 *)area)[4], 0xffff); /* tags: all empty */
}

TEST(x87__arithmetic_and_precision)
{
    u64 d;
    u8 ext[10];
    u16 cw;

    __asm__ volatile("fninit; fldpi; fstpl %0" : "=m"(d));
    CHECK_EQ(d, 0x400921fb54442d18);
    __asm__ volatile("fldpi; fstpt %0" : "=m"(ext));
    CHECK_EQ(*(u64 *)ext, 0xc90fdaa22168c235);
    CHECK_EQ(*(u16 *)(ext + 8), 0x4000);
    /* 1/3 in the three precisions */
    cw = 0x37f;
    __asm__ volatile("fldcw %1; fld1; pushq $3; fidivl (%%rsp); pop %%rax; fstpt %0"
                     : "=m"(ext)
                     : "m"(cw)
                     : "rax");
    CHECK_EQ(*(u64 *)ext, 0xaaaaaaaaaaaaaaab);
    cw = 0x27f;
    __asm__ volatile("fldcw %1; fld1; pushq $3; fidivl (%%rsp); pop %%rax; fstpt %0"
                     : "=m"(ext)
                     : "m"(cw)
                     : "rax");
    CHECK_EQ(*(u64 *)ext, 0xaaaaaaaaaaaaa800);
    cw = 0x07f;
    __asm__ volatile("fldcw %1; fld1; pushq $3; fidivl (%%rsp); pop %%rax; fstpt %0"
                     : "=m"(ext)
                     : "m"(cw)
                     : "rax");
    CHECK_EQ(*(u64 *)ext, 0xaaaaab0000000000);
    __asm__ volatile("fninit");
}

TEST_QEMU_DEVIATES(x87__stack_overflow_and_underflow, "knows no x87 stack faults")
{
    __asm__ volatile("fninit; fld1; fld1; fld1; fld1; fld1; fld1; fld1; fld1");
    CHECK_EQ(fsw() & 0x41, 0);
    __asm__ volatile("fld1");
    CHECK_EQ(fsw() & 0x241, 0x241); /* IE, SF, C1: overflow */
    __asm__ volatile("fninit; fstp %st(0)");
    CHECK_EQ(fsw() & 0x241, 0x041); /* C1 clear: underflow */
    __asm__ volatile("fninit");
}

TEST(x87__compare_and_examine)
{
    __asm__ volatile("fninit; fldz; fld1; fcompp"); /* 1 and 0: greater */
    CHECK_EQ(fsw() & 0x4500, 0);
    __asm__ volatile("fld1; fldz; fcompp");
    CHECK_EQ(fsw() & 0x4500, 0x100);
    __asm__ volatile("fld1; fld1; fucompp");
    CHECK_EQ(fsw() & 0x4500, 0x4000);
    __asm__ volatile("fldz; fchs; fxam");
    CHECK_EQ(fsw() & 0x4700, 0x4200); /* -0 */
    __asm__ volatile("fninit; fxam");
    CHECK_EQ(fsw() & 0x4500, 0x4100); /* empty */
}

TEST(x87__integer_and_decimal_stores)
{
    u64 v;
    u8 bcd[10];

    __asm__ volatile("fninit; fldpi; fistpq %0" : "=m"(v));
    CHECK_EQ(v, 3);
    __asm__ volatile("fldpi; fisttpll %0" : "=m"(v));
    CHECK_EQ(v, 3);
    {
        u32 n = 1234567;
        __asm__ volatile("fildl %1; fbstp %0" : "=m"(bcd) : "m"(n));
        CHECK_EQ(bcd[0], 0x67);
        CHECK_EQ(bcd[1], 0x45);
        CHECK_EQ(bcd[2], 0x23);
        CHECK_EQ(bcd[3], 0x01);
        CHECK_EQ(bcd[9], 0);
    }
}

static const u16 cw_zm = 0x37b; /* zero divide unmasked */

static void raise_ze(void)
{
    __asm__ volatile("fninit; fldcw %0; fld1; pushq $0; fidivl (%%rsp); pop %%rax" ::"m"(cw_zm)
                     : "rax", "memory");
}

TEST(mf__waits_for_the_next_instruction)
{
    struct trap t;
    u64 at;

    TRY (&t)
        raise_ze();
    CHECK_EQ(t.vector, V_NONE);
    CHECK_EQ(fsw() & 0x84, 0x84); /* ZE and ES */
    TRY (&t)
        __asm__ volatile("fwait");
    CHECK_EQ(t.vector, V_MF);
    __asm__ volatile("fninit");
    TRY (&t) {
        raise_ze();
        __asm__ volatile("fnstsw %%ax; fnclex" ::: "rax"); /* no-wait forms do not fault */
        __asm__ volatile("fwait");
    }
    CHECK_EQ(t.vector, V_NONE);
    (void)at;
    __asm__ volatile("fninit");
}

TEST_QEMU_DEVIATES(mf__any_waiting_instruction, "looks for it in FWAIT only")
{
    struct trap t;

    TRY (&t) {
        raise_ze();
        __asm__ volatile("fld1");
    }
    CHECK_EQ(t.vector, V_MF);
    __asm__ volatile("fninit");
    TRY (&t) {
        raise_ze();
        __asm__ volatile("pxor %%mm0, %%mm0" ::: "memory"); /* MMX waits too */
    }
    CHECK_EQ(t.vector, V_MF);
    __asm__ volatile("fninit");
    TRY (&t) {
        raise_ze();
        __asm__ volatile("xorps %%xmm0, %%xmm0" ::: "memory"); /* SSE does not */
    }
    CHECK_EQ(t.vector, V_NONE);
    __asm__ volatile("fninit");
}

TEST(mf__without_ne_goes_to_the_pic)
{
    struct trap t;

    /* CR0.NE clear: no #MF (the error line goes to IRQ 13 instead) */
    WRITE_CR(0, READ_CR(0) & ~(uptr)CR0_NE);
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    TRY (&t)
        raise_ze();
    CHECK_EQ(t.vector, V_NONE);
    __asm__ volatile("fnclex; fninit");
    WRITE_CR(0, READ_CR(0) | CR0_NE);
}

TEST_QEMU_DEVIATES(mxcsr__reserved_bits, "checks nothing in MXCSR")
{
    struct trap t;
    u32 mask;

    __asm__ volatile("fxsave %0" : "=m"(area));
    mask = *(u32 *)(area + 28);
    if (!mask)
        mask = 0xffbf;
    set_mxcsr(mask);
    CHECK_EQ(mxcsr(), mask);
    for (unsigned b = 0; b < 32; b++) {
        if (mask >> b & 1)
            continue;
        TRY (&t)
            set_mxcsr(0x1f80 | 1U << b);
        CHECK_EQ(t.vector, V_GP);
        CHECK_EQ(mxcsr(), mask);
    }
    set_mxcsr(0x1f80);
}

TEST_QEMU_DEVIATES(sse__arithmetic_flags_and_rounding, "never sets MXCSR.DE")
{
    u32 a = 0x3f800000, b = 0x40400000, r;

    for (unsigned rc = 0; rc < 4; rc++) {
        static const u32 want[4] = {0x3eaaaaab, 0x3eaaaaaa, 0x3eaaaaab, 0x3eaaaaaa};
        set_mxcsr(0x1f80 | rc << 13);
        __asm__ volatile("movss %1, %%xmm0; divss %2, %%xmm0; movss %%xmm0, %0"
                         : "=m"(r)
                         : "m"(a), "m"(b));
        CHECK_EQ(r, want[rc]);
        CHECK_EQ(mxcsr() & 0x3f, 0x20); /* inexact */
    }
    set_mxcsr(0x1f80);
    a = 1; /* a denormal */
    __asm__ volatile("movss %1, %%xmm0; addss %%xmm0, %%xmm0; movss %%xmm0, %0" : "=m"(r) : "m"(a));
    CHECK_EQ(r, 2);
    CHECK_EQ(mxcsr() & 2, 2);
    set_mxcsr(0x9fc0); /* FTZ and DAZ */
    __asm__ volatile("movss %1, %%xmm0; addss %%xmm0, %%xmm0; movss %%xmm0, %0" : "=m"(r) : "m"(a));
    CHECK_EQ(r, 0);
    set_mxcsr(0x1f80);
}

TEST_QEMU_DEVIATES(xm__keeps_the_destination, "raises no SIMD exceptions")
{
    struct trap t;
    u32 r = 0;

    set_mxcsr(0x1f80 & ~(1U << 9)); /* ZM off */
    TRY (&t)
        __asm__ volatile("mov $0x3f800000, %%eax; movd %%eax, %%xmm0; pxor %%xmm1, %%xmm1; divss "
                         "%%xmm1, %%xmm0" ::
                             : "rax");
    CHECK_EQ(t.vector, V_XM);
    CHECK_EQ(mxcsr() & 4, 4);
    __asm__ volatile("movd %%xmm0, %0" : "=r"(r));
    CHECK_EQ(r, 0x3f800000);
    set_mxcsr(0x1f80);
}

TEST(sse__alignment)
{
    struct trap t;

    TRY (&t)
        __asm__ volatile("movaps (%0), %%xmm0" ::"r"(area + 8));
    CHECK_EQ(t.vector, V_GP);
    TRY (&t)
        __asm__ volatile("movups (%0), %%xmm0" ::"r"(area + 8));
    CHECK_EQ(t.vector, V_NONE);
    TRY (&t)
        __asm__ volatile("addps (%0), %%xmm0" ::"r"(area + 4));
    CHECK_EQ(t.vector, V_GP);
}

TEST(fxsave__round_trip)
{
    memset(area, 0, 512);
    __asm__ volatile("fninit; fld1; fldpi; mov $0x1234567, %%eax; movd %%eax, %%xmm3; movq %%rsp, "
                     "%%xmm15; fxsave64 %0"
                     : "=m"(area)::"rax");
    CHECK_EQ(*(u16 *)area, 0x37f);
    CHECK_EQ(*(u16 *)(area + 2) >> 11 & 7, 6);
    CHECK_EQ(area[4], 0xc0); /* abridged tags */
    CHECK_EQ(*(u64 *)(area + 32), 0xc90fdaa22168c235);
    CHECK_EQ(*(u64 *)(area + 160 + 3 * 16), 0x1234567);
    __asm__ volatile("fninit; pxor %%xmm3, %%xmm3; fxrstor64 %1; fxsave64 %0"
                     : "=m"(area2)
                     : "m"(area));
    CHECK_EQ(memcmp(area, area2, 416), 0);
    __asm__ volatile("fninit");
}

TEST_QEMU_DEVIATES(fxsave__faults, "checks nothing in MXCSR")
{
    struct trap t;

    TRY (&t)
        __asm__ volatile("fxsave64 (%0)" ::"r"(area + 8) : "memory");
    CHECK_EQ(t.vector, V_GP);
    memset(area, 0, 512);
    __asm__ volatile("fxsave64 %0" : "=m"(area));
    *(u32 *)(area + 24) = 0x80000000; /* MXCSR: a reserved bit */
    TRY (&t)
        __asm__ volatile("fxrstor64 %0" ::"m"(area));
    CHECK_EQ(t.vector, V_GP);
    map(VA, (uptr)page_alloc(), PTE_P | PTE_W);
    TRY (&t)
        __asm__ volatile("fxsave64 (%0)" ::"r"(VA + 4096 - 256) : "memory");
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.cr2 >= VA + 4096 && t.cr2 < VA + 4096 + 256, 1);
    CHECK_EQ(t.error, PF_W);
    TRY (&t)
        __asm__ volatile("fxrstor64 (%0)" ::"r"(VA + 4096 - 256) : "memory");
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.error, 0);
}

static bool xsave_on(void)
{
    if (!cpu_has(1, 0, 2, 26))
        return false;
    WRITE_CR(4, READ_CR(4) | CR4_OSXSAVE);
    return true;
}

static void xsetbv(u32 reg, u64 v)
{
    __asm__ volatile("xsetbv" ::"c"(reg), "a"((u32)v), "d"((u32)(v >> 32)));
}
static u64 xgetbv(u32 reg)
{
    u32 lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(reg));
    return (u64)hi << 32 | lo;
}
static u64 xcr0_all(void)
{
    u32 r[4];
    cpuid(13, 0, r);
    return (u64)r[3] << 32 | r[0];
}

TEST(xsave__needs_osxsave)
{
    struct trap t;
    u32 r[4];

    if (!cpu_has(1, 0, 2, 26))
        SKIP("no XSAVE");
    cpuid(1, 0, r);
    CHECK_EQ(r[2] >> 27 & 1, 0); /* OSXSAVE mirrors CR4 */
    TRY (&t)
        __asm__ volatile("xsave %0" : "=m"(area) : "a"(1), "d"(0));
    CHECK_EQ(t.vector, V_UD);
    TRY (&t)
        (void)xgetbv(0);
    CHECK_EQ(t.vector, V_UD);
    WRITE_CR(4, READ_CR(4) | CR4_OSXSAVE);
    cpuid(1, 0, r);
    CHECK_EQ(r[2] >> 27 & 1, 1);
}

USER_TEXT static void user_xsetbv(void)
{
    __asm__ volatile("xsetbv" ::"c"(0), "a"(1), "d"(0));
}
USER_TEXT static u64 user_xgetbv(void)
{
    u32 lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return lo;
}

TEST(xsetbv__checks)
{
    struct trap t;
    u64 all = xcr0_all();

    if (!xsave_on())
        SKIP("no XSAVE");
    xsetbv(0, 1);
    CHECK_EQ(xgetbv(0), 1);
    TRY (&t)
        xsetbv(0, 0); /* x87 is not optional */
    CHECK_EQ(t.vector, V_GP);
    TRY (&t)
        xsetbv(1, 1);
    CHECK_EQ(t.vector, V_GP);
    TRY (&t)
        xsetbv(0, all | 1ULL << 62);
    CHECK_EQ(t.vector, V_GP);
    if (all & 4) {
        TRY (&t)
            xsetbv(0, 5); /* AVX without SSE */
        CHECK_EQ(t.vector, V_GP);
    }
    if ((all & 0xe0) == 0xe0) {
        TRY (&t)
            xsetbv(0, 0x27); /* AVX-512 in parts */
        CHECK_EQ(t.vector, V_GP);
    }
    user_call(&t, user_xsetbv, 0, 0);
    CHECK_EQ(t.vector, V_GP);
    user_call(&t, user_xgetbv, 0, 0);
    CHECK_EQ(t.vector, USER_EXIT_VECTOR);
    CHECK_EQ(t.regs.rax, 1);
    xsetbv(0, all & 0xff);
    CHECK_EQ(xgetbv(0), all & 0xff);
    xsetbv(0, 1);
}

TEST(xsave__round_trip)
{
    u64 all = xcr0_all() & 0xe7;

    if (!xsave_on())
        SKIP("no XSAVE");
    xsetbv(0, all);
    memset(area, 0, sizeof(area));
    __asm__ volatile("fninit; fldpi; mov $0x7654321, %%eax; movd %%eax, %%xmm5" ::: "rax");
    if (all & 4)
        __asm__ volatile("vbroadcastss %0, %%ymm6" ::"m"(all));
    __asm__ volatile("xsave64 %0" : "=m"(area) : "a"((u32)all), "d"(0));
    CHECK_EQ(*(u64 *)(area + 512) & 3, 3);
    CHECK_EQ(*(u64 *)(area + 512) & ~all, 0);
    CHECK_EQ(*(u32 *)(area + 160 + 5 * 16), 0x7654321);
    if (all & 4) {
        u32 r[4];
        cpuid(13, 2, r);
        CHECK(*(u64 *)(area + 512) & 4);
        CHECK_EQ(r[1], 576);
        CHECK_EQ(r[0], 256);
        CHECK_EQ(*(u32 *)(area + 576 + 6 * 16), (u32)all);
        __asm__ volatile("vzeroall");
    }
    __asm__ volatile("fninit; pxor %%xmm5, %%xmm5; xrstor64 %0" ::"m"(area), "a"((u32)all), "d"(0)
                     : "memory");
    memset(area2, 0, sizeof(area2));
    __asm__ volatile("xsave64 %0" : "=m"(area2) : "a"((u32)all), "d"(0));
    CHECK_EQ(memcmp(area + 32, area2 + 32, 384), 0);
    if (all & 4)
        CHECK_EQ(memcmp(area + 576, area2 + 576, 256), 0);
    /* components not in XSTATE_BV go to their initial state */
    *(u64 *)(area + 512) = 0;
    __asm__ volatile("xrstor64 %0" ::"m"(area), "a"((u32)all), "d"(0) : "memory");
    __asm__ volatile("movd %%xmm5, %0" : "=m"(area2));
    CHECK_EQ(*(u32 *)area2, 0);
    CHECK_EQ(fcw(), 0x37f);
    /* components not asked for stay as they are */
    __asm__ volatile("mov $77, %%eax; movd %%eax, %%xmm5" ::: "rax");
    __asm__ volatile("xrstor64 %0" ::"m"(area), "a"(1), "d"(0) : "memory");
    __asm__ volatile("movd %%xmm5, %0" : "=m"(area2));
    CHECK_EQ(*(u32 *)area2, 77);
    xsetbv(0, 1);
}

TEST(xsave__compacted)
{
    u64 all = xcr0_all() & 7;

    if (!xsave_on() || !cpu_has(13, 1, 0, 1))
        SKIP("no XSAVEC");
    xsetbv(0, all);
    memset(area, 0, sizeof(area));
    __asm__ volatile("fninit; fld1; mov $5, %%eax; movd %%eax, %%xmm1" ::: "rax");
    __asm__ volatile("xsavec64 %0" : "=m"(area) : "a"((u32)all), "d"(0));
    CHECK_EQ(*(u64 *)(area + 520), all | 1ULL << 63); /* XCOMP_BV */
    CHECK_EQ(*(u64 *)(area + 512) & 2, 2);
    CHECK_EQ(*(u32 *)(area + 160 + 16), 5);
    __asm__ volatile("pxor %%xmm1, %%xmm1; xrstor64 %0" ::"m"(area), "a"((u32)all), "d"(0)
                     : "memory");
    __asm__ volatile("movd %%xmm1, %0" : "=m"(area2));
    CHECK_EQ(*(u32 *)area2, 5);
    xsetbv(0, 1);
    __asm__ volatile("fninit");
}

TEST_QEMU_DEVIATES(xrstor__refuses_bad_headers, "checks nothing in MXCSR")
{
    struct trap t;
    u64 all = xcr0_all() & 7;

    if (!xsave_on())
        SKIP("no XSAVE");
    xsetbv(0, all);
    memset(area, 0, sizeof(area));
    __asm__ volatile("xsave64 %0" : "=m"(area) : "a"((u32)all), "d"(0));
    *(u64 *)(area + 512) = 1ULL << 61; /* a component XCR0 does not have */
    TRY (&t)
        __asm__ volatile("xrstor64 %0" ::"m"(area), "a"(7), "d"(0) : "memory");
    CHECK_EQ(t.vector, V_GP);
    *(u64 *)(area + 512) = 3;
    *(u64 *)(area + 528) = 1; /* reserved bytes of the header */
    TRY (&t)
        __asm__ volatile("xrstor64 %0" ::"m"(area), "a"(7), "d"(0) : "memory");
    CHECK_EQ(t.vector, V_GP);
    *(u64 *)(area + 528) = 0;
    *(u32 *)(area + 24) = 0xffff0000; /* MXCSR */
    TRY (&t)
        __asm__ volatile("xrstor64 %0" ::"m"(area), "a"(7), "d"(0) : "memory");
    CHECK_EQ(t.vector, V_GP);
    *(u32 *)(area + 24) = 0x1f80;
    TRY (&t)
        __asm__ volatile("xrstor64 (%0)" ::"r"(area + 16), "a"(7), "d"(0) : "memory");
    CHECK_EQ(t.vector, V_GP); /* alignment: 64 */
    TRY (&t)
        __asm__ volatile("xrstor64 %0" ::"m"(area), "a"(7), "d"(0) : "memory");
    CHECK_EQ(t.vector, V_NONE);
    xsetbv(0, 1);
}

TEST(xsave__fault_at_the_end_of_a_page)
{
    struct trap t;

    if (!xsave_on())
        SKIP("no XSAVE");
    map(VA, (uptr)page_alloc(), PTE_P | PTE_W);
    TRY (&t)
        __asm__ volatile("xsave64 (%0)" ::"r"(VA + 4096 - 512), "a"(3), "d"(0)
                         : "memory"); /* header missing */
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.error & ~PF_W, 0); /* the header is read, then written */
    CHECK_EQ(t.cr2 & ~0xfffULL, VA + 4096);
    TRY (&t)
        __asm__ volatile("xrstor64 (%0)" ::"r"(VA + 4096 - 512), "a"(3), "d"(0) : "memory");
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.cr2 & ~0xfffULL, VA + 4096);
}

TEST(avx__needs_xcr0)
{
    struct trap t;
    u64 all = xcr0_all();

    if (!xsave_on() || !cpu_has(1, 0, 2, 28))
        SKIP("no AVX");
    xsetbv(0, 3);
    TRY (&t)
        __asm__ volatile("vxorps %ymm0, %ymm0, %ymm0");
    CHECK_EQ(t.vector, V_UD);
    xsetbv(0, 7);
    TRY (&t)
        __asm__ volatile("vxorps %ymm0, %ymm0, %ymm0");
    CHECK_EQ(t.vector, V_NONE);
    if (!on_qemu_tcg()) { /* CR0.TS: #NM for AVX too */
        WRITE_CR(0, READ_CR(0) | CR0_TS);
        TRY (&t)
            __asm__ volatile("vxorps %ymm0, %ymm0, %ymm0");
        CHECK_EQ(t.vector, V_NM);
        WRITE_CR(0, READ_CR(0) & ~(uptr)CR0_TS);
    }
    if (cpu_has(7, 0, 1, 16) && (all & 0xe0) == 0xe0) {
        TRY (&t)
            __asm__ volatile("vpxord %zmm17, %zmm17, %zmm17");
        CHECK_EQ(t.vector, V_UD);
        xsetbv(0, 0xe7);
        TRY (&t)
            __asm__ volatile("vpxord %zmm17, %zmm17, %zmm17");
        CHECK_EQ(t.vector, V_NONE);
    }
    xsetbv(0, 1);
}

static volatile unsigned ticks;
static bool tick(struct regs *r)
{
    (void)r;
    /* the handler uses the registers itself: whoever interrupts must save them, and so must we */
    ticks++;
    apic_eoi();
    return true;
}

TEST(state__survives_interrupts)
{
    u64 got[4];

    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    apic_enable();
    trap_set_hook(0x60, tick);
    apic_write(APIC_TDCR, 0xb);
    apic_write(APIC_LVT_TIMER, 0x20000 | 0x60);
    apic_write(APIC_TMICT, 200000);
    ticks = 0;
    __asm__ volatile(
        "mov $0x123456789abcdef, %%rax; movq %%rax, %%xmm7; movq %%rax, %%xmm15; fninit; fldpi" ::
            : "rax");
    sti();
    CHECK(WAIT_FOR(ticks >= 20, 20000));
    cli();
    apic_write(APIC_TMICT, 0);
    __asm__ volatile("movq %%xmm7, %0; movq %%xmm15, %1; fstpl %2"
                     : "=m"(got[0]), "=m"(got[1]), "=m"(got[2]));
    CHECK_EQ(got[0], 0x123456789abcdef);
    CHECK_EQ(got[1], 0x123456789abcdef);
    CHECK_EQ(got[2], 0x400921fb54442d18);
    __asm__ volatile("fninit");
}

TEST(lazy__ts_and_clts)
{
    struct trap t;

    for (unsigned i = 0; i < 20; i++) {
        WRITE_CR(0, READ_CR(0) | CR0_TS);
        TRY (&t)
            __asm__ volatile("pxor %xmm0, %xmm0");
        CHECK_EQ(t.vector, V_NM);
        TRY (&t)
            __asm__ volatile("fxsave %0" : "=m"(area));
        CHECK_EQ(t.vector, V_NM);
        __asm__ volatile("clts");
        CHECK_EQ(READ_CR(0) & CR0_TS, 0);
        TRY (&t)
            __asm__ volatile("pxor %xmm0, %xmm0");
        CHECK_EQ(t.vector, V_NONE);
    }
    WRITE_CR(4, READ_CR(4) & ~(uptr)CR4_OSFXSR);
    TRY (&t)
        __asm__ volatile("pxor %xmm0, %xmm0");
    CHECK_EQ(t.vector, V_UD);
    TRY (&t)
        __asm__ volatile("pxor %mm0, %mm0; emms"); /* MMX does not need it */
    CHECK_EQ(t.vector, V_NONE);
}
