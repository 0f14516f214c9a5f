/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CPU model of engine bt: the host's CPUID without what a translated guest cannot keep, plus
 * what the interpreter and translator supply by themselves (SDM 2A CPUID; APM 3 appendix E).
 */
#include <string.h>

#include "x86/cpu_features.h"

#include "x86/msr.h"

/* Leaf 1 (SDM 2A tables 3-10 and 3-11). */
#define F1C_SSE3 BIT32(0)
#define F1C_PCLMUL BIT32(1)
#define F1C_SSSE3 BIT32(9)
#define F1C_FMA BIT32(12)
#define F1C_CX16 BIT32(13)
#define F1C_PCID BIT32(17)
#define F1C_SSE41 BIT32(19)
#define F1C_SSE42 BIT32(20)
#define F1C_X2APIC BIT32(21)
#define F1C_MOVBE BIT32(22)
#define F1C_POPCNT BIT32(23)
#define F1C_TSC_DEADLINE BIT32(24)
#define F1C_AES BIT32(25)
#define F1C_XSAVE BIT32(26)
#define F1C_OSXSAVE BIT32(27)
#define F1C_AVX BIT32(28)
#define F1C_F16C BIT32(29)
#define F1C_RDRAND BIT32(30)
#define F1C_HYPERVISOR BIT32(31)
#define F1C_HOST                                                                                   \
    (F1C_SSE3 | F1C_PCLMUL | F1C_SSSE3 | F1C_FMA | F1C_CX16 | F1C_SSE41 | F1C_SSE42 | F1C_MOVBE |  \
     F1C_POPCNT | F1C_AES | F1C_XSAVE | F1C_AVX | F1C_F16C | F1C_RDRAND)
/* Supplied by the engine whatever the host has. */
#define F1C_ALWAYS (F1C_PCID | F1C_X2APIC | F1C_TSC_DEADLINE | F1C_HYPERVISOR)

#define F1D_CX8 BIT32(8)
#define F1D_APIC BIT32(9)
#define F1D_SEP BIT32(11)
#define F1D_CMOV BIT32(15)
#define F1D_CLFSH BIT32(19)
#define F1D_MMX_SSE2 (BIT32(23) | BIT32(24) | BIT32(25) | BIT32(26)) /* MMX FXSR SSE SSE2 */
#define F1D_SS BIT32(27)
#define F1D_HTT BIT32(28)
/* FPU VME DE PSE TSC MSR PAE MCE, MTRR PGE MCA, PAT PSE36: the engine's own */
#define F1D_ALWAYS (0xffu | F1D_SEP | BIT32(12) | BIT32(13) | BIT32(14) | BIT32(16) | BIT32(17))
#define F1D_HOST (F1D_CX8 | F1D_CMOV | F1D_CLFSH | F1D_MMX_SSE2 | F1D_SS)

/* Leaf 7 subleaf 0. */
#define F7B_FSGSBASE BIT32(0)
#define F7B_TSC_ADJUST BIT32(1)
#define F7B_AVX2 BIT32(5)
#define F7B_SMEP BIT32(7)
#define F7B_INVPCID BIT32(10)
#define F7B_SMAP BIT32(20)
/* F DQ IFMA CD BW VL */
#define F7B_AVX512 (BIT32(16) | BIT32(17) | BIT32(21) | BIT32(28) | BIT32(30) | BIT32(31))
/* BMI1, FDP_EXCPTN_ONLY, BMI2, ERMS, no FCS/FDS, RDSEED, ADX, CLFLUSHOPT, CLWB, SHA */
#define F7B_PLAIN                                                                                  \
    (BIT32(3) | BIT32(6) | BIT32(8) | BIT32(9) | BIT32(13) | BIT32(18) | BIT32(19) | BIT32(23) |   \
     BIT32(24) | BIT32(29))
#define F7B_HOST (F7B_FSGSBASE | F7B_AVX2 | F7B_AVX512 | F7B_PLAIN)
#define F7B_ALWAYS (F7B_TSC_ADJUST | F7B_SMEP | F7B_INVPCID | F7B_SMAP)

#define F7C_UMIP BIT32(2)
#define F7C_GFNI BIT32(8)
#define F7C_VEX_CRYPTO (BIT32(9) | BIT32(10)) /* VAES VPCLMULQDQ */
/* VBMI VBMI2 VNNI BITALG VPOPCNTDQ */
#define F7C_AVX512 (BIT32(1) | BIT32(6) | BIT32(11) | BIT32(12) | BIT32(14))
#define F7C_RDPID BIT32(22)
#define F7C_HOST (F7C_AVX512 | F7C_GFNI | F7C_VEX_CRYPTO | F7C_RDPID)

#define F7D_FSRM BIT32(4)
#define F7D_AVX512 (BIT32(8) | BIT32(23)) /* VP2INTERSECT FP16 */
#define F7D_SPEC_CTRL BIT32(26)
#define F7D_ARCH_CAPABILITIES BIT32(29)
/* MD_CLEAR, STIBP, SSBD: VERW and MSR_SPEC_CTRL take it, and there is nothing to do. */
#define F7D_NEEDLESS (BIT32(10) | BIT32(27) | BIT32(31))
#define F7D_HOST (F7D_FSRM | F7D_AVX512)

/* Leaf 7 subleaf 1 EAX: AVX-VNNI, AVX512-BF16, and the fast-string hints. */
#define F71A_AVX_VNNI BIT32(4)
#define F71A_AVX512_BF16 BIT32(5)
#define F71A_HOST (F71A_AVX_VNNI | F71A_AVX512_BF16 | BIT32(10) | BIT32(11) | BIT32(12))

/* Leaf 0DH subleaf 1: XSAVEOPT, XSAVEC, XGETBV with ECX=1. XSAVES and XFD are not kept. */
#define FDA_HOST (BIT32(0) | BIT32(1) | BIT32(2))

#define XCR0_X87 BIT64(0)
#define XCR0_SSE BIT64(1)
#define XCR0_AVX X86_XCR0_AVX
#define XCR0_AVX512 X86_XCR0_AVX512
#define XCR0_KEPT (XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512)

/* Leaf 80000001H. */
#define E1C_CMP_LEGACY BIT32(1)
#define E1C_TOPOEXT BIT32(22)
/* LAHF, ABM (LZCNT), SSE4A, misaligned SSE, PREFETCHW */
#define E1C_HOST (BIT32(0) | BIT32(5) | BIT32(6) | BIT32(7) | BIT32(8))
#define E1C_INTEL (BIT32(0) | BIT32(5) | BIT32(8))
#define E1D_SYSCALL BIT32(11)
#define E1D_NX BIT32(20)
#define E1D_MMXEXT BIT32(22)
#define E1D_GBPAGES BIT32(26)
#define E1D_RDTSCP BIT32(27)
#define E1D_LM BIT32(29)
/* The bits of leaf 1 EDX that AMD repeats: 0-9, 12-17, 23, 24. */
#define E1D_REPEATED 0x0183f3ffu
#define E7D_INVARIANT_TSC BIT32(8)

/*
 * Speculation controls (APM 3 E.4.7, E.4.17). The translator is not a CPU a guest could mistrain,
 * and each mitigation would be paid for in translated code: say that none is needed.
 */
#define E8B_XSAVEERPTR BIT32(2)
/* IBPB, IBRS, IBRS preferred, no LMSLE, SSB_NO, BTC_NO, IBPB_RET */
#define E8B_ALWAYS                                                                                 \
    (BIT32(12) | BIT32(14) | BIT32(18) | BIT32(20) | BIT32(26) | BIT32(29) | BIT32(30))
/* STIBP, IBRS and STIBP always on, SSBD, PSFD: likewise */
#define E8B_NEEDLESS (BIT32(15) | BIT32(16) | BIT32(17) | BIT32(24) | BIT32(28))
#define E21A_AUTOIBRS BIT32(8)
/* LFENCE serializes, null selector clears base, automatic IBRS, no SMM_CTL, SRSO_NO */
#define E21A_ALWAYS (BIT32(2) | BIT32(6) | E21A_AUTOIBRS | BIT32(9) | BIT32(29))
#define E21A_HOST BIT32(0)                /* no nested data breakpoints */
#define E21C_ALWAYS (BIT32(1) | BIT32(2)) /* TSA_SQ_NO, TSA_L1_NO */

/* IA32_ARCH_CAPABILITIES (SDM 4 table 2-2): RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO,
 * PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO,
 * ITS_NO */
#define ARCH_CAPS                                                                                  \
    (BIT64(0) | BIT64(1) | BIT64(3) | BIT64(4) | BIT64(5) | BIT64(6) | BIT64(8) | BIT64(13) |      \
     BIT64(14) | BIT64(15) | BIT64(20) | BIT64(24) | BIT64(26) | BIT64(27) | BIT64(62))

/* KVM paravirtual leaves (Linux Documentation/virt/kvm/x86/cpuid.rst). */
#define KVM_LEAF 0x40000000u
#define KVM_TIMING_LEAF 0x40000010u
#define KVM_CLOCKSOURCE BIT32(0)
#define KVM_NOP_IO_DELAY BIT32(1)
#define KVM_CLOCKSOURCE2 BIT32(3)
#define KVM_CLOCKSOURCE_STABLE BIT32(24)

#define APIC_BUS_KHZ 1000000u /* the local APIC timer's input: 1 GHz */
#define MAX_INTEL_BASIC 0x1fu
#define MAX_AMD_BASIC 0x10u
#define MAX_AMD_EXT 0x80000021u
#define MAX_INTEL_EXT 0x80000008u

struct builder {
    struct x86_cpu_model *m;
    x86_cpuid_fn *host;
    u32 host_basic, host_ext;
    unsigned ncpus;
    bool every;
};

/* The host's leaf, or zeroes when it has none. */
static void host_leaf(const struct builder *b, u32 leaf, u32 subleaf, u32 out[4])
{
    u32 max = leaf & 0x80000000u ? b->host_ext : b->host_basic;
    memset(out, 0, 4 * sizeof(u32));
    if (leaf <= max)
        b->host(leaf, subleaf, out);
}

static void add(const struct builder *b, u32 leaf, int subleaf, const u32 r[4])
{
    struct x86_cpu_model *m = b->m;
    if (m->n == X86_CPUID_MAX)
        return;
    m->entry[m->n++] = (struct x86_cpuid_entry){.leaf = leaf,
                                                .subleaf = subleaf < 0 ? 0 : (u32)subleaf,
                                                .has_subleaf = subleaf >= 0,
                                                .eax = r[0],
                                                .ebx = r[1],
                                                .ecx = r[2],
                                                .edx = r[3]};
}

static void add4(const struct builder *b, u32 leaf, int subleaf, u32 a, u32 bx, u32 c, u32 d)
{
    add(b, leaf, subleaf, (const u32[4]){a, bx, c, d});
}

/* A leaf taken over as it is. */
static void add_host(const struct builder *b, u32 leaf)
{
    u32 r[4];
    host_leaf(b, leaf, 0, r);
    add(b, leaf, -1, r);
}

/* Bits an APIC id needs to number n cores. */
static u32 id_bits(unsigned n)
{
    u32 bits = 0;
    while ((1u << bits) < n)
        bits++;
    return bits;
}

static const struct x86_cpuid_entry *find(const struct x86_cpu_model *m, u32 leaf, u32 subleaf)
{
    for (unsigned i = 0; i < m->n; i++) {
        const struct x86_cpuid_entry *e = &m->entry[i];
        if (e->leaf == leaf && (!e->has_subleaf || e->subleaf == subleaf))
            return e;
    }
    return NULL;
}

/* x86_cpu_model_settle makes vector features and XCR0 stand and fall together. */
static void features(struct builder *b, u64 host_xcr0)
{
    struct x86_cpu_model *m = b->m;
    u32 l1[4], l7[4], l71[4], ld1[4], one_socket = b->ncpus;

    host_leaf(b, 1, 0, l1);
    host_leaf(b, 7, 0, l7);
    u32 l7_max = l7[0];
    memset(l71, 0, sizeof(l71));
    if (l7_max >= 1)
        host_leaf(b, 7, 1, l71);

    u32 c = (l1[2] & F1C_HOST) | F1C_ALWAYS;
    u32 d = (l1[3] & F1D_HOST) | F1D_ALWAYS;
    u32 b7 = (l7[1] & F7B_HOST) | F7B_ALWAYS;
    u32 c7 = (l7[2] & F7C_HOST) | F7C_UMIP;
    u32 d7 = l7[3] & F7D_HOST;
    u32 a71 = l71[0] & F71A_HOST;

    u64 xcr0 = c & F1C_XSAVE ? host_xcr0 & XCR0_KEPT : 0;
    if (!m->amd) {
        d7 |= F7D_SPEC_CTRL | F7D_ARCH_CAPABILITIES | (b->every ? F7D_NEEDLESS : 0);
        m->arch_caps = ARCH_CAPS;
    }
    if (one_socket > 1)
        d |= F1D_HTT;
    /* EBX: brand, CLFLUSH line, logical processors; the APIC id is dynamic. */
    add4(b, 1, -1, l1[0], (l1[1] & 0xffff) | one_socket << 16, c, d);
    add4(b, 7, 0, 1, b7, c7, d7);
    add4(b, 7, 1, a71, 0, 0, 0);

    if (!xcr0)
        return;
    /* Leaf 0DH: sizes are dynamic, offsets are the host's as the images are (SDM 1 13.2). */
    host_leaf(b, 0xd, 1, ld1);
    add4(b, 0xd, 0, (u32)xcr0, 0, 0, 0);
    add4(b, 0xd, 1, ld1[0] & FDA_HOST, 0, 0, 0);
    for (u32 i = 2; i < 32; i++) {
        u32 r[4];
        if (!(xcr0 & BIT64(i)))
            continue;
        host_leaf(b, 0xd, i, r);
        add4(b, 0xd, (int)i, r[0], r[1], r[2] & BIT32(1), 0);
    }
}

/*
 * Deterministic cache parameters, Intel leaf 4 or AMD leaf 8000001DH: the same layout but for EDX.
 * First- and second-level caches belong to one core, the third level to the package.
 */
static void caches(const struct builder *b, u32 leaf)
{
    u32 share = (1u << id_bits(b->ncpus)) - 1;
    for (int i = 0; i < 8; i++) {
        u32 r[4];
        host_leaf(b, leaf, (u32)i, r);
        if (!(r[0] & 0x1f))
            break;
        u32 sharing = (r[0] >> 5 & 7) >= 3 ? b->ncpus - 1 : 0;
        r[0] &= 0x3fff;
        if (leaf == 4)
            r[0] |= share << 26 | ((r[0] >> 5 & 7) >= 3 ? share << 14 : 0);
        else
            r[0] |= sharing << 14;
        add(b, leaf, i, r);
    }
}

/* Extended topology (leaf 0BH, and 1FH with the same content): one thread a core, one package. */
static void topology(const struct builder *b, u32 leaf)
{
    add4(b, leaf, 0, 0, 1, 0 | 1 << 8, 0);
    add4(b, leaf, 1, id_bits(b->ncpus), b->ncpus, 1 | 2 << 8, 0);
}

static void basic_leaves(struct builder *b, const struct x86_cpu_options *opt)
{
    struct x86_cpu_model *m = b->m;
    if (!m->amd) {
        add_host(b, 2);
        caches(b, 4);
        topology(b, 0x1f);
        /* TSC = crystal * EBX / EAX; Linux takes the crystal for the local APIC timer's clock. */
        add4(b, 0x15, -1, APIC_BUS_KHZ, (u32)opt->tsc_khz, APIC_BUS_KHZ * 1000u, 0);
        u32 mhz = (u32)(opt->tsc_khz / 1000);
        add4(b, 0x16, -1, mhz, mhz, 100, 0);
    }
    add4(b, 6, -1, BIT32(2), 0, 0, 0); /* ARAT: the APIC timer never stops */
    topology(b, 0xb);
}

static void extended_leaves(struct builder *b)
{
    struct x86_cpu_model *m = b->m;
    const struct x86_cpuid_entry *l0 = find(m, 0, 0), *l1 = find(m, 1, 0);
    u32 r[4];

    u32 max_ext = m->amd ? MAX_AMD_EXT : MAX_INTEL_EXT;
    if (m->amd)
        add4(b, 0x80000000u, -1, max_ext, l0->ebx, l0->ecx, l0->edx);
    else
        add4(b, 0x80000000u, -1, max_ext, 0, 0, 0);

    host_leaf(b, 0x80000001u, 0, r);
    u32 c = r[2] & (m->amd ? E1C_HOST : E1C_INTEL);
    u32 d = E1D_SYSCALL | E1D_NX | E1D_GBPAGES | E1D_LM | (r[3] & E1D_RDTSCP);
    if (m->amd) {
        c |= E1C_TOPOEXT | (b->ncpus > 1 ? E1C_CMP_LEGACY : 0);
        d |= (l1->edx & E1D_REPEATED) | (r[3] & E1D_MMXEXT);
        add4(b, 0x80000001u, -1, l1->eax, r[1], c, d);
    } else {
        add4(b, 0x80000001u, -1, 0, 0, c, d);
    }
    for (u32 leaf = 0x80000002u; leaf <= 0x80000004u; leaf++)
        add_host(b, leaf);
    if (m->amd)
        add_host(b, 0x80000005u);
    add_host(b, 0x80000006u);
    add4(b, 0x80000007u, -1, 0, 0, 0, E7D_INVARIANT_TSC);

    host_leaf(b, 0x80000008u, 0, r);
    u32 phys = r[0] & 0xff;
    if (phys < X86_PHYS_BITS_MIN)
        phys = X86_PHYS_BITS_MIN;
    if (phys > X86_PHYS_BITS_MAX)
        phys = X86_PHYS_BITS_MAX;
    u32 a8 = phys | 48 << 8;
    if (!m->amd) {
        add4(b, 0x80000008u, -1, a8, 0, 0, 0);
        return;
    }
    add4(b, 0x80000008u, -1, a8,
         (r[1] & E8B_XSAVEERPTR) | E8B_ALWAYS | (b->every ? E8B_NEEDLESS : 0),
         (b->ncpus - 1) | id_bits(b->ncpus) << 12, 0);
    add_host(b, 0x80000019u); /* TLBs for 1-GByte pages */
    add_host(b, 0x8000001au); /* performance hints */
    caches(b, 0x8000001du);
    add4(b, 0x8000001eu, -1, 0, 0, 0, 0); /* ids are dynamic */
    host_leaf(b, 0x80000021u, 0, r);
    add4(b, 0x80000021u, -1, (r[0] & E21A_HOST) | E21A_ALWAYS, 0, E21C_ALWAYS, 0);
}

static void kvm_leaves(const struct builder *b, const struct x86_cpu_options *opt)
{
    /* "KVMKVMKVM" */
    add4(b, KVM_LEAF, -1, KVM_TIMING_LEAF, 0x4b4d564b, 0x564b4d56, 0x4d);
    add4(b, KVM_LEAF + 1, -1,
         KVM_CLOCKSOURCE | KVM_NOP_IO_DELAY | KVM_CLOCKSOURCE2 | KVM_CLOCKSOURCE_STABLE, 0, 0, 0);
    add4(b, KVM_TIMING_LEAF, -1, (u32)opt->tsc_khz, APIC_BUS_KHZ, 0, 0);
}

static u64 when(bool has, u64 bits)
{
    return has ? bits : 0;
}

void x86_cpu_model_derive(struct x86_cpu_model *m)
{
    const struct x86_cpuid_entry *l0 = find(m, 0, 0), *l1 = find(m, 1, 0), *l7 = find(m, 7, 0);
    const struct x86_cpuid_entry *ld = find(m, 0xd, 0), *e0 = find(m, 0x80000000u, 0);
    const struct x86_cpuid_entry *e1 = find(m, 0x80000001u, 0), *e8 = find(m, 0x80000008u, 0);
    const struct x86_cpuid_entry *e21 = find(m, 0x80000021u, 0);

    /* "AuthenticAMD", "HygonGenuine" */
    m->amd = (l0->ebx == 0x68747541 && l0->edx == 0x69746e65 && l0->ecx == 0x444d4163) ||
             (l0->ebx == 0x6f677948 && l0->edx == 0x6e65476e && l0->ecx == 0x656e6975);
    m->max_basic = l0->eax;
    m->max_ext = e0->eax;
    m->signature = l1->eax;
    m->phys_bits = (u8)e8->eax;
    m->lin_bits = (u8)(e8->eax >> 8);
    m->xcr0_valid = ld ? ld->eax : 0;
    m->xsave_size = ld ? ld->ecx : 0;
    m->gbpages = (e1->edx & E1D_GBPAGES) != 0;
    m->nx = (e1->edx & E1D_NX) != 0;
    m->pse36 = (l1->edx & BIT32(17)) != 0;
    m->pcid = (l1->ecx & F1C_PCID) != 0;
    m->smep = (l7->ebx & F7B_SMEP) != 0;
    m->smap = (l7->ebx & F7B_SMAP) != 0;
    m->umip = (l7->ecx & F7C_UMIP) != 0;
    m->invpcid = (l7->ebx & F7B_INVPCID) != 0;
    m->fsgsbase = (l7->ebx & F7B_FSGSBASE) != 0;
    m->rdtscp = (e1->edx & E1D_RDTSCP) != 0;
    m->rdpid = (l7->ecx & F7C_RDPID) != 0;
    m->tsc_aux = m->rdtscp || m->rdpid;
    m->la57 = false;
    /* What comes with a feature is reserved without it (SDM 3A 2.5). */
    m->cr4_valid = CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR |
                   CR4_OSXMMEXCPT;
    m->cr4_valid |= when(l1->edx & BIT32(1), CR4_VME | CR4_PVI);
    m->cr4_valid |= when(m->umip, CR4_UMIP) | when(m->smep, CR4_SMEP) | when(m->smap, CR4_SMAP);
    m->cr4_valid |= when(m->pcid, CR4_PCIDE) | when(m->fsgsbase, CR4_FSGSBASE);
    m->cr4_valid |= when(l1->ecx & F1C_XSAVE, CR4_OSXSAVE);
    m->efer_valid = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    m->efer_valid |= when(m->amd && e21 && (e21->eax & E21A_AUTOIBRS), EFER_AUTOIBRS);
    /* FXSAVE's MXCSR_MASK: DAZ everywhere since SSE2; MM (bit 17) comes with misaligned SSE. */
    m->mxcsr_mask = 0xffff | (e1->ecx & BIT32(7) ? BIT32(17) : 0);
}

void x86_cpu_model_build(struct x86_cpu_model *m, x86_cpuid_fn *host, u64 host_xcr0,
                         const struct x86_cpu_options *opt)
{
    struct builder b = {
        .m = m, .host = host, .ncpus = opt->ncpus ? opt->ncpus : 1, .every = opt->every};
    u32 r[4];

    memset(m, 0, sizeof(*m));
    host(0, 0, r);
    b.host_basic = r[0];
    /* "AuthenticAMD", "HygonGenuine" */
    m->amd = (r[1] == 0x68747541 && r[3] == 0x69746e65 && r[2] == 0x444d4163) ||
             (r[1] == 0x6f677948 && r[3] == 0x6e65476e && r[2] == 0x656e6975);
    u32 vendor[3] = {r[1], r[2], r[3]};
    host(0x80000000u, 0, r);
    b.host_ext = r[0] & 0x80000000u ? r[0] : 0;

    m->tsc_khz = (u32)opt->tsc_khz;
    add4(&b, 0, -1, m->amd ? MAX_AMD_BASIC : MAX_INTEL_BASIC, vendor[0], vendor[1], vendor[2]);
    features(&b, host_xcr0);
    basic_leaves(&b, opt);
    extended_leaves(&b);
    if (!opt->hide_kvm)
        kvm_leaves(&b, opt);
    x86_cpu_model_settle(m);
}

/* Registers of leaves that hold features: EAX, EBX, ECX, EDX are 0..3. */
static const struct {
    u32 leaf, subleaf;
    u8 reg;
    u32 own;   /* ours, whatever the CPU has */
    u32 taken; /* the CPU's, whatever the model says: mitigations the guest may need, see E8B_ALWAYS
                */
} on_cpu[] = {
    {1, 0, 2, F1C_X2APIC | F1C_HYPERVISOR, 0},
    {1, 0, 3, F1D_APIC | F1D_HTT, 0},
    {7, 0, 1, F7B_TSC_ADJUST, 0},
    {7, 0, 2, 0, 0},
    /* MD_CLEAR, IBRS and IBPB, STIBP, L1D_FLUSH, ARCH_CAPABILITIES, SSBD */
    {7, 0, 3, 0, BIT32(10) | 0xfu << 26 | BIT32(31)},
    {7, 1, 0, 0, 0},
    {0xd, 0, 0, 0, 0},
    {0xd, 1, 0, 0, 0},
    {0x80000001u, 0, 2, E1C_CMP_LEGACY | E1C_TOPOEXT, 0},
    {0x80000001u, 0, 3, F1D_APIC, 0},
    {0x80000008u, 0, 1, 0, 0xfffff000u},
    {0x80000021u, 0, 0, 0, 0},
    {0x80000021u, 0, 2, 0, 0},
};

void x86_cpu_model_restrict(struct x86_cpu_model *m, x86_cpuid_kept_fn *kept, void *opaque)
{
    for (unsigned i = 0; i < m->n; i++) {
        struct x86_cpuid_entry *e = &m->entry[i];
        u32 *const reg[4] = {&e->eax, &e->ebx, &e->ecx, &e->edx};

        for (unsigned k = 0; k < ARRAY_SIZE(on_cpu); k++) {
            u32 r[4], have;

            if (on_cpu[k].leaf != e->leaf || on_cpu[k].subleaf != e->subleaf)
                continue;
            kept(opaque, e->leaf, e->subleaf, r);
            have = r[on_cpu[k].reg];
            *reg[on_cpu[k].reg] =
                (*reg[on_cpu[k].reg] & (have | on_cpu[k].own) & ~on_cpu[k].taken) |
                (have & on_cpu[k].taken);
        }
    }
    x86_cpu_model_settle(m);
}

/* Bytes of the XSAVE area for the components in mask (SDM 1 13.4.2, 13.4.3). */
static u32 xsave_bytes(const struct x86_cpu_model *m, u64 mask, bool compacted)
{
    u32 size = 576;
    for (u32 i = 2; i < 63; i++) {
        const struct x86_cpuid_entry *e = mask & BIT64(i) ? find(m, 0xd, i) : NULL;
        if (!e)
            continue;
        if (!compacted) {
            if (e->eax + e->ebx > size)
                size = e->eax + e->ebx;
            continue;
        }
        if (e->ecx & BIT32(1))
            size = (size + 63) & ~63u;
        size += e->eax;
    }
    return size;
}

/* Leaf and subleaf as found in the tables, before the dynamic parts. */
static void lookup(const struct x86_cpu_model *m, u32 leaf, u32 subleaf, u32 out[4])
{
    const struct x86_cpuid_entry *e = find(m, leaf, subleaf);
    memset(out, 0, 4 * sizeof(u32));
    if (e) {
        out[0] = e->eax;
        out[1] = e->ebx;
        out[2] = e->ecx;
        out[3] = e->edx;
    }
}

void x86_cpuid(const struct x86_cpu_model *m, const struct x86_vcpu_state *s, u32 apic_id,
               bool apic_on, u32 leaf, u32 subleaf, u32 out[4])
{
    /*
     * Beyond the last leaf Intel CPUs answer as for the last basic leaf, AMD's with zeroes. The
     * hypervisor range is its own when shown.
     */
    bool known = leaf <= m->max_basic || (leaf >= 0x80000000u && leaf <= m->max_ext) ||
                 (leaf >= KVM_LEAF && leaf <= KVM_LEAF + 0xff && find(m, KVM_LEAF, 0));
    if (!known && !m->amd)
        leaf = m->max_basic;
    lookup(m, leaf, subleaf, out);

    switch (leaf) {
    case 1:
        out[1] |= apic_id << 24;
        if (apic_on)
            out[3] |= F1D_APIC;
        if (s->cr4 & CR4_OSXSAVE)
            out[2] |= F1C_OSXSAVE;
        break;
    case 0xb:
    case 0x1f:
        if (!find(m, leaf, 0))
            break; /* 1FH is Intel's */
        out[2] = (out[2] & 0xff00) | (subleaf & 0xff);
        out[3] = apic_id;
        break;
    case 0xd:
        if (!m->xcr0_valid)
            break;
        if (subleaf == 0)
            out[1] = xsave_bytes(m, s->xcr0, false);
        else if (subleaf == 1 && (out[0] & BIT32(1)))
            out[1] = xsave_bytes(m, s->xcr0, true);
        break;
    case 0x80000001u:
        if (m->amd && apic_on)
            out[3] |= F1D_APIC;
        if (!m->amd && !x86_64bit(s)) /* Intel shows SYSCALL in 64-bit mode only */
            out[3] &= ~E1D_SYSCALL;
        break;
    case 0x8000001eu:
        if (m->amd) {
            out[0] = apic_id;
            out[1] = apic_id & 0xff;
        }
        break;
    default:
        break;
    }
}
