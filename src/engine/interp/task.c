/* SPDX-License-Identifier: Apache-2.0 */
/* Hardware task switching with 16- and 32-bit TSSs (SDM 3A chapter 7). Not in long mode. */
#include <string.h>

#include "engine/interp/system_priv.h"

/* Task-state segments (SDM 3A figures 7-2 and 7-10): where the saved part begins and ends. */
#define TSS32_SIZE 104
#define TSS32_CR3 0x1c
#define TSS32_EIP 0x20
#define TSS32_ES 0x48
#define TSS32_LDT 0x60
#define TSS32_TRAP 0x64
#define TSS16_SIZE 44
#define TSS16_IP 0x0e
#define TSS16_ES 0x22
#define TSS16_LDT 0x2a

/* The contents of a TSS in one form. */
struct tss {
    u32 cr3, eip, eflags, gpr[8];
    u16 seg[X86_NSEG], ldt;
    bool wide, trap;
};

static u32 get(const u8 *p, unsigned size)
{
    u32 v = 0;
    memcpy(&v, p, size);
    return v;
}

static bool is_wide(u16 attr)
{
    int type = attr_system_type(attr);
    return type == DESC_TSS32 || type == DESC_TSS32_BUSY;
}

static void read_tss(struct interp *in, u32 base, bool wide, struct tss *t)
{
    u8 b[TSS32_SIZE];
    im_lin_read_buf(in, base, b, wide ? 64 : TSS16_SIZE, im_system_access(in));
    if (wide)
        im_lin_read_buf(in, base + 64, b + 64, TSS32_SIZE - 64, im_system_access(in));
    memset(t, 0, sizeof(*t));
    t->wide = wide;
    if (wide) {
        t->cr3 = get(b + TSS32_CR3, 4);
        t->eip = get(b + TSS32_EIP, 4);
        t->eflags = get(b + TSS32_EIP + 4, 4);
        for (unsigned i = 0; i < 8; i++)
            t->gpr[i] = get(b + TSS32_EIP + 8 + 4 * i, 4);
        for (unsigned i = 0; i < X86_NSEG; i++)
            t->seg[i] = (u16)get(b + TSS32_ES + 4 * i, 2);
        t->ldt = (u16)get(b + TSS32_LDT, 2);
        t->trap = b[TSS32_TRAP] & 1;
        return;
    }
    t->eip = get(b + TSS16_IP, 2);
    t->eflags = get(b + TSS16_IP + 2, 2);
    for (unsigned i = 0; i < 8; i++) /* upper halves are not saved and load as ones */
        t->gpr[i] = 0xffff0000u | get(b + TSS16_IP + 4 + 2 * i, 2);
    for (unsigned i = 0; i < 4; i++)
        t->seg[i] = (u16)get(b + TSS16_ES + 2 * i, 2);
    t->ldt = (u16)get(b + TSS16_LDT, 2);
}

/* Saves the outgoing task: EIP up to GS, or IP up to DS. */
static void write_tss(struct interp *in, u32 base, bool wide, u32 eflags)
{
    const struct x86_vcpu_state *s = in->s;
    u32 eip = (u32)in->next_rip;
    u8 b[64];
    unsigned n = 0, gsize = wide ? 4 : 2, segs = wide ? X86_NSEG : 4;

    memset(b, 0, sizeof(b));
    memcpy(b, &eip, gsize);
    memcpy(b + gsize, &eflags, gsize);
    n = 2 * gsize;
    for (unsigned i = 0; i < 8; i++, n += gsize)
        memcpy(b + n, &s->gpr[i], gsize);
    for (unsigned i = 0; i < segs; i++, n += gsize)
        memcpy(b + n, &s->seg[i].sel, 2);
    im_lin_write_buf(in, base + (wide ? TSS32_EIP : TSS16_IP), b, n, im_system_access(in));
}

/* --- the incoming task's segments: faults belong to it */

static void load_code(struct interp *in, u16 sel)
{
    struct x86_vcpu_state *s = in->s;
    struct idesc d;
    unsigned rpl = sel & 3;
    if (sel_null(sel))
        interp_raise_err(in, X86_TS, 0);
    idesc_need(in, sel, X86_TS, &d);
    unsigned dpl = attr_dpl(d.attr);
    if (!attr_is_code(d.attr) || (attr_is_conforming(d.attr) ? dpl > rpl : dpl != rpl))
        interp_raise_err(in, X86_TS, sel_error(sel));
    if (!(d.attr & X86_SEG_P))
        interp_raise_err(in, X86_NP, sel_error(sel));
    idesc_mark_accessed(in, &d);
    idesc_to_seg(&d, sel, &s->seg[X86_CS]);
}

static void load_data(struct interp *in, unsigned seg, u16 sel)
{
    struct x86_vcpu_state *s = in->s;
    struct idesc d;
    if (sel_null(sel))
        return;
    idesc_need(in, sel, X86_TS, &d);
    bool code = attr_is_code(d.attr);
    unsigned dpl = attr_dpl(d.attr);
    if (!(d.attr & X86_SEG_S) || (code && !(d.attr & X86_SEG_RW)))
        interp_raise_err(in, X86_TS, sel_error(sel));
    if (!(code && attr_is_conforming(d.attr)) && (dpl < s->cpl || dpl < (sel & 3u)))
        interp_raise_err(in, X86_TS, sel_error(sel));
    if (!(d.attr & X86_SEG_P))
        interp_raise_err(in, X86_NP, sel_error(sel));
    idesc_mark_accessed(in, &d);
    idesc_to_seg(&d, sel, &s->seg[seg]);
}

static void load_segments(struct interp *in, const struct tss *t)
{
    struct x86_vcpu_state *s = in->s;
    static const u8 data[] = {X86_DS, X86_ES, X86_FS, X86_GS};
    struct idesc d;

    iseg_load_ldt(in, t->ldt, X86_TS, X86_TS);
    if (in_v86(s))
        return;
    load_code(in, t->seg[X86_CS]);
    iseg_need_stack(in, t->seg[X86_SS], s->cpl, X86_TS, &d);
    idesc_mark_accessed(in, &d);
    idesc_to_seg(&d, t->seg[X86_SS], &s->seg[X86_SS]);
    for (unsigned i = 0; i < ARRAY_SIZE(data); i++)
        load_data(in, data[i], t->seg[data[i]]);
}

/* Everything of the new task that is loaded before its descriptors are looked at. */
static void load_registers(struct interp *in, const struct tss *t, bool nested)
{
    struct x86_vcpu_state *s = in->s;
    u64 all = RFLAGS_ARITH | RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | RFLAGS_IOPL | RFLAGS_NT;
    if (t->wide)
        all |= RFLAGS_RF | RFLAGS_VM | RFLAGS_AC | RFLAGS_VIF | RFLAGS_VIP | RFLAGS_ID;
    s->rflags = (t->eflags & all) | (nested ? RFLAGS_NT : 0) | RFLAGS_FIXED;
    for (unsigned i = 0; i < 8; i++)
        s->gpr[i] = t->gpr[i];
    s->rip = in->next_rip = t->eip;
    for (unsigned i = 0; i < X86_NSEG; i++) {
        if (in_v86(s))
            iseg_set_real(in, i, t->seg[i]);
        else
            iseg_set_null(&s->seg[i], t->seg[i]);
    }
    iseg_set_null(&s->ldtr, t->ldt);
    iseg_set_cpl(in, in_v86(s) ? 3 : t->seg[X86_CS] & 3);
}

void itask_switch(struct interp *in, u16 sel, enum itask_cause cause, bool has_error, u32 error)
{
    struct x86_vcpu_state *s = in->s;
    struct idesc d;
    struct x86_seg tr;
    struct tss t;
    u64 pdpte[4];

    idesc_need(in, sel, X86_TS, &d);
    idesc_to_seg(&d, sel, &tr);
    bool wide = is_wide(tr.attr), old_wide = is_wide(s->tr.attr);
    if (tr.limit < (wide ? TSS32_SIZE - 1u : TSS16_SIZE - 1u))
        interp_raise_err(in, X86_TS, sel_error(sel));
    if (s->tr.limit < (old_wide ? TSS32_LDT - 1u : TSS16_LDT - 1u))
        interp_raise_err(in, X86_TS, sel_error(s->tr.sel));

    u32 old_flags = (u32)s->rflags;
    if (cause == ITASK_IRET)
        old_flags &= ~(u32)RFLAGS_NT;
    write_tss(in, (u32)s->tr.base, old_wide, old_flags);
    if (cause == ITASK_CALL)
        im_lin_write(in, (u32)tr.base, 2, s->tr.sel, im_system_access(in));
    read_tss(in, (u32)tr.base, wide, &t);

    u64 cr3 = s->cr3;
    bool new_cr3 = (s->cr0 & CR0_PG) && wide;
    if (new_cr3) {
        cr3 = t.cr3;
        if (x86_pae_paging(s->cr0, s->cr4, s->efer))
            iload_pdptes(in, cr3, pdpte);
    }
    if (cause != ITASK_CALL)
        idesc_set_busy(in, s->tr.sel, false);
    if (cause != ITASK_IRET)
        idesc_set_busy(in, sel, true);

    /* From here on the new task runs. */
    tr.attr |= 2; /* busy */
    s->tr = tr;
    s->cr0 |= CR0_TS;
    if (new_cr3) {
        u64 old = s->cr3;
        s->cr3 = cr3;
        if (x86_pae_paging(s->cr0, s->cr4, s->efer))
            memcpy(s->pdpte, pdpte, sizeof(pdpte));
        in->ops->cr3_written(in->opaque, old, false);
    }
    s->dr7 &= ~(u64)0x55; /* local breakpoints (SDM 3B 17.2.4) */
    load_registers(in, &t, cause == ITASK_CALL);
    load_segments(in, &t);

    if (has_error) {
        struct istack st;
        istack_current(in, &st);
        istack_push(in, &st, wide ? 4 : 2, error);
        istack_commit(in, &st);
    }
    if (t.eip > s->seg[X86_CS].limit)
        interp_raise_err(in, X86_GP, 0);
    if (t.trap) {
        s->dr6 |= DR6_BT;
        s->db_pending = 1;
    }
}
