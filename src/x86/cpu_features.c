/* SPDX-License-Identifier: Apache-2.0 */
/* Feature bits of CPUID and their names (SDM 2A CPUID; APM 3 appendix E; Linux cpufeatures.h). */
#include <string.h>

#include "x86/cpu_features.h"

enum { EAX, EBX, ECX, EDX };

/* The registers, in the order of `regs`. */
enum { R1C, R1D, R6A, R7B, R7C, R7D, R71A, RDA, RE1C, RE1D, RE7D, RE8B, RE21A, RE21C, RKVM, NREGS };

/* All of what is below bit 10 but VME, which some virtual machines do not give. */
#define PC_1D                                                                                      \
    (0x7du | BIT32(7) | BIT32(8) | BIT32(9) | BIT32(11) | BIT32(12) | BIT32(13) | BIT32(14) |      \
     BIT32(15) | BIT32(16) | BIT32(17) | BIT32(19) | BIT32(23) | BIT32(24) | BIT32(25) |           \
     BIT32(26))
/* The bits of leaf 1 EDX that AMD has again in leaf 80000001H, without the dynamic one. */
#define REPEATED 0x0183f1ffu
#define SAFETY_7D (BIT32(10) | 0xfu << 26 | BIT32(31))

static const struct reg {
    u32 leaf, subleaf;
    u8 reg;
    u32 pc;       /* bits a 64-bit PC cannot be without */
    u32 topology; /* bits that say how many CPUs there are: no features */
    u32 safety;   /* bits about speculation and weaknesses */
    const char *name[32];
} regs[NREGS] = {
    [R1C] = {1,
             0,
             ECX,
             0,
             0,
             0,
             {[0] = "pni",
              [1] = "pclmulqdq",
              [2] = "dtes64",
              [3] = "monitor",
              [4] = "ds_cpl",
              [5] = "vmx",
              [6] = "smx",
              [7] = "est",
              [8] = "tm2",
              [9] = "ssse3",
              [11] = "sdbg",
              [12] = "fma",
              [13] = "cx16",
              [14] = "xtpr",
              [15] = "pdcm",
              [17] = "pcid",
              [18] = "dca",
              [19] = "sse4_1",
              [20] = "sse4_2",
              [21] = "x2apic",
              [22] = "movbe",
              [23] = "popcnt",
              [24] = "tsc_deadline_timer",
              [25] = "aes",
              [26] = "xsave",
              [28] = "avx",
              [29] = "f16c",
              [30] = "rdrand",
              [31] = "hypervisor"}},
    [R1D] = {1,
             0,
             EDX,
             PC_1D,
             BIT32(28) | BIT32(9),
             0,
             {[0] = "fpu",   [1] = "vme",    [2] = "de",    [3] = "pse",      [4] = "tsc",
              [5] = "msr",   [6] = "pae",    [7] = "mce",   [8] = "cx8",      [9] = "apic",
              [11] = "sep",  [12] = "mtrr",  [13] = "pge",  [14] = "mca",     [15] = "cmov",
              [16] = "pat",  [17] = "pse36", [18] = "pn",   [19] = "clflush", [21] = "dts",
              [22] = "acpi", [23] = "mmx",   [24] = "fxsr", [25] = "sse",     [26] = "sse2",
              [27] = "ss",   [28] = "ht",    [29] = "tm",   [31] = "pbe"}},
    [R6A] = {6, 0, EAX, 0, 0, 0, {[2] = "arat"}},
    [R7B] = {7,
             0,
             EBX,
             0,
             0,
             0,
             {[0] = "fsgsbase",
              [1] = "tsc_adjust",
              [2] = "sgx",
              [3] = "bmi1",
              [4] = "hle",
              [5] = "avx2",
              [6] = "fdp_excptn_only",
              [7] = "smep",
              [8] = "bmi2",
              [9] = "erms",
              [10] = "invpcid",
              [11] = "rtm",
              [13] = "zero_fcs_fds",
              [14] = "mpx",
              [16] = "avx512f",
              [17] = "avx512dq",
              [18] = "rdseed",
              [19] = "adx",
              [20] = "smap",
              [21] = "avx512ifma",
              [23] = "clflushopt",
              [24] = "clwb",
              [25] = "intel_pt",
              [26] = "avx512pf",
              [27] = "avx512er",
              [28] = "avx512cd",
              [29] = "sha_ni",
              [30] = "avx512bw",
              [31] = "avx512vl"}},
    [R7C] = {7,
             0,
             ECX,
             0,
             0,
             0,
             {[1] = "avx512vbmi",
              [2] = "umip",
              [3] = "pku",
              [5] = "waitpkg",
              [6] = "avx512_vbmi2",
              [7] = "shstk",
              [8] = "gfni",
              [9] = "vaes",
              [10] = "vpclmulqdq",
              [11] = "avx512_vnni",
              [12] = "avx512_bitalg",
              [14] = "avx512_vpopcntdq",
              [16] = "la57",
              [22] = "rdpid",
              [24] = "bus_lock_detect",
              [25] = "cldemote",
              [27] = "movdiri",
              [28] = "movdir64b",
              [29] = "enqcmd"}},
    [R7D] = {7,
             0,
             EDX,
             0,
             0,
             SAFETY_7D,
             {[2] = "avx512_4vnniw",
              [3] = "avx512_4fmaps",
              [4] = "fsrm",
              [8] = "avx512_vp2intersect",
              [10] = "md_clear",
              [14] = "serialize",
              [16] = "tsxldtrk",
              [20] = "ibt",
              [22] = "amx_bf16",
              [23] = "avx512_fp16",
              [24] = "amx_tile",
              [25] = "amx_int8",
              [26] = "spec_ctrl",
              [27] = "stibp",
              [28] = "flush_l1d",
              [29] = "arch_capabilities",
              [30] = "core_capabilities",
              [31] = "ssbd"}},
    [R71A] = {7,
              1,
              EAX,
              0,
              0,
              0,
              {[4] = "avx_vnni",
               [5] = "avx512_bf16",
               [7] = "cmpccxadd",
               [10] = "fzrm",
               [11] = "fsrs",
               [12] = "fsrc",
               [21] = "amx_fp16",
               [23] = "avx_ifma",
               [26] = "lam"}},
    [RDA] = {0xd,
             1,
             EAX,
             0,
             0,
             0,
             {[0] = "xsaveopt", [1] = "xsavec", [2] = "xgetbv1", [3] = "xsaves", [4] = "xfd"}},
    [RE1C] = {0x80000001u,
              0,
              ECX,
              0,
              BIT32(1) | BIT32(22),
              0,
              {[0] = "lahf_lm",       [1] = "cmp_legacy",  [2] = "svm",   [3] = "extapic",
               [4] = "cr8_legacy",    [5] = "abm",         [6] = "sse4a", [7] = "misalignsse",
               [8] = "3dnowprefetch", [9] = "osvw",        [10] = "ibs",  [11] = "xop",
               [12] = "skinit",       [13] = "wdt",        [15] = "lwp",  [16] = "fma4",
               [17] = "tce",          [19] = "nodeid_msr", [21] = "tbm",  [22] = "topoext",
               [23] = "perfctr_core"}},
    [RE1D] = {0x80000001u,
              0,
              EDX,
              BIT32(11) | BIT32(20) | BIT32(29),
              BIT32(9),
              0,
              {[11] = "syscall",
               [20] = "nx",
               [22] = "mmxext",
               [25] = "fxsr_opt",
               [26] = "pdpe1gb",
               [27] = "rdtscp",
               [29] = "lm",
               [30] = "3dnowext",
               [31] = "3dnow"}},
    [RE7D] = {0x80000007u, 0, EDX, 0, 0, 0, {[8] = "constant_tsc"}},
    [RE8B] = {0x80000008u,
              0,
              EBX,
              0,
              0,
              0xfffff000u,
              {[0] = "clzero",
               [1] = "irperf",
               [2] = "xsaveerptr",
               [4] = "rdpru",
               [9] = "wbnoinvd",
               [12] = "amd_ibpb",
               [14] = "amd_ibrs",
               [15] = "amd_stibp",
               [16] = "amd_ibrs_always_on",
               [17] = "amd_stibp_always_on",
               [18] = "amd_ibrs_preferred",
               [20] = "no_efer_lmsle",
               [24] = "amd_ssbd",
               [25] = "virt_ssbd",
               [26] = "amd_ssb_no",
               [28] = "amd_psfd",
               [29] = "btc_no",
               [30] = "ibpb_ret"}},
    [RE21A] = {0x80000021u,
               0,
               EAX,
               0,
               0,
               ~(u32)0,
               {[0] = "no_nested_data_bp",
                [2] = "lfence_rdtsc",
                [6] = "null_sel_clr_base",
                [7] = "upper_address_ignore",
                [8] = "autoibrs",
                [9] = "no_smm_ctl_msr",
                [27] = "sbpb",
                [28] = "ibpb_brtype",
                [29] = "srso_no"}},
    [RE21C] = {0x80000021u, 0, ECX, 0, 0, ~(u32)0, {[1] = "tsa_sq_no", [2] = "tsa_l1_no"}},
    [RKVM] = {0x40000001u,
              0,
              EAX,
              0,
              0,
              0,
              {[0] = "kvmclock_old",
               [1] = "kvm_nopiodelay",
               [3] = "kvmclock",
               [24] = "kvmclock_stable"}},
};

/* QEMU's names, and others in use, where they are not only written otherwise. */
static const struct {
    const char *name;
    u16 feature;
} aliases[] = {
    {"sse3", R1C * 32 + 0},    {"tsc_deadline", R1C * 32 + 24}, {"lzcnt", RE1C * 32 + 5},
    {"invtsc", RE7D * 32 + 8}, {"ibpb", RE8B * 32 + 12},        {"prefetchw", RE1C * 32 + 8},
};

#define F(reg, bit) ((u16)((reg)*32 + (bit)))
#define XSAVE F(R1C, 26)
#define AVX F(R1C, 28)
#define AVX512F F(R7B, 16)
#define AVX512BW F(R7B, 30)
#define AVX512VL F(R7B, 31)

/* What cannot be without something else (much of it is in Linux arch/x86/kernel/cpu/cpuid-deps.c).
 */
static const struct {
    u16 feature, needs;
} deps[] = {
    {F(R1C, 9), F(R1C, 0)},    /* SSSE3, SSE3 */
    {F(R1C, 19), F(R1C, 9)},   /* SSE4.1 */
    {F(R1C, 20), F(R1C, 19)},  /* SSE4.2 */
    {F(RE1C, 6), F(R1C, 0)},   /* SSE4A */
    {F(RDA, 0), XSAVE},        /* XSAVEOPT */
    {F(RDA, 1), XSAVE},        /* XSAVEC */
    {F(RDA, 2), XSAVE},        /* XGETBV with ECX = 1 */
    {F(RDA, 3), XSAVE},        /* XSAVES */
    {AVX, XSAVE},              /* */
    {F(R1C, 12), AVX},         /* FMA */
    {F(R1C, 29), AVX},         /* F16C */
    {F(R7B, 5), AVX},          /* AVX2 */
    {F(R7C, 9), AVX},          /* VAES */
    {F(R7C, 9), F(R1C, 25)},   /* and AES */
    {F(R7C, 10), AVX},         /* VPCLMULQDQ */
    {F(R7C, 10), F(R1C, 1)},   /* and PCLMULQDQ */
    {F(R71A, 4), F(R7B, 5)},   /* AVX-VNNI, AVX2 */
    {F(RE1C, 11), AVX},        /* XOP */
    {F(RE1C, 16), AVX},        /* FMA4 */
    {AVX512F, F(R7B, 5)},      /* AVX2 */
    {AVX512F, F(R1C, 12)},     /* and FMA */
    {F(R7B, 17), AVX512F},     /* DQ */
    {F(R7B, 21), AVX512F},     /* IFMA */
    {F(R7B, 26), AVX512F},     /* PF */
    {F(R7B, 27), AVX512F},     /* ER */
    {F(R7B, 28), AVX512F},     /* CD */
    {AVX512BW, AVX512F},       /* */
    {AVX512VL, AVX512F},       /* */
    {F(R7C, 1), AVX512F},      /* VBMI */
    {F(R7C, 6), AVX512VL},     /* VBMI2 */
    {F(R7C, 11), AVX512VL},    /* VNNI */
    {F(R7C, 12), AVX512VL},    /* BITALG */
    {F(R7C, 14), AVX512F},     /* VPOPCNTDQ */
    {F(R7D, 2), AVX512F},      /* 4VNNIW */
    {F(R7D, 3), AVX512F},      /* 4FMAPS */
    {F(R7D, 8), AVX512VL},     /* VP2INTERSECT */
    {F(R7D, 23), AVX512BW},    /* FP16 */
    {F(R71A, 5), AVX512VL},    /* BF16 */
    {F(R7B, 10), F(R1C, 17)},  /* INVPCID, PCID */
    {F(RKVM, 24), F(RKVM, 3)}, /* kvmclock's stable bit */
};

/* Weaknesses rather than strengths: RSBA, RRSBA (SDM 4 table 2-2). */
#define ARCH_CAPS_WEAK (BIT64(2) | BIT64(19))

static struct x86_cpuid_entry *entry(struct x86_cpu_model *m, u32 leaf, u32 subleaf)
{
    for (unsigned i = 0; i < m->n; i++)
        if (m->entry[i].leaf == leaf && m->entry[i].subleaf == subleaf)
            return &m->entry[i];
    return NULL;
}

/* Where a feature register is, or NULL. */
static u32 *place(struct x86_cpu_model *m, const struct reg *r)
{
    struct x86_cpuid_entry *e = entry(m, r->leaf, r->subleaf);

    if (!e)
        return NULL;
    return r->reg == EAX ? &e->eax : r->reg == EBX ? &e->ebx : r->reg == ECX ? &e->ecx : &e->edx;
}

static u32 value(const struct x86_cpu_model *m, const struct reg *r)
{
    const u32 *p = place((struct x86_cpu_model *)(uintptr_t)m, r);

    return p ? *p : 0;
}

/* --- names --- */

static bool counts(char c)
{
    return c != '-' && c != '_' && c != '.';
}

static bool same_name(const char *a, const char *b, size_t len)
{
    const char *end = b + len;

    for (;;) {
        while (*a && !counts(*a))
            a++;
        while (b < end && !counts(*b))
            b++;
        if (b == end)
            return !*a;
        if (*a++ != *b++)
            return false;
    }
}

int x86_feature_find(const char *name, size_t len)
{
    for (unsigned i = 0; i < NREGS * 32; i++) {
        const char *known = regs[i / 32].name[i % 32];

        if (known && same_name(known, name, len))
            return (int)i;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(aliases); i++)
        if (same_name(aliases[i].name, name, len))
            return aliases[i].feature;
    return -1;
}

const char *x86_feature_name(int feature)
{
    return regs[feature / 32].name[feature % 32];
}

/* --- one feature --- */

bool x86_cpu_model_has(const struct x86_cpu_model *m, int feature)
{
    return value(m, &regs[feature / 32]) >> (feature % 32) & 1;
}

void x86_cpu_model_add(struct x86_cpu_model *m, int feature)
{
    u32 *p = place(m, &regs[feature / 32]);

    if (p)
        *p |= BIT32(feature % 32);
}

bool x86_cpu_model_remove(struct x86_cpu_model *m, int feature)
{
    u32 *p = place(m, &regs[feature / 32]);

    if (regs[feature / 32].pc & BIT32(feature % 32))
        return false;
    if (p)
        *p &= ~BIT32(feature % 32);
    return true;
}

void x86_cpu_model_intersect(struct x86_cpu_model *m, const struct x86_cpu_model *other)
{
    u64 weak = (m->arch_caps | other->arch_caps) & ARCH_CAPS_WEAK;
    struct x86_cpuid_entry *e = entry(m, 0x80000008u, 0);

    for (unsigned i = 0; i < NREGS; i++) {
        u32 *p = place(m, &regs[i]);

        if (p)
            *p &= value(other, &regs[i]) | regs[i].topology;
    }
    m->arch_caps = (m->arch_caps & other->arch_caps) | weak;
    if (e && other->phys_bits < (e->eax & 0xff))
        e->eax = (e->eax & ~0xffu) | other->phys_bits;
}

void x86_cpu_model_strip(struct x86_cpu_model *m)
{
    for (unsigned i = 0; i < NREGS; i++) {
        u32 *p = i == RKVM ? NULL : place(m, &regs[i]);

        if (p)
            *p &= regs[i].pc | regs[i].topology | regs[i].safety;
    }
}

void x86_cpu_model_require(struct x86_cpu_model *m)
{
    for (unsigned i = 0; i < NREGS; i++) {
        u32 *p = place(m, &regs[i]);

        if (p)
            *p |= regs[i].pc & ~regs[i].topology;
    }
}

/* --- what hangs together --- */

static bool has(const struct x86_cpu_model *m, u16 feature)
{
    return x86_cpu_model_has(m, feature);
}

static void drop_dependents(struct x86_cpu_model *m)
{
    bool again = true;

    while (again) {
        again = false;
        for (unsigned i = 0; i < ARRAY_SIZE(deps); i++)
            if (has(m, deps[i].feature) && !has(m, deps[i].needs)) {
                x86_cpu_model_remove(m, deps[i].feature);
                again = true;
            }
    }
}

int x86_cpu_model_wants(const struct x86_cpu_model *m, int f)
{
    int found = -1;

    /* No feature needs itself, by whatever way: this ends. */
    for (unsigned i = 0; i < ARRAY_SIZE(deps); i++)
        if (deps[i].feature == f && !has(m, deps[i].needs)) {
            found = f = deps[i].needs;
            i = (unsigned)-1;
        }
    return found;
}

static void drop_entries(struct x86_cpu_model *m, u32 leaf, u64 but_subleaves)
{
    unsigned n = 0;

    for (unsigned i = 0; i < m->n; i++)
        if (m->entry[i].leaf != leaf ||
            (m->entry[i].subleaf < 64 && (but_subleaves & BIT64(m->entry[i].subleaf))))
            m->entry[n++] = m->entry[i];
    m->n = n;
}

/* Leaf 0DH and the features that need its components: neither shows more than the other. */
static void settle_xsave(struct x86_cpu_model *m)
{
    struct x86_cpuid_entry *e = entry(m, 0xd, 0);
    u32 xcr0 = e ? e->eax : 0;

    if (!has(m, XSAVE) || (xcr0 & 3) != 3)
        xcr0 = 0;
    if (!has(m, AVX))
        xcr0 &= ~(u32)(X86_XCR0_AVX | X86_XCR0_AVX512);
    if (!has(m, AVX512F) || (xcr0 & X86_XCR0_AVX512) != X86_XCR0_AVX512 || !(xcr0 & X86_XCR0_AVX))
        xcr0 &= ~(u32)X86_XCR0_AVX512;
    if (!xcr0)
        x86_cpu_model_remove(m, XSAVE);
    if (!(xcr0 & X86_XCR0_AVX))
        x86_cpu_model_remove(m, AVX);
    if (!(xcr0 & X86_XCR0_AVX512))
        x86_cpu_model_remove(m, AVX512F);
    drop_dependents(m);
    drop_entries(m, 0xd, xcr0 ? xcr0 | 3 : 0);
    e = entry(m, 0xd, 0);
    if (!e)
        return;
    e->eax = xcr0;
    e->ecx = 576;
    for (u32 i = 2; i < 32; i++) {
        const struct x86_cpuid_entry *c = entry(m, 0xd, i);

        if (c && c->eax + c->ebx > e->ecx)
            e->ecx = c->eax + c->ebx;
    }
}

void x86_cpu_model_settle(struct x86_cpu_model *m)
{
    drop_dependents(m);
    settle_xsave(m);
    if (m->amd) {
        u32 *p = place(m, &regs[RE1D]);

        if (p)
            *p = (*p & ~REPEATED) | (value(m, &regs[R1D]) & REPEATED);
    }
    if (!has(m, F(R7D, 29)))
        m->arch_caps = 0;
    x86_cpu_model_derive(m);
}

/* --- comparing --- */

static char *put(char *to, const char *text)
{
    while (*text)
        *to++ = *text++;
    return to;
}

static char *put_number(char *to, u32 v, u32 base)
{
    char digits[10];
    unsigned n = 0;

    do
        digits[n++] = "0123456789abcdef"[v % base];
    while (v /= base);
    while (n)
        *to++ = digits[--n];
    return to;
}

static void report_bit(const struct reg *r, unsigned bit, x86_cpu_missing_fn *fn, void *opaque)
{
    static const char *const names[] = {".eax[", ".ebx[", ".ecx[", ".edx["};
    char text[X86_FEATURE_NAME_MAX], *p;

    if (r->name[bit]) {
        fn(opaque, r->name[bit]);
        return;
    }
    if (r == &regs[RE1D] && (REPEATED & BIT32(bit)))
        return;
    p = put_number(put(text, "cpuid."), r->leaf, 16);
    p = put_number(put(p, "."), r->subleaf, 16);
    p = put(put_number(put(p, names[r->reg]), bit, 10), "]");
    *p = 0;
    fn(opaque, text);
}

static void report_number(const char *before, u64 n, const char *after, x86_cpu_missing_fn *fn,
                          void *opaque)
{
    char text[X86_FEATURE_NAME_MAX], *p;

    p = put(put_number(put(text, before), (u32)n, 10), after);
    *p = 0;
    fn(opaque, text);
}

static void missing_vendor(const struct x86_cpu_model *want, const struct x86_cpu_model *have,
                           x86_cpu_missing_fn *fn, void *opaque)
{
    const struct x86_cpuid_entry *w = entry((struct x86_cpu_model *)(uintptr_t)want, 0, 0);
    char text[X86_FEATURE_NAME_MAX], *p = put(text, "vendor ");

    if (!w || want->amd == have->amd)
        return;
    memcpy(p, &w->ebx, 4);
    memcpy(p + 4, &w->edx, 4);
    memcpy(p + 8, &w->ecx, 4);
    p[12] = 0;
    for (; *p; p++)
        if (*p < ' ' || *p > '~')
            *p = '?';
    fn(opaque, text);
}

static void missing_xsave(const struct x86_cpu_model *want, const struct x86_cpu_model *have,
                          x86_cpu_missing_fn *fn, void *opaque)
{
    for (u32 i = 2; i < 64; i++) {
        const struct x86_cpuid_entry *w, *h;

        if (!(want->xcr0_valid & BIT64(i)))
            continue;
        w = entry((struct x86_cpu_model *)(uintptr_t)want, 0xd, i);
        h = entry((struct x86_cpu_model *)(uintptr_t)have, 0xd, i);
        if (!(have->xcr0_valid & BIT64(i)) || !w || !h)
            report_number("xsave component ", i, "", fn, opaque);
        else if (w->eax != h->eax || w->ebx != h->ebx || w->ecx != h->ecx)
            /* Images in the guest's memory have it there. */
            report_number("xsave component ", i, " at its place", fn, opaque);
    }
}

void x86_cpu_model_missing(const struct x86_cpu_model *want, const struct x86_cpu_model *have,
                           x86_cpu_missing_fn *fn, void *opaque)
{
    u64 caps = (want->arch_caps & ~have->arch_caps & ~ARCH_CAPS_WEAK) |
               (have->arch_caps & ~want->arch_caps & ARCH_CAPS_WEAK);
    u64 apart = want->tsc_khz > have->tsc_khz ? want->tsc_khz - have->tsc_khz
                                              : have->tsc_khz - want->tsc_khz;

    missing_vendor(want, have, fn, opaque);
    for (unsigned i = 0; i < NREGS; i++) {
        u32 bits = value(want, &regs[i]) & ~value(have, &regs[i]) & ~regs[i].topology;

        for (unsigned bit = 0; bit < 32; bit++)
            if (bits & BIT32(bit))
                report_bit(&regs[i], bit, fn, opaque);
    }
    for (unsigned bit = 0; bit < 64; bit++)
        if (caps & BIT64(bit) && want->arch_caps)
            report_number("arch_capabilities[", bit, "]", fn, opaque);
    missing_xsave(want, have, fn, opaque);
    if (want->phys_bits > have->phys_bits)
        report_number("", want->phys_bits, " physical address bits", fn, opaque);
    if (want->lin_bits > have->lin_bits)
        report_number("", want->lin_bits, " linear address bits", fn, opaque);
    if (apart * 1000000 > (u64)want->tsc_khz * 250)
        report_number("tsc frequency ", want->tsc_khz, " kHz", fn, opaque);
}
