/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "x86/cpu_baseline.h"

#define LEVEL_MIN 2
#define LEVEL_MAX 4

/* Enough for 512 GiB of memory; client CPUs of each level have so many. */
#define PHYS_BITS 39

/*
 * The levels' features, by the level that they come with.
 *
 *   psABI     x86-64 psABI 1.0, table 3.1 (LZCNT is abm, OSXSAVE is the system's answer to XSAVE)
 *   board     the board and every engine supply it
 *   all CPUs  every CPU of the level that its makers sold has it, by their documents: Intel's from
 *             Nehalem (v2), Haswell (v3) and Skylake-SP (v4) on, AMD's from Bulldozer, Excavator
 *             and Zen 4 on. Kernels use it.
 *
 * CPUs of these levels have RDTSCP, RDSEED, PCID and INVPCID, too, or most do; they are left out
 * because hosts that are virtual machines often do not show them. Those who want them add them.
 */
static const struct {
    unsigned level;
    const char *name;
} table[] = {
    /* board */
    {2, "x2apic"},
    {2, "hypervisor"},
    {2, "tsc_adjust"},
    {2, "constant_tsc"},
    {2, "arat"},
    /* psABI */
    {2, "cx16"},
    {2, "lahf_lm"},
    {2, "popcnt"},
    {2, "pni"},
    {2, "sse4_1"},
    {2, "sse4_2"},
    {2, "ssse3"},
    {3, "avx"},
    {3, "avx2"},
    {3, "bmi1"},
    {3, "bmi2"},
    {3, "f16c"},
    {3, "fma"},
    {3, "abm"},
    {3, "movbe"},
    {3, "xsave"},
    {4, "avx512f"},
    {4, "avx512bw"},
    {4, "avx512cd"},
    {4, "avx512dq"},
    {4, "avx512vl"},
    /* all CPUs */
    {3, "aes"},
    {3, "pclmulqdq"},
    {3, "rdrand"},
    {3, "xsaveopt"},
    {3, "fsgsbase"},
    {3, "smep"},
    {3, "pdpe1gb"},
    {4, "adx"},
    {4, "smap"},
    {4, "erms"},
    {4, "clflushopt"},
    {4, "clwb"},
    {4, "xsavec"},
    {4, "xgetbv1"},
    {4, "3dnowprefetch"},
};

/* CPUID.1:EAX of the first CPUs of the levels: Nehalem-EP, Haswell, Skylake-SP; Bulldozer, Zen,
 * Zen 4. (Kernels take families for hints about topology and errata; Zen's are better kept than
 * Excavator's.) */
static const u32 signatures[2][LEVEL_MAX + 1] = {
    {0, 0, 0x000106a5, 0x000306c3, 0x00050654},
    {0, 0, 0x00600f12, 0x00800f12, 0x00a10f11},
};

unsigned x86_cpu_level(const char *name, size_t len)
{
    static const char prefix[] = "x86-64-v";
    unsigned level;

    if (len != sizeof(prefix) || memcmp(name, prefix, sizeof(prefix) - 1) != 0)
        return 0;
    level = (unsigned)(u8)name[len - 1] - '0';
    return level >= LEVEL_MIN && level <= LEVEL_MAX ? level : 0;
}

static size_t length(const char *s)
{
    size_t n = 0;

    while (s[n])
        n++;
    return n;
}

static struct x86_cpuid_entry *entry(struct x86_cpu_model *m, u32 leaf)
{
    for (unsigned i = 0; i < m->n; i++)
        if (m->entry[i].leaf == leaf && !m->entry[i].subleaf)
            return &m->entry[i];
    return NULL;
}

static void set(struct x86_cpu_model *m, u32 leaf, u32 a, u32 b, u32 c, u32 d)
{
    struct x86_cpuid_entry *e = entry(m, leaf);

    if (!e)
        return;
    e->eax = a;
    e->ebx = b;
    e->ecx = c;
    e->edx = d;
}

/* Caches of 32 KiB of data and of code and 1 MiB a core, and 16 MiB for all, in lines of 64 bytes
 * (SDM 2A CPUID leaf 04H; APM 3 E.4.16). Who shares them is as it was in the model. */
static void set_caches(struct x86_cpu_model *m, u32 leaf)
{
    static const struct {
        u32 type, level, ways, sets;
    } cache[] = {{1, 1, 8, 64}, {2, 1, 8, 64}, {3, 2, 16, 1024}, {3, 3, 16, 16384}};
    const struct x86_cpuid_entry *l1 = entry(m, 1);
    u32 ncpus = l1->ebx >> 16 & 0xff, ids = 1;
    unsigned n = 0;

    while (ids < ncpus)
        ids <<= 1;
    for (unsigned i = 0; i < m->n; i++)
        if (m->entry[i].leaf != leaf)
            m->entry[n++] = m->entry[i];
    m->n = n;
    for (u32 i = 0; i < ARRAY_SIZE(cache) && m->n < X86_CPUID_MAX; i++) {
        bool shared = cache[i].level == 3;
        u32 a = cache[i].type | cache[i].level << 5 | BIT32(8); /* self-initializing */

        if (leaf == 4)
            a |= (ids - 1) << 26 | (shared ? (ids - 1) << 14 : 0);
        else
            a |= (shared ? ncpus - 1 : 0) << 14;
        m->entry[m->n++] = (struct x86_cpuid_entry){.leaf = leaf,
                                                    .subleaf = i,
                                                    .has_subleaf = true,
                                                    .eax = a,
                                                    .ebx = (cache[i].ways - 1) << 22 | 63,
                                                    .ecx = cache[i].sets - 1};
    }
}

static void set_name(struct x86_cpu_model *m, unsigned level)
{
    char text[48] = "trivisor x86-64-v";
    u32 r[4];

    text[17] = (char)('0' + level);
    for (u32 i = 0; i < 3; i++) {
        memcpy(r, text + 16 * i, 16);
        set(m, 0x80000002u + i, r[0], r[1], r[2], r[3]);
    }
}

static void set_identity(struct x86_cpu_model *m, unsigned level)
{
    u32 signature = signatures[m->amd][level];
    struct x86_cpuid_entry *e = entry(m, 1);

    e->eax = signature;
    e->ebx = (e->ebx & 0xff0000) | 8 << 8; /* CLFLUSH works on 64 bytes */
    set_name(m, level);
    e = entry(m, 0x80000008u);
    e->eax = PHYS_BITS | 48 << 8;
    if (!m->amd) {
        set(m, 2, 0x0000ff01, 0, 0, 0); /* see leaf 4 */
        set(m, 0x80000006u, 0, 0, 1024 << 16 | 8 << 12 | 64, 0);
        set_caches(m, 4);
        return;
    }
    e = entry(m, 0x80000001u);
    e->eax = signature;
    e->ebx = 0;
    /* L1 TLBs of 64 entries, caches (APM 3 E.4.4, E.4.5) */
    set(m, 0x80000005u, 0xff40ff40, 0xff40ff40, 32u << 24 | 8 << 16 | 1 << 8 | 64,
        32u << 24 | 8 << 16 | 1 << 8 | 64);
    set(m, 0x80000006u, 0, 0x42004200, 1024u << 16 | 8 << 12 | 1 << 8 | 64,
        32u << 18 | 8 << 12 | 1 << 8 | 64);
    set(m, 0x80000019u, 0, 0, 0, 0);
    set(m, 0x8000001au, 0, 0, 0, 0);
    set_caches(m, 0x8000001du);
}

void x86_cpu_model_set_level(struct x86_cpu_model *m, unsigned level, x86_cpu_missing_fn *fn,
                             void *opaque)
{
    int feature[ARRAY_SIZE(table)];

    for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
        feature[i] = x86_feature_find(table[i].name, length(table[i].name));
        if (table[i].level <= level && !x86_cpu_model_has(m, feature[i]))
            fn(opaque, table[i].name);
    }
    x86_cpu_model_strip(m);
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++)
        if (table[i].level <= level)
            x86_cpu_model_add(m, feature[i]);
    set_identity(m, level);
    x86_cpu_model_settle(m);
}
