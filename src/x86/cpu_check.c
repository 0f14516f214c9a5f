/* SPDX-License-Identifier: Apache-2.0 */
/* Hostile models and states. */
#include <string.h>

#include "x86/cpu_check.h"
#include "x86/cpu_features.h"
#include "x86/msr.h"

/* --- models --- */

/* The leaves that there are; subleaves below `subleaves`, 0: the leaf has none. */
static const struct {
    u32 leaf, subleaves;
} leaves[] = {
    {0, 0},           {1, 0},           {2, 0},           {4, 8},           {6, 0},
    {7, 2},           {0xb, 2},         {0xd, 32},        {0x15, 0},        {0x16, 0},
    {0x1f, 2},        {0x40000000u, 0}, {0x40000001u, 0}, {0x40000010u, 0}, {0x80000000u, 0},
    {0x80000001u, 0}, {0x80000002u, 0}, {0x80000003u, 0}, {0x80000004u, 0}, {0x80000005u, 0},
    {0x80000006u, 0}, {0x80000007u, 0}, {0x80000008u, 0}, {0x80000019u, 0}, {0x8000001au, 0},
    {0x8000001du, 8}, {0x8000001eu, 0}, {0x80000021u, 0},
};

static const struct x86_cpuid_entry *find(const struct x86_cpu_model *m, u32 leaf, u32 subleaf)
{
    for (unsigned i = 0; i < m->n; i++)
        if (m->entry[i].leaf == leaf && m->entry[i].subleaf == subleaf)
            return &m->entry[i];
    return NULL;
}

static bool known_leaf(const struct x86_cpuid_entry *e)
{
    for (unsigned i = 0; i < ARRAY_SIZE(leaves); i++)
        if (leaves[i].leaf == e->leaf)
            return leaves[i].subleaves ? e->has_subleaf && e->subleaf < leaves[i].subleaves
                                       : !e->has_subleaf && !e->subleaf;
    return false;
}

static bool entries_valid(const struct x86_cpu_model *m)
{
    if (m->n > X86_CPUID_MAX)
        return false;
    for (unsigned i = 0; i < m->n; i++) {
        if (!known_leaf(&m->entry[i]))
            return false;
        for (unsigned k = 0; k < i; k++)
            if (m->entry[k].leaf == m->entry[i].leaf && m->entry[k].subleaf == m->entry[i].subleaf)
                return false;
    }
    return find(m, 0, 0) && find(m, 1, 0) && find(m, 7, 0) && find(m, 0x80000000u, 0) &&
           find(m, 0x80000001u, 0) && find(m, 0x80000008u, 0);
}

/* Leaf 0DH: components of their size within an image of ours (SDM 1 13.5). */
static bool xsave_valid(const struct x86_cpu_model *m)
{
    static const struct {
        u32 component, size;
    } known[] = {{2, 256}, {5, 64}, {6, 512}, {7, 1024}};
    const struct x86_cpuid_entry *e = find(m, 0xd, 0);
    u32 rest = e ? e->eax & ~3u : 0;

    for (unsigned i = 0; i < ARRAY_SIZE(known); i++) {
        const struct x86_cpuid_entry *c = find(m, 0xd, known[i].component);
        u32 bit = BIT32(known[i].component);

        if (!(rest & bit))
            continue;
        if (!c || c->eax != known[i].size || c->ebx < 576 || c->ebx % 64 ||
            c->ebx > X86_XSAVE_SIZE - c->eax || (c->ecx & ~BIT32(1)) || c->edx)
            return false;
        /* No two in one place. */
        for (unsigned k = 0; k < i; k++) {
            const struct x86_cpuid_entry *d = find(m, 0xd, known[k].component);

            if (d && (e->eax & BIT32(known[k].component)) && c->ebx < d->ebx + d->eax &&
                d->ebx < c->ebx + c->eax)
                return false;
        }
        rest &= ~bit;
    }
    return !rest && (!e || (!e->ebx && !e->edx));
}

bool x86_cpu_model_valid(const struct x86_cpu_model *m)
{
    const struct x86_cpuid_entry *e;
    struct x86_cpu_model settled;
    u32 phys;

    if (!entries_valid(m) || !xsave_valid(m))
        return false;
    e = find(m, 0, 0);
    if (e->eax < 0xd || e->eax > 0x1f)
        return false;
    e = find(m, 0x80000000u, 0);
    if (e->eax < 0x80000008u || e->eax > 0x80000021u)
        return false;
    e = find(m, 1, 0);
    if (e->ebx >> 24 || (e->ecx & BIT32(27)) || (e->edx & BIT32(9))) /* they are dynamic */
        return false;
    e = find(m, 0x80000008u, 0);
    phys = e->eax & 0xff;
    if (phys < X86_PHYS_BITS_MIN || phys > X86_PHYS_BITS_MAX || e->eax >> 8 != 48)
        return false;
    /* What a 64-bit PC cannot be without is there, and nothing depends on what is not. */
    settled = *m;
    x86_cpu_model_derive(&settled);
    x86_cpu_model_require(&settled);
    x86_cpu_model_settle(&settled);
    if (settled.n != m->n || settled.arch_caps != m->arch_caps)
        return false;
    for (unsigned i = 0; i < m->n; i++) {
        const struct x86_cpuid_entry *a = &settled.entry[i], *b = &m->entry[i];

        if (a->eax != b->eax || a->ebx != b->ebx || a->ecx != b->ecx || a->edx != b->edx)
            return false;
    }
    return true;
}

/* --- states --- */

#define CR0_KNOWN                                                                                  \
    (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD |     \
     CR0_PG)
#define RFLAGS_KNOWN                                                                               \
    (RFLAGS_ARITH | RFLAGS_FIXED | RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | RFLAGS_IOPL | RFLAGS_NT |   \
     RFLAGS_RF | RFLAGS_VM | RFLAGS_AC | RFLAGS_VIF | RFLAGS_VIP | RFLAGS_ID)
#define SEG_KNOWN 0xf0ffu
#define XSAVE_MXCSR 24
#define XSAVE_HEADER 512
#define XSAVE_HEADER_SIZE 64

static bool control_valid(const struct x86_vcpu_state *s, const struct x86_cpu_model *m)
{
    bool lma = (s->efer & EFER_LMA) != 0;

    if ((s->cr0 & ~CR0_KNOWN) || !(s->cr0 & CR0_ET) || ((s->cr0 & CR0_PG) && !(s->cr0 & CR0_PE)) ||
        ((s->cr0 & CR0_NW) && !(s->cr0 & CR0_CD)))
        return false;
    if ((s->cr4 & ~m->cr4_valid) || ((s->cr4 & CR4_PCIDE) && !lma))
        return false;
    if ((s->efer & ~(m->efer_valid | EFER_LMA)) ||
        lma != ((s->efer & EFER_LME) && (s->cr0 & CR0_PG)) || (lma && !(s->cr4 & CR4_PAE)))
        return false;
    return !(s->cr3 & MASK64(63, m->phys_bits));
}

/* SDM 3A 4.4.1: the reserved bits of PDPTEs. */
static bool pdptes_valid(const struct x86_vcpu_state *s, const struct x86_cpu_model *m)
{
    u64 reserved = MASK64(63, m->phys_bits) | MASK64(8, 5) | MASK64(2, 1);

    if (!(s->cr0 & CR0_PG) || !(s->cr4 & CR4_PAE) || (s->efer & EFER_LMA))
        return true;
    for (unsigned i = 0; i < ARRAY_SIZE(s->pdpte); i++)
        if ((s->pdpte[i] & 1) && (s->pdpte[i] & reserved))
            return false;
    return true;
}

static bool segments_valid(const struct x86_vcpu_state *s, const struct x86_cpu_model *m)
{
    for (unsigned i = 0; i < X86_NSEG; i++) {
        const struct x86_seg *g = &s->seg[i];

        if (g->attr & ~SEG_KNOWN)
            return false;
        if (i == X86_FS || i == X86_GS ? !x86_canonical(g->base, m->lin_bits) : g->base >> 32 != 0)
            return false;
    }
    if ((s->ldtr.attr & ~SEG_KNOWN) || (s->tr.attr & ~SEG_KNOWN) ||
        !x86_canonical(s->ldtr.base, m->lin_bits) || !x86_canonical(s->tr.base, m->lin_bits) ||
        !x86_canonical(s->gdtr.base, m->lin_bits) || !x86_canonical(s->idtr.base, m->lin_bits) ||
        s->gdtr.limit > 0xffff || s->idtr.limit > 0xffff)
        return false;
    return !(s->efer & EFER_LMA) || !(s->seg[X86_CS].attr & X86_SEG_L) ||
           !(s->seg[X86_CS].attr & X86_SEG_DB);
}

static bool flow_valid(const struct x86_vcpu_state *s)
{
    bool v86 = (s->rflags & RFLAGS_VM) != 0;

    if ((s->rflags & ~RFLAGS_KNOWN) || !(s->rflags & RFLAGS_FIXED))
        return false;
    if (v86 && (!(s->cr0 & CR0_PE) || (s->efer & EFER_LMA)))
        return false;
    if (s->cpl > 3 || (!(s->cr0 & CR0_PE) && s->cpl) || (v86 && s->cpl != 3))
        return false;
    return x86_64bit(s) || !(s->rip >> 32);
}

/* Vectors with an error code (SDM 3A table 6-1). */
static bool has_error_code(u8 vector)
{
    return vector == X86_DF || (vector >= X86_TS && vector <= X86_PF) || vector == X86_AC_FAULT;
}

static bool events_valid(const struct x86_vcpu_state *s)
{
    if (s->activity > X86_SHUTDOWN || s->int_shadow > 2 || s->nmi_blocked > 1 ||
        s->nmi_pending > 2 - s->nmi_blocked || s->db_pending > 1)
        return false;
    switch (s->ev_kind) {
    case X86_EV_NONE:
        return true;
    case X86_EV_EXTERNAL:
        return !s->ev_has_error;
    case X86_EV_NMI:
        return s->ev_vector == X86_NMI && !s->ev_has_error;
    case X86_EV_EXCEPTION:
        return s->ev_vector < 32 && s->ev_vector != X86_NMI && s->ev_vector != X86_BP &&
               s->ev_vector != X86_OF &&
               (!s->ev_has_error || (s->ev_has_error == 1 && has_error_code(s->ev_vector)));
    default:
        return false;
    }
}

static bool xcr0_valid(const struct x86_vcpu_state *s, const struct x86_cpu_model *m)
{
    u64 v = s->xcr0;

    if (!m->xcr0_valid)
        return v == 1;
    if ((v & ~m->xcr0_valid) || !(v & 1) || ((v & X86_XCR0_AVX) && !(v & 2)))
        return false;
    return !(v & X86_XCR0_AVX512) ||
           ((v & X86_XCR0_AVX512) == X86_XCR0_AVX512 && (v & X86_XCR0_AVX));
}

/* What XRSTOR of the standard form raises #GP for (SDM 1 13.8). */
static bool image_valid(const struct x86_vcpu_state *s, const struct x86_cpu_model *m)
{
    u32 mxcsr;
    u64 bv;

    memcpy(&mxcsr, s->xsave + XSAVE_MXCSR, sizeof(mxcsr));
    memcpy(&bv, s->xsave + XSAVE_HEADER, sizeof(bv));
    if ((mxcsr & ~m->mxcsr_mask) || (bv & ~(m->xcr0_valid | 3)))
        return false;
    for (unsigned i = 8; i < XSAVE_HEADER_SIZE; i++)
        if (s->xsave[XSAVE_HEADER + i])
            return false;
    return true;
}

static bool msrs_valid(const struct x86_vcpu_state *s, const struct x86_cpu_model *m)
{
    u64 rsvd = MASK64(63, m->phys_bits);

    if (!x86_canonical(s->lstar, m->lin_bits) || !x86_canonical(s->cstar, m->lin_bits) ||
        !x86_canonical(s->kernel_gs_base, m->lin_bits) ||
        !x86_canonical(s->sysenter_esp, m->lin_bits) ||
        !x86_canonical(s->sysenter_eip, m->lin_bits))
        return false;
    if (s->sfmask >> 32 || s->tsc_aux >> 32 || s->sysenter_cs >> 32 || !x86_pat_valid(s->pat))
        return false;
    if (s->xss || (s->debugctl & ~MASK64(1, 0)) || (s->spec_ctrl & ~MASK64(10, 0)))
        return false;
    if (s->mtrr_def_type & ~(MASK64(7, 0) | MTRR_DEF_TYPE_FE | MTRR_DEF_TYPE_E))
        return false;
    for (unsigned i = 0; i < X86_MTRR_VAR; i++)
        if ((s->mtrr_base[i] & (rsvd | MASK64(11, 8))) ||
            (s->mtrr_mask[i] & (rsvd | MASK64(10, 0))))
            return false;
    return s->mcg_status <= 7;
}

bool x86_vcpu_state_valid(const struct x86_vcpu_state *s, const struct x86_cpu_model *m)
{
    return control_valid(s, m) && pdptes_valid(s, m) && segments_valid(s, m) && flow_valid(s) &&
           events_valid(s) && xcr0_valid(s, m) && image_valid(s, m) && msrs_valid(s, m) &&
           (s->dr6 & ~(u64)DR6_EVENTS) == DR6_INIT && !(s->dr7 & ~(u64)DR7_KNOWN) &&
           (s->dr7 & DR7_INIT);
}
