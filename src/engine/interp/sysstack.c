/* SPDX-License-Identifier: Apache-2.0 */
/* Stacks of far transfers and events, and the stack pointers in the TSS (SDM 3A 5.8.5, 7.2, 7.7).
 */
#include "engine/interp/system_priv.h"

static unsigned stack_access(const struct interp *in, unsigned cpl)
{
    const struct x86_vcpu_state *s = in->s;
    if (cpl == 3)
        return X86_ACC_USER;
    return (s->cr4 & CR4_SMAP) && !(s->rflags & RFLAGS_AC) ? X86_ACC_SMAP : 0;
}

void istack_new(const struct interp *in, struct istack *st, const struct x86_seg *ss, u64 sp,
                unsigned cpl, bool flat64)
{
    st->ss = *ss;
    st->flat64 = flat64;
    st->down = !(ss->attr & X86_SEG_CODE) && (ss->attr & X86_SEG_DC);
    if (flat64)
        st->mask = ~(u64)0;
    else
        st->mask = ss->attr & X86_SEG_DB ? 0xffffffff : 0xffff;
    st->sp = sp & st->mask;
    st->access = stack_access(in, cpl);
    st->err = (u16)sel_error(ss->sel);
}

void istack_current(const struct interp *in, struct istack *st)
{
    const struct x86_vcpu_state *s = in->s;
    istack_new(in, st, &s->seg[X86_SS], s->gpr[X86_RSP], s->cpl, x86_64bit(s));
    st->err = 0;
    if (!x86_protected(s))
        st->down = false; /* no types in real and virtual-8086 mode */
}

/* Linear address of size bytes at off in the stack. */
static u64 stack_linear(struct interp *in, const struct istack *st, u64 off, unsigned size)
{
    u64 last = off + size - 1;
    if (st->flat64) {
        if (!im_canonical(in, off) || !im_canonical(in, last))
            interp_raise_err(in, X86_SS_FAULT, st->err);
        return off;
    }
    bool ok = st->down ? off > st->ss.limit && last <= st->mask : last <= st->ss.limit;
    if (!ok)
        interp_raise_err(in, X86_SS_FAULT, st->err);
    return (u32)(st->ss.base + off);
}

void istack_push(struct interp *in, struct istack *st, unsigned size, u64 val)
{
    u64 sp = (st->sp - size) & st->mask;
    u64 lin = stack_linear(in, st, sp, size);
    if (st->access & X86_ACC_USER)
        im_align(in, lin, size);
    im_lin_write(in, lin, size, val, st->access);
    st->sp = sp;
}

u64 istack_pop(struct interp *in, struct istack *st, unsigned size)
{
    u64 lin = stack_linear(in, st, st->sp, size);
    if (st->access & X86_ACC_USER)
        im_align(in, lin, size);
    u64 val = im_lin_read(in, lin, size, st->access);
    st->sp = (st->sp + size) & st->mask;
    return val;
}

void istack_commit(struct interp *in, const struct istack *st)
{
    u64 *rsp = &in->s->gpr[X86_RSP];
    *rsp = st->mask == 0xffff ? (*rsp & ~st->mask) | st->sp : st->sp;
}

/* Reads size bytes at off in the TSS; #TS(TR) beyond its limit. */
static u64 tss_read(struct interp *in, u32 off, unsigned size)
{
    const struct x86_seg *tr = &in->s->tr;
    if ((u64)off + size - 1 > tr->limit)
        interp_raise_err(in, X86_TS, sel_error(tr->sel));
    u64 lin = tr->base + off;
    return im_lin_read(in, x86_long_mode(in->s) ? lin : (u32)lin, size, im_system_access(in));
}

void itss_stack(struct interp *in, unsigned dpl, u16 *ss, u64 *sp)
{
    const struct x86_vcpu_state *s = in->s;
    if (x86_long_mode(s)) {
        *sp = tss_read(in, 4 + 8 * dpl, 8);
        *ss = (u16)dpl;
        return;
    }
    int type = attr_system_type(s->tr.attr);
    if (type == DESC_TSS16 || type == DESC_TSS16_BUSY) {
        *sp = tss_read(in, 2 + 4 * dpl, 2);
        *ss = (u16)tss_read(in, 4 + 4 * dpl, 2);
    } else {
        *sp = tss_read(in, 4 + 8 * dpl, 4);
        *ss = (u16)tss_read(in, 8 + 8 * dpl, 2);
    }
}

u64 itss_ist(struct interp *in, unsigned ist)
{
    return tss_read(in, 0x24 + 8 * (ist - 1), 8);
}
