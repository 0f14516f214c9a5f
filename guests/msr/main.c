// SPDX-License-Identifier: Apache-2.0
/* Model-specific registers every 64-bit system uses (SDM 4 table 2-2). */
#include "x64.h"

static void refused(int line, u32 msr, u64 v)
{
    struct trap t;

    TRY (&t)
        wrmsr(msr, v);
    if (t.vector != V_GP || t.error)
        test_failed(line, "wrmsr %x <- %llx: vector %x, want #GP(0)", msr, (unsigned long long)v,
                    t.vector);
}
#define REFUSED(msr, v) refused(__LINE__, msr, v)

static void keeps(int line, u32 msr, u64 v)
{
    struct trap t;
    volatile u64 old = 0, got = 0;

    TRY (&t) {
        old = rdmsr(msr);
        wrmsr(msr, v);
        got = rdmsr(msr);
        wrmsr(msr, old);
    }
    if (t.vector != V_NONE || got != v)
        test_failed(line, "msr %x: wrote %llx, read %llx, vector %x", msr, (unsigned long long)v,
                    (unsigned long long)got, t.vector);
}
#define KEEPS(msr, v) keeps(__LINE__, msr, v)

TEST(msr__syscall_registers_keep_values)
{
    KEEPS(MSR_STAR, 0x0023000800000000);
    KEEPS(MSR_LSTAR, 0xffffffff81000000);
    KEEPS(MSR_LSTAR, 0x00007fffffffffff);
    KEEPS(MSR_CSTAR, 0xffff800000000000);
    KEEPS(MSR_SFMASK, 0x47700);
    KEEPS(0x174, 0x10);
    /* on AMD only the lower halves exist (APM 2 6.1.2) */
    KEEPS(0x175, cpu_is_amd() ? 0x1000 : 0xffff888000001000);
    KEEPS(0x176, cpu_is_amd() ? 0x81800000 : 0xffffffff81800000);
}

TEST(msr__segment_bases)
{
    u64 v, cell = 0x77;

    KEEPS(MSR_FS_BASE, 0xffff888012345678);
    KEEPS(MSR_GS_BASE, 0x00007f0012345678);
    KEEPS(MSR_KERNEL_GS_BASE, 0xffffffffffffffff);
    wrmsr(MSR_FS_BASE, (uptr)&cell - 0x40);
    __asm__ volatile("mov %%fs:0x40, %0" : "=r"(v));
    CHECK_EQ(v, 0x77);
    /* loading a null selector: Intel and AMD differ on the base, but both allow it */
    wrmsr(MSR_FS_BASE, 0);
    wrmsr(MSR_GS_BASE, 0);
}

TEST(msr__selector_loads_set_the_base)
{
    wrmsr(MSR_FS_BASE, 0x123456789abc);
    gdt_set(SEL_SPARE, 0xfedcba98, 0xfffff, 0xf3, 0xc);
    __asm__ volatile("mov %0, %%fs" ::"r"(SEL_SPARE));
    CHECK_EQ(rdmsr(MSR_FS_BASE), 0xfedcba98); /* zero-extended */
    wrmsr(MSR_GS_BASE, 0x123456789abc);
    __asm__ volatile("mov %0, %%gs" ::"r"(SEL_SPARE));
    CHECK_EQ(rdmsr(MSR_GS_BASE), 0xfedcba98);
}

TEST_QEMU_DEVIATES(msr__non_canonical_values_are_refused, "checks no addresses in WRMSR")
{
    REFUSED(MSR_LSTAR, 1ULL << 47);
    REFUSED(MSR_CSTAR, 1ULL << 63);
    REFUSED(MSR_FS_BASE, 0x0000800000000000);
    REFUSED(MSR_GS_BASE, 0x8000000000000000);
    REFUSED(MSR_KERNEL_GS_BASE, 0xffff7fffffffffff);
    if (!cpu_is_amd()) {
        REFUSED(0x175, 1ULL << 47);
        REFUSED(0x176, 1ULL << 47);
    }
}

TEST(msr__efer)
{
    CHECK_EQ(rdmsr(MSR_EFER), EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE);
    wrmsr(MSR_EFER, (rdmsr(MSR_EFER) & ~(u64)EFER_SCE));
    CHECK_EQ(rdmsr(MSR_EFER) & EFER_SCE, 0);
    wrmsr(MSR_EFER,
          rdmsr(MSR_EFER) & ~(u64)EFER_LMA); /* LMA is read-only; writes to it are ignored */
    CHECK(rdmsr(MSR_EFER) & EFER_LMA);
}

TEST_QEMU_DEVIATES(msr__efer_reserved_bits, "checks nothing in EFER")
{
    REFUSED(MSR_EFER, rdmsr(MSR_EFER) | 1ULL << 63);
    REFUSED(MSR_EFER, rdmsr(MSR_EFER) | 1ULL << 9);
    REFUSED(MSR_EFER, rdmsr(MSR_EFER) | 1ULL << 32);
}

TEST(msr__pat)
{
    CHECK_EQ(rdmsr(0x277), 0x0007040600070406); /* value after reset: SDM 3A 11.12.4 */
    KEEPS(0x277, 0x0407050600070106);
}

TEST_QEMU_DEVIATES(msr__pat_reserved_types, "checks no types in the PAT")
{
    REFUSED(0x277, 0x0007040600070402); /* types 2 and 3 are reserved */
    REFUSED(0x277, 0x0307040600070406);
    REFUSED(0x277, 0x0007040608070406); /* and so are the bits above the type */
}

TEST_QEMU_DEVIATES(msr__unknown_ones_fault, "reads 0 from any MSR and ignores writes")
{
    static const u32 unknown[] = {0x5fffffff, 0x12345678, 0xbffffffe, 0xdeadbeef, 0x7777};
    struct trap t;

    for (unsigned i = 0; i < ARRAY_SIZE(unknown); i++) {
        TRY (&t)
            rdmsr(unknown[i]);
        CHECK_EQ(t.vector, V_GP);
        CHECK_EQ(t.error, 0);
        REFUSED(unknown[i], 0);
    }
}

TEST(msr__registers_after_rdmsr)
{
    u64 rax = ~0ULL, rdx = ~0ULL;

    __asm__ volatile("rdmsr" : "+a"(rax), "+d"(rdx) : "c"(0xbadc0ffec0000080ULL & 0xffffffffULL));
    CHECK_EQ(rax, EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE); /* upper halves are cleared */
    CHECK_EQ(rdx, 0);
    wrmsr(MSR_KERNEL_GS_BASE, 0xffff933455667788);
    rax = rdx = ~0ULL;
    __asm__ volatile("rdmsr"
                     : "+a"(rax), "+d"(rdx)
                     : "c"(0xffffffff00000000ULL | MSR_KERNEL_GS_BASE));
    CHECK_EQ(rax, 0x55667788); /* and RCX's upper half does not count */
    CHECK_EQ(rdx, 0xffff9334);
}

TEST(msr__apic_base)
{
    u64 b = rdmsr(MSR_APIC_BASE);

    CHECK_EQ(b & 0xfffff000, 0xfee00000);
    CHECK(b & 0x100); /* bootstrap processor */
    CHECK(b & 0x800); /* enabled */
}

TEST_QEMU_DEVIATES(msr__tsc_is_the_time_stamp, "has no MSR 10")
{
    u64 a = rdtsc(), m = rdmsr(0x10), b = rdtsc();

    CHECK(a <= m && m <= b);
    if (cpu_has(0x80000001, 0, 3, 27)) {
        u32 lo, hi, aux;
        wrmsr(0xc0000103, 0x1234);
        __asm__ volatile("rdtscp" : "=a"(lo), "=d"(hi), "=c"(aux));
        CHECK_EQ(aux, 0x1234);
        wrmsr(0xc0000103, 0);
    }
}

TEST(msr__mtrr_block)
{
    u64 cap;

    if (!cpu_has(1, 0, 3, 12))
        SKIP("no MTRRs");
    cap = rdmsr(0xfe);
    CHECK((cap & 0xff) <= 32);
    (void)rdmsr(0x2ff);
    if (cap & 0xff)
        KEEPS(0x200, 0xd0000006 & ~0xff8ULL);
}

TEST(msr__fsgsbase_instructions)
{
    struct trap t;
    u64 v;

    if (!cpu_has(7, 0, 1, 0))
        SKIP("no FSGSBASE");
    TRY (&t)
        __asm__ volatile("rdfsbase %0" : "=r"(v));
    CHECK_EQ(t.vector, V_UD); /* CR4.FSGSBASE is off */
    WRITE_CR(4, READ_CR(4) | CR4_FSGSBASE);
    __asm__ volatile("wrfsbase %0" ::"r"(0xffff800012345678ULL));
    CHECK_EQ(rdmsr(MSR_FS_BASE), 0xffff800012345678);
    __asm__ volatile("wrgsbase %0" ::"r"(0x7654321ULL));
    __asm__ volatile("rdgsbase %0" : "=r"(v));
    CHECK_EQ(v, 0x7654321);
    __asm__ volatile("wrfsbase %k0" ::"r"(0xfedcba9876543210ULL)); /* 32-bit: zero-extended */
    CHECK_EQ(rdmsr(MSR_FS_BASE), 0x76543210);
}
