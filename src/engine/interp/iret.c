/* SPDX-License-Identifier: Apache-2.0 */
/* IRET in all modes (SDM 2A IRET). */
#include "engine/interp/system_priv.h"

#define FLAGS_ANY (RFLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT)
#define FLAGS_WIDE (RFLAGS_RF | RFLAGS_AC | RFLAGS_ID)

/* What IRET may change outside real and virtual-8086 mode. */
static u64 flags_mask(const struct interp *in, unsigned size)
{
    const struct x86_vcpu_state *s = in->s;
    u64 mask = FLAGS_ANY;
    if (size > 2)
        mask |= FLAGS_WIDE;
    if (s->cpl <= iopl(s))
        mask |= RFLAGS_IF;
    if (s->cpl == 0)
        mask |= RFLAGS_IOPL | (size > 2 ? RFLAGS_VIF | RFLAGS_VIP : 0);
    return mask;
}

static void real_target(struct interp *in, u64 off)
{
    if (off > in->s->seg[X86_CS].limit)
        interp_raise_err(in, X86_GP, 0);
}

static void iret_real(struct interp *in, unsigned size)
{
    struct istack st;
    istack_current(in, &st);
    u64 off = istack_pop(in, &st, size);
    u16 sel = (u16)istack_pop(in, &st, size);
    u64 flags = istack_pop(in, &st, size);
    real_target(in, off);
    u64 mask = FLAGS_ANY | RFLAGS_IF | RFLAGS_IOPL | (size > 2 ? FLAGS_WIDE : 0);
    istack_commit(in, &st);
    iseg_set_real(in, X86_CS, sel);
    in->next_rip = off;
    iflags_set(in, flags, mask);
}

/* In virtual-8086 mode; with VME and IOPL < 3 the 16-bit form works on VIF (SDM 3B 20.3). */
static void iret_v86(struct interp *in, unsigned size)
{
    struct x86_vcpu_state *s = in->s;
    bool vme = iopl(s) < 3;
    struct istack st;

    if (vme && !((s->cr4 & CR4_VME) && size == 2))
        interp_raise_err(in, X86_GP, 0);
    istack_current(in, &st);
    u64 off = istack_pop(in, &st, size);
    u16 sel = (u16)istack_pop(in, &st, size);
    u64 flags = istack_pop(in, &st, size);
    real_target(in, off);
    u64 mask = FLAGS_ANY | (size > 2 ? FLAGS_WIDE : 0);
    if (vme) {
        if (((flags & RFLAGS_IF) && (s->rflags & RFLAGS_VIP)) || (flags & RFLAGS_TF))
            interp_raise_err(in, X86_GP, 0);
        mask |= RFLAGS_VIF;
        flags = (flags & ~RFLAGS_VIF) | (flags & RFLAGS_IF ? RFLAGS_VIF : 0);
    } else {
        mask |= RFLAGS_IF;
    }
    istack_commit(in, &st);
    iseg_set_real(in, X86_CS, sel);
    in->next_rip = off;
    iflags_set(in, flags, mask);
}

/* NT is set: back along the link in the TSS. */
static void iret_task(struct interp *in)
{
    struct x86_vcpu_state *s = in->s;
    struct idesc d;
    if (s->tr.limit < 1)
        interp_raise_err(in, X86_TS, sel_error(s->tr.sel));
    u16 link = (u16)im_lin_read(in, (u32)s->tr.base, 2, im_system_access(in));
    if (sel_null(link) || (link & 4))
        interp_raise_err(in, X86_TS, sel_error(link));
    idesc_need(in, link, X86_TS, &d);
    int type = attr_system_type(d.attr);
    if (type != DESC_TSS16_BUSY && type != DESC_TSS32_BUSY)
        interp_raise_err(in, X86_TS, sel_error(link));
    if (!(d.attr & X86_SEG_P))
        interp_raise_err(in, X86_NP, sel_error(link));
    itask_switch(in, link, ITASK_IRET, false, 0);
}

/* From ring 0 of protected mode to virtual-8086 mode. */
static void iret_to_v86(struct interp *in, struct istack *st, u64 off, u16 cs, u64 flags)
{
    struct x86_vcpu_state *s = in->s;
    static const u8 order[] = {X86_ES, X86_DS, X86_FS, X86_GS};
    u16 sel[4];
    u64 sp = istack_pop(in, st, 4);
    u16 ss = (u16)istack_pop(in, st, 4);
    for (unsigned i = 0; i < 4; i++)
        sel[i] = (u16)istack_pop(in, st, 4);
    if (off > 0xffff)
        interp_raise_err(in, X86_GP, 0);
    iflags_set(in, flags,
               FLAGS_ANY | FLAGS_WIDE | RFLAGS_IF | RFLAGS_IOPL | RFLAGS_VM | RFLAGS_VIF |
                   RFLAGS_VIP);
    iseg_set_real(in, X86_CS, cs);
    iseg_set_real(in, X86_SS, ss);
    for (unsigned i = 0; i < 4; i++)
        iseg_set_real(in, order[i], sel[i]);
    s->gpr[X86_RSP] = (u32)sp;
    in->next_rip = off;
    iseg_set_cpl(in, 3);
}

static void iret_protected(struct interp *in, unsigned size)
{
    struct x86_vcpu_state *s = in->s;
    struct istack st;
    struct idesc d, ssd;
    struct x86_seg cs, ss;
    bool lma = x86_long_mode(s), null = true;

    istack_current(in, &st);
    u64 off = istack_pop(in, &st, size);
    u16 sel = (u16)istack_pop(in, &st, size);
    u64 flags = istack_pop(in, &st, size);
    unsigned rpl = sel & 3;

    if ((flags & RFLAGS_VM) && size == 4 && s->cpl == 0 && !lma) {
        iret_to_v86(in, &st, off, sel, flags);
        return;
    }
    ifar_return_code(in, sel, &d);
    idesc_to_seg(&d, sel, &cs);
    cs.attr |= X86_SEG_ACCESSED;
    bool to64 = ifar_is_64bit(in, cs.attr);
    u64 mask = flags_mask(in, size);

    if (rpl == s->cpl && !x86_64bit(s)) {
        ifar_check_target(in, &cs, off);
        idesc_mark_accessed(in, &d);
        istack_commit(in, &st);
    } else {
        /* To an outer level; from 64-bit code SS:RSP is always popped. */
        u64 sp = istack_pop(in, &st, size);
        u16 ss_sel = (u16)istack_pop(in, &st, size);
        ifar_return_stack(in, ss_sel, rpl, to64, &ssd, &ss, &null);
        ifar_check_target(in, &cs, off);
        idesc_mark_accessed(in, &d);
        if (!null)
            idesc_mark_accessed(in, &ssd);
        istack_new(in, &st, &ss, sp, rpl, to64);
        istack_commit(in, &st); /* a 16-bit stack leaves the rest of RSP as it is */
        s->seg[X86_SS] = ss;
    }
    s->seg[X86_CS] = cs;
    in->next_rip = off;
    iflags_set(in, flags, mask);
    if (rpl != s->cpl) {
        iseg_set_cpl(in, (u8)rpl);
        iseg_drop_inner(in);
    }
}

enum interp_result ifar_iret(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    unsigned size = insn->opsize;

    s->nmi_blocked = 0; /* even when IRET faults (SDM 3A 6.7.1) */
    if (!(s->cr0 & CR0_PE)) {
        iret_real(in, size);
    } else if (in_v86(s)) {
        iret_v86(in, size);
    } else if (s->rflags & RFLAGS_NT) {
        if (x86_long_mode(s))
            interp_raise_err(in, X86_GP, 0);
        iret_task(in);
    } else {
        iret_protected(in, size);
    }
    return INTERP_OK;
}
