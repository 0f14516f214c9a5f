// SPDX-License-Identifier: Apache-2.0
/* CPUID shows only what works, and what it shows hangs together (SDM 2A CPUID). One instruction of
 * each shown feature is run; none may be undefined. */
#include "x64.h"

static u8 mem[256] ALIGNED(64);

struct feature {
    const char *name;
    u32 leaf, sub;
    unsigned reg, bit;
    void (*run)(void);
    unsigned xcr0; /* what XCR0 must allow */
};

#define RUN(id, text)                                                                              \
    static void run_##id(void)                                                                     \
    {                                                                                              \
        __asm__ volatile(text ::"S"(mem) : "rax", "rbx", "rcx", "rdx", "rdi", "memory", "cc");     \
    }

RUN(fpu, "fld1; fstp %%st(0)")
RUN(tsc, "rdtsc")
RUN(cx8, "xor %%eax, %%eax; xor %%edx, %%edx; cmpxchg8b (%%rsi)")
RUN(cmov, "cmove %%eax, %%ecx; fninit; fld1; fcmove %%st(0), %%st(0); fninit")
RUN(clflush, "clflush (%%rsi)")
RUN(mmx, "paddb %%mm0, %%mm1; emms")
RUN(fxsr, "fxsave (%%rsi)")
RUN(sse, "addps %%xmm0, %%xmm0; sfence; prefetcht0 (%%rsi)")
RUN(sse2, "addpd %%xmm0, %%xmm0; lfence; mfence; movnti %%eax, (%%rsi)")
RUN(sse3, "haddps %%xmm0, %%xmm0; fninit; fld1; fisttpl (%%rsi)")
RUN(pclmul, "pclmulqdq $0, %%xmm0, %%xmm0")
RUN(ssse3, "pshufb %%xmm0, %%xmm0")
RUN(fma, "vfmadd132ps %%xmm0, %%xmm0, %%xmm0")
RUN(cx16, "xor %%eax, %%eax; xor %%edx, %%edx; cmpxchg16b (%%rsi)")
RUN(sse41, "pmulld %%xmm0, %%xmm0; roundss $0, %%xmm0, %%xmm0")
RUN(sse42, "crc32b %%al, %%ecx; pcmpistri $0, %%xmm0, %%xmm0")
RUN(movbe, "movbe (%%rsi), %%eax")
RUN(popcnt, "popcnt %%eax, %%eax")
RUN(aes, "aesenc %%xmm0, %%xmm0")
RUN(avx, "vaddps %%ymm0, %%ymm0, %%ymm0; vzeroupper")
RUN(f16c, "vcvtph2ps %%xmm0, %%xmm0")
RUN(rdrand, "rdrand %%eax")
RUN(bmi1, "andn %%eax, %%eax, %%eax; tzcnt %%eax, %%eax; blsr %%eax, %%eax")
RUN(avx2, "vpaddd %%ymm0, %%ymm0, %%ymm0; vzeroupper")
RUN(bmi2, "mulx %%eax, %%ebx, %%ecx; rorx $1, %%eax, %%eax; pdep %%eax, %%eax, %%eax")
RUN(erms, "mov %%rsi, %%rdi; mov $64, %%ecx; rep stosb")
RUN(rdseed, "rdseed %%eax")
RUN(adx, "adcx %%eax, %%eax; adox %%eax, %%eax")
RUN(clflushopt, "clflushopt (%%rsi)")
RUN(clwb, "clwb (%%rsi)")
RUN(sha, "sha1nexte %%xmm0, %%xmm0; sha256rnds2 %%xmm0, %%xmm0, %%xmm0")
RUN(avx512f, "vpaddd %%zmm0, %%zmm0, %%zmm0; vpaddd %%zmm17, %%zmm18, %%zmm19%{%%k1%}")
RUN(avx512dq, "vpmullq %%zmm0, %%zmm0, %%zmm0")
RUN(avx512ifma, "vpmadd52luq %%zmm0, %%zmm0, %%zmm0")
RUN(avx512cd, "vpconflictd %%zmm0, %%zmm0")
RUN(avx512bw, "vpaddb %%zmm0, %%zmm0, %%zmm0")
RUN(avx512vl, "vpaddd %%xmm17, %%xmm18, %%xmm19")
RUN(avx512vbmi, "vpermb %%zmm0, %%zmm0, %%zmm0")
RUN(avx512vbmi2, "vpcompressb %%zmm0, %%zmm0%{%%k1%}")
RUN(gfni, "gf2p8mulb %%xmm0, %%xmm0")
RUN(vaes, "vaesenc %%ymm0, %%ymm0, %%ymm0")
RUN(vpclmul, "vpclmulqdq $0, %%ymm0, %%ymm0, %%ymm0")
RUN(vnni, "vpdpbusd %%zmm0, %%zmm0, %%zmm0")
RUN(bitalg, "vpopcntb %%zmm0, %%zmm0")
RUN(vpopcntdq, "vpopcntd %%zmm0, %%zmm0")
RUN(rdpid, "rdpid %%rax")
RUN(fsgsbase, "rdfsbase %%rax")
RUN(movdiri, "movdiri %%eax, (%%rsi)")
RUN(movdir64b, "movdir64b (%%rsi), %%rsi")
RUN(serialize, ".byte 0x0f, 0x01, 0xe8")
RUN(lahf, "lahf; sahf")
RUN(lzcnt, "lzcnt %%eax, %%eax")
RUN(sse4a, "extrq $0, $8, %%xmm0; movntss %%xmm0, (%%rsi)")
RUN(prefetchw, "prefetchw (%%rsi)")
RUN(xop, "vprotb $1, %%xmm0, %%xmm0")
RUN(fma4, "vfmaddps %%xmm0, %%xmm0, %%xmm0, %%xmm0")
RUN(tbm, "blcfill %%eax, %%eax")
RUN(rdtscp, "rdtscp")
RUN(threednow, "pfadd %%mm0, %%mm0; femms")
RUN(clzero, "mov %%rsi, %%rax; clzero")
RUN(xsave, "xor %%eax, %%eax; xor %%edx, %%edx; xor %%ecx, %%ecx; xgetbv")
RUN(smap, "stac; clac")
RUN(wbnoinvd, "wbnoinvd")
RUN(xgetbv1, "mov $1, %%ecx; xgetbv")
RUN(avx_vnni, "%{vex%} vpdpbusd %%ymm0, %%ymm0, %%ymm0")
RUN(bf16, "vcvtneps2bf16 %%zmm0, %%ymm0")
RUN(invpcid, "mov $2, %%eax; movq $0, (%%rsi); movq $0, 8(%%rsi); invpcid (%%rsi), %%rax")
RUN(monitor, "mov %%rsi, %%rax; xor %%ecx, %%ecx; xor %%edx, %%edx; monitor")
RUN(msr, "mov $0xc0000080, %%ecx; rdmsr")
RUN(pat, "mov $0x277, %%ecx; rdmsr")
RUN(mtrr, "mov $0xfe, %%ecx; rdmsr")
RUN(arch_cap, "mov $0x10a, %%ecx; rdmsr")
RUN(tsc_adjust, "mov $0x3b, %%ecx; rdmsr")
RUN(tsc_deadline, "mov $0x6e0, %%ecx; rdmsr")
RUN(x2apic, "mov $0x1b, %%ecx; rdmsr")
RUN(spec_ctrl, "mov $0x48, %%ecx; rdmsr")

#define AVX 7
#define ZMM 0xe7
static const struct feature features[] = {
    {"fpu", 1, 0, 3, 0, run_fpu, 0},
    {"tsc", 1, 0, 3, 4, run_tsc, 0},
    {"msr", 1, 0, 3, 5, run_msr, 0},
    {"cx8", 1, 0, 3, 8, run_cx8, 0},
    {"mtrr", 1, 0, 3, 12, run_mtrr, 0},
    {"cmov", 1, 0, 3, 15, run_cmov, 0},
    {"pat", 1, 0, 3, 16, run_pat, 0},
    {"clflush", 1, 0, 3, 19, run_clflush, 0},
    {"mmx", 1, 0, 3, 23, run_mmx, 0},
    {"fxsr", 1, 0, 3, 24, run_fxsr, 0},
    {"sse", 1, 0, 3, 25, run_sse, 0},
    {"sse2", 1, 0, 3, 26, run_sse2, 0},
    {"sse3", 1, 0, 2, 0, run_sse3, 0},
    {"pclmulqdq", 1, 0, 2, 1, run_pclmul, 0},
    {"monitor", 1, 0, 2, 3, run_monitor, 0},
    {"ssse3", 1, 0, 2, 9, run_ssse3, 0},
    {"fma", 1, 0, 2, 12, run_fma, AVX},
    {"cx16", 1, 0, 2, 13, run_cx16, 0},
    {"sse4.1", 1, 0, 2, 19, run_sse41, 0},
    {"sse4.2", 1, 0, 2, 20, run_sse42, 0},
    {"x2apic", 1, 0, 2, 21, run_x2apic, 0},
    {"movbe", 1, 0, 2, 22, run_movbe, 0},
    {"popcnt", 1, 0, 2, 23, run_popcnt, 0},
    {"tsc-deadline", 1, 0, 2, 24, run_tsc_deadline, 0},
    {"aes", 1, 0, 2, 25, run_aes, 0},
    {"xsave", 1, 0, 2, 26, run_xsave, 1},
    {"avx", 1, 0, 2, 28, run_avx, AVX},
    {"f16c", 1, 0, 2, 29, run_f16c, AVX},
    {"rdrand", 1, 0, 2, 30, run_rdrand, 0},
    {"fsgsbase", 7, 0, 1, 0, run_fsgsbase, 0},
    {"tsc_adjust", 7, 0, 1, 1, run_tsc_adjust, 0},
    {"bmi1", 7, 0, 1, 3, run_bmi1, 0},
    {"avx2", 7, 0, 1, 5, run_avx2, AVX},
    {"bmi2", 7, 0, 1, 8, run_bmi2, 0},
    {"erms", 7, 0, 1, 9, run_erms, 0},
    {"invpcid", 7, 0, 1, 10, run_invpcid, 0},
    {"avx512f", 7, 0, 1, 16, run_avx512f, ZMM},
    {"avx512dq", 7, 0, 1, 17, run_avx512dq, ZMM},
    {"rdseed", 7, 0, 1, 18, run_rdseed, 0},
    {"adx", 7, 0, 1, 19, run_adx, 0},
    {"smap", 7, 0, 1, 20, run_smap, 0},
    {"avx512ifma", 7, 0, 1, 21, run_avx512ifma, ZMM},
    {"clflushopt", 7, 0, 1, 23, run_clflushopt, 0},
    {"clwb", 7, 0, 1, 24, run_clwb, 0},
    {"avx512cd", 7, 0, 1, 28, run_avx512cd, ZMM},
    {"sha", 7, 0, 1, 29, run_sha, 0},
    {"avx512bw", 7, 0, 1, 30, run_avx512bw, ZMM},
    {"avx512vl", 7, 0, 1, 31, run_avx512vl, ZMM},
    {"avx512vbmi", 7, 0, 2, 1, run_avx512vbmi, ZMM},
    {"avx512vbmi2", 7, 0, 2, 6, run_avx512vbmi2, ZMM},
    {"gfni", 7, 0, 2, 8, run_gfni, 0},
    {"vaes", 7, 0, 2, 9, run_vaes, AVX},
    {"vpclmulqdq", 7, 0, 2, 10, run_vpclmul, AVX},
    {"avx512vnni", 7, 0, 2, 11, run_vnni, ZMM},
    {"avx512bitalg", 7, 0, 2, 12, run_bitalg, ZMM},
    {"avx512vpopcntdq", 7, 0, 2, 14, run_vpopcntdq, ZMM},
    {"rdpid", 7, 0, 2, 22, run_rdpid, 0},
    {"movdiri", 7, 0, 2, 27, run_movdiri, 0},
    {"movdir64b", 7, 0, 2, 28, run_movdir64b, 0},
    {"serialize", 7, 0, 3, 14, run_serialize, 0},
    {"spec_ctrl", 7, 0, 3, 26, run_spec_ctrl, 0},
    {"arch_capabilities", 7, 0, 3, 29, run_arch_cap, 0},
    {"avx_vnni", 7, 1, 0, 4, run_avx_vnni, AVX},
    {"avx512_bf16", 7, 1, 0, 5, run_bf16, ZMM},
    {"xgetbv1", 13, 1, 0, 2, run_xgetbv1, 1},
    {"lahf", 0x80000001, 0, 2, 0, run_lahf, 0},
    {"lzcnt", 0x80000001, 0, 2, 5, run_lzcnt, 0},
    {"sse4a", 0x80000001, 0, 2, 6, run_sse4a, 0},
    {"prefetchw", 0x80000001, 0, 2, 8, run_prefetchw, 0},
    {"xop", 0x80000001, 0, 2, 11, run_xop, AVX},
    {"fma4", 0x80000001, 0, 2, 16, run_fma4, AVX},
    {"tbm", 0x80000001, 0, 2, 21, run_tbm, 0},
    {"rdtscp", 0x80000001, 0, 3, 27, run_rdtscp, 0},
    {"3dnow", 0x80000001, 0, 3, 31, run_threednow, 0},
    {"clzero", 0x80000008, 0, 1, 0, run_clzero, 0},
    {"wbnoinvd", 0x80000008, 0, 1, 9, run_wbnoinvd, 0},
};

static u64 xcr0_possible(void)
{
    u32 r[4];

    if (!cpu_has(1, 0, 2, 26))
        return 0;
    cpuid(13, 0, r);
    return r[0];
}

TEST(features__shown_ones_work)
{
    u64 possible = xcr0_possible();

    if (possible) {
        WRITE_CR(4, READ_CR(4) | CR4_OSXSAVE);
        __asm__ volatile("xsetbv" ::"c"(0), "a"((u32)possible & 0xe7), "d"(0));
    }
    if (cpu_has(7, 0, 1, 0))
        WRITE_CR(4, READ_CR(4) | CR4_FSGSBASE);
    for (unsigned i = 0; i < ARRAY_SIZE(features); i++) {
        const struct feature *f = &features[i];
        struct trap t;

        if (!cpu_has(f->leaf, f->sub, f->reg, f->bit))
            continue;
        if ((possible & f->xcr0) != f->xcr0) {
            test_failed(__LINE__, "%s is shown, but XCR0 cannot have %x", f->name, f->xcr0);
            continue;
        }
        TRY (&t)
            f->run();
        if (t.vector != V_NONE)
            test_failed(__LINE__, "%s is shown, but its instruction raises vector %x", f->name,
                        t.vector);
    }
    if (possible)
        __asm__ volatile("xsetbv" ::"c"(0), "a"(1), "d"(0));
}

TEST(features__long_mode_set)
{
    /* what 64-bit mode cannot be without */
    static const u8 must_d[] = {0, 3, 4, 5, 6, 8, 13, 15, 16, 19, 23, 24, 25, 26};
    for (unsigned i = 0; i < sizeof(must_d); i++)
        if (!cpu_has(1, 0, 3, must_d[i]))
            test_failed(__LINE__, "leaf 1 EDX bit %u is missing", must_d[i]);
    CHECK(cpu_has(1, 0, 3, 9)); /* local APIC */
    CHECK(cpu_has(0x80000001, 0, 3, 29));
    CHECK(cpu_has(0x80000001, 0, 3, 20));
    CHECK(cpu_has(0x80000001, 0, 3, 11));
}

TEST(leaf_d__hangs_together)
{
    u32 r[4], size, most = 576;
    u64 all = xcr0_possible();

    if (!all)
        SKIP("no XSAVE");
    WRITE_CR(4, READ_CR(4) | CR4_OSXSAVE);
    CHECK_EQ(all & 3, 3);
    for (unsigned c = 2; c < 32; c++) {
        cpuid(13, c, r);
        if (!(all >> c & 1))
            continue;
        CHECK(r[0] > 0);
        if (!(r[2] & 1) && r[0] + r[1] > most)
            most = r[0] + r[1];
    }
    cpuid(13, 0, r);
    CHECK_EQ(r[2], most); /* ECX: all that can be */
    CHECK_EQ(r[1], 576);  /* EBX: with XCR0 as it is, x87 only */
    __asm__ volatile("xsetbv" ::"c"(0), "a"((u32)all & 0xe7), "d"(0));
    cpuid(13, 0, r);
    size = r[1];
    CHECK(size >= 576 && size <= most);
    if (all & 4)
        CHECK(size >= 832);
    memset((void *)(uptr)page_alloc(), 0, 16);
    __asm__ volatile("xsetbv" ::"c"(0), "a"(1), "d"(0));
}

TEST(leaves__ranges_and_identity)
{
    u32 a[4], b[4];

    cpuid(0, 0, a);
    CHECK(a[0] >= 7 && a[0] < 0x100);
    cpuid(0x80000000, 0, b);
    CHECK(b[0] >= 0x80000008);
    if (cpu_is_amd()) {
        CHECK_EQ(a[1], b[1]); /* AMD repeats the vendor */
    }
    cpuid(0x80000008, 0, b);
    CHECK((b[0] & 0xff) >= 36 && (b[0] & 0xff) <= 52);
    CHECK((b[0] >> 8 & 0xff) == 48 || (b[0] >> 8 & 0xff) == 57);
    CHECK_EQ(cpu_has(7, 0, 2, 16), (b[0] >> 8 & 0xff) == 57); /* LA57 */
    /* registers' upper halves are cleared */
    {
        u64 rax = ~0ULL, rbx = ~0ULL, rcx = ~0ULL << 32, rdx = ~0ULL;
        rax <<= 32;
        __asm__ volatile("cpuid" : "+a"(rax), "+b"(rbx), "+c"(rcx), "+d"(rdx));
        CHECK_EQ((rax | rbx | rcx | rdx) >> 32, 0);
        CHECK_EQ(rbx, a[1]);
    }
}

TEST_QEMU_DEVIATES(bits__mirror_control_registers, "does not show the APIC bit again")
{
    u32 r[4];

    cpuid(1, 0, r);
    CHECK_EQ(r[2] >> 27 & 1, 0); /* OSXSAVE */
    if (cpu_has(7, 0, 2, 3)) {
        CHECK(!cpu_has(7, 0, 2, 4)); /* OSPKE */
        WRITE_CR(4, READ_CR(4) | CR4_PKE);
        CHECK(cpu_has(7, 0, 2, 4));
    }
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) & ~0x800ULL);
    CHECK(!cpu_has(1, 0, 3, 9)); /* the APIC bit follows the global enable */
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 0x800);
    CHECK(cpu_has(1, 0, 3, 9));
}

TEST(cpuid__in_ring_3_and_unchanged)
{
    for (unsigned i = 0; i < 50; i++) {
        u32 a[4], b[4];
        cpuid(7, 0, a);
        cpuid(7, 0, b);
        CHECK_EQ(memcmp(a, b, 16), 0);
    }
}
