/* SPDX-License-Identifier: Apache-2.0 */
/* Far JMP, CALL and RET (SDM 2 JMP, CALL, RET; SDM 3A 5.8). */
#include "engine/interp/system_priv.h"

/* --- checks shared with IRET and events */

bool ifar_is_64bit(const struct interp *in, u16 attr)
{
    return x86_long_mode(in->s) && (attr & X86_SEG_L);
}

void ifar_check_target(struct interp *in, const struct x86_seg *cs, u64 off)
{
    if (ifar_is_64bit(in, cs->attr) ? !im_canonical(in, off) : off > cs->limit)
        interp_raise_err(in, X86_GP, 0);
}

/* L and D together are reserved in long mode. */
static void need_code(struct interp *in, const struct idesc *d)
{
    bool bad = x86_long_mode(in->s) && (d->attr & X86_SEG_L) && (d->attr & X86_SEG_DB);
    if (!attr_is_code(d->attr) || bad)
        interp_raise_err(in, X86_GP, sel_error(d->sel));
}

static void need_present(struct interp *in, const struct idesc *d, u8 vector)
{
    if (!(d->attr & X86_SEG_P))
        interp_raise_err(in, vector, sel_error(d->sel));
}

void ifar_gate_code(struct interp *in, u16 sel, struct idesc *d)
{
    if (sel_null(sel))
        interp_raise_err(in, X86_GP, 0);
    idesc_need(in, sel, X86_GP, d);
    need_code(in, d);
    if (attr_dpl(d->attr) > in->s->cpl || (x86_long_mode(in->s) && !(d->attr & X86_SEG_L)))
        interp_raise_err(in, X86_GP, sel_error(sel));
    need_present(in, d, X86_NP);
}

void ifar_return_code(struct interp *in, u16 sel, struct idesc *d)
{
    unsigned rpl = sel & 3;
    if (sel_null(sel))
        interp_raise_err(in, X86_GP, 0);
    idesc_need(in, sel, X86_GP, d);
    need_code(in, d);
    unsigned dpl = attr_dpl(d->attr);
    bool fits = attr_is_conforming(d->attr) ? dpl <= rpl : dpl == rpl;
    if (rpl < in->s->cpl || !fits)
        interp_raise_err(in, X86_GP, sel_error(sel));
    need_present(in, d, X86_NP);
}

void ifar_return_stack(struct interp *in, u16 sel, unsigned rpl, bool to64, struct idesc *d,
                       struct x86_seg *seg, bool *null)
{
    *null = sel_null(sel) && to64 && rpl != 3 && (sel & 3u) == rpl;
    if (*null) {
        iseg_set_null(seg, sel);
        seg->attr = (u16)(rpl << X86_SEG_DPL_SHIFT);
        return;
    }
    iseg_need_stack(in, sel, rpl, X86_GP, d);
    idesc_to_seg(d, sel, seg);
    seg->attr |= X86_SEG_ACCESSED;
}

/* CS:RIP of a transfer that stays at or has reached privilege level cpl; cannot fault. */
static void enter(struct interp *in, const struct idesc *d, unsigned cpl, u64 off)
{
    struct x86_vcpu_state *s = in->s;
    idesc_to_seg(d, (u16)((d->sel & ~3u) | cpl), &s->seg[X86_CS]);
    s->seg[X86_CS].attr |= X86_SEG_ACCESSED;
    in->next_rip = off;
}

static u64 code_limit_checked(struct interp *in, const struct idesc *d, u64 off)
{
    struct x86_seg cs;
    idesc_to_seg(d, d->sel, &cs);
    ifar_check_target(in, &cs, off);
    return off;
}

/* --- JMP and CALL */

static void push_return(struct interp *in, struct istack *st, unsigned size)
{
    istack_push(in, st, size, in->s->seg[X86_CS].sel);
    istack_push(in, st, size, in->next_rip);
}

/* Real and virtual-8086 mode. */
static void branch_real(struct interp *in, u16 sel, u64 off, unsigned opsize, bool call)
{
    if (off > in->s->seg[X86_CS].limit)
        interp_raise_err(in, X86_GP, 0);
    if (call) {
        struct istack st;
        istack_current(in, &st);
        push_return(in, &st, opsize);
        istack_commit(in, &st);
    }
    iseg_set_real(in, X86_CS, sel);
    in->next_rip = off;
}

/* Straight to a code segment (SDM 3A 5.8.1). */
static void branch_code(struct interp *in, struct idesc *d, u64 off, unsigned opsize, bool call)
{
    unsigned cpl = in->s->cpl, dpl = attr_dpl(d->attr);
    need_code(in, d);
    bool ok = attr_is_conforming(d->attr) ? dpl <= cpl : (d->sel & 3u) <= cpl && dpl == cpl;
    if (!ok)
        interp_raise_err(in, X86_GP, sel_error(d->sel));
    need_present(in, d, X86_NP);
    code_limit_checked(in, d, off);
    if (call) {
        struct istack st;
        istack_current(in, &st);
        push_return(in, &st, opsize);
        idesc_mark_accessed(in, d);
        istack_commit(in, &st);
    } else {
        idesc_mark_accessed(in, d);
    }
    enter(in, d, cpl, off);
}

/* CALL through a gate to more privileged code: switches stacks (SDM 3A 5.8.5). */
static void call_inner(struct interp *in, const struct idesc *gate, struct idesc *code, u64 off,
                       unsigned size)
{
    struct x86_vcpu_state *s = in->s;
    unsigned cpl = attr_dpl(code->attr);
    bool flat = x86_long_mode(s);
    struct idesc ssd = {.raw = 0};
    struct x86_seg ss;
    struct istack st, old;
    u64 param[31], sp;
    u16 ss_sel;

    itss_stack(in, cpl, &ss_sel, &sp);
    if (flat) {
        iseg_set_null(&ss, ss_sel);
        ss.attr = (u16)(cpl << X86_SEG_DPL_SHIFT);
    } else {
        iseg_need_stack(in, ss_sel, cpl, X86_TS, &ssd);
        idesc_to_seg(&ssd, ss_sel, &ss);
        ss.attr |= X86_SEG_ACCESSED;
    }
    code_limit_checked(in, code, off);

    unsigned n = flat ? 0 : (unsigned)(gate->raw >> 32 & 31);
    istack_current(in, &old);
    for (unsigned i = 0; i < n; i++)
        param[i] = istack_pop(in, &old, size);

    istack_new(in, &st, &ss, sp, cpl, flat);
    istack_push(in, &st, size, s->seg[X86_SS].sel);
    istack_push(in, &st, size, s->gpr[X86_RSP]);
    while (n)
        istack_push(in, &st, size, param[--n]);
    push_return(in, &st, size);
    idesc_mark_accessed(in, code);
    if (!flat)
        idesc_mark_accessed(in, &ssd);

    s->seg[X86_SS] = ss;
    istack_commit(in, &st);
    enter(in, code, cpl, off);
    iseg_set_cpl(in, (u8)cpl);
}

static void branch_gate(struct interp *in, struct idesc *gate, bool call)
{
    struct x86_vcpu_state *s = in->s;
    unsigned dpl = attr_dpl(gate->attr);
    bool gate16 = attr_system_type(gate->attr) == DESC_CALL_GATE16;
    unsigned size = x86_long_mode(s) ? 8 : gate16 ? 2 : 4;
    struct idesc code;

    if (dpl < s->cpl || dpl < (gate->sel & 3u))
        interp_raise_err(in, X86_GP, sel_error(gate->sel));
    need_present(in, gate, X86_NP);
    if (x86_long_mode(s))
        idesc_need_upper(in, X86_GP, gate);
    u64 off = gate16 ? gate_offset(gate) & 0xffff : gate_offset(gate);
    ifar_gate_code(in, gate_sel(gate), &code);
    bool inner = !attr_is_conforming(code.attr) && attr_dpl(code.attr) < s->cpl;
    if (inner && !call)
        interp_raise_err(in, X86_GP, sel_error(code.sel));
    if (inner) {
        call_inner(in, gate, &code, off, size);
        return;
    }
    code_limit_checked(in, &code, off);
    if (call) {
        struct istack st;
        istack_current(in, &st);
        push_return(in, &st, size);
        idesc_mark_accessed(in, &code);
        istack_commit(in, &st);
    } else {
        idesc_mark_accessed(in, &code);
    }
    enter(in, &code, s->cpl, off);
}

/* A TSS or, through gate, a task gate (SDM 3A 7.3). */
static void branch_task(struct interp *in, const struct idesc *d, bool call)
{
    unsigned dpl = attr_dpl(d->attr);
    u16 sel = d->sel;
    if (dpl < in->s->cpl || dpl < (sel & 3u))
        interp_raise_err(in, X86_GP, sel_error(sel));
    need_present(in, d, X86_NP);
    if (attr_system_type(d->attr) == DESC_TASK_GATE) {
        struct idesc tss;
        sel = gate_sel(d);
        if (sel & 4)
            interp_raise_err(in, X86_GP, sel_error(sel));
        idesc_need(in, sel, X86_GP, &tss);
        int type = attr_system_type(tss.attr);
        if (type != DESC_TSS16 && type != DESC_TSS32)
            interp_raise_err(in, X86_GP, sel_error(sel));
        need_present(in, &tss, X86_NP);
    } else if (sel & 4) {
        interp_raise_err(in, X86_GP, sel_error(sel));
    }
    itask_switch(in, sel, call ? ITASK_CALL : ITASK_JMP, false, 0);
}

static enum interp_result branch(struct interp *in, u16 sel, u64 off, unsigned opsize, bool call)
{
    struct idesc d;

    off &= size_mask(opsize);
    if (!x86_protected(in->s)) {
        branch_real(in, sel, off, opsize, call);
        return INTERP_OK;
    }
    if (sel_null(sel))
        interp_raise_err(in, X86_GP, 0);
    idesc_need(in, sel, X86_GP, &d);
    if (d.attr & X86_SEG_S) {
        branch_code(in, &d, off, opsize, call);
        return INTERP_OK;
    }
    bool lma = x86_long_mode(in->s);
    switch (attr_system_type(d.attr)) {
    case DESC_CALL_GATE16:
        if (lma)
            break;
        branch_gate(in, &d, call);
        return INTERP_OK;
    case DESC_CALL_GATE32:
        branch_gate(in, &d, call);
        return INTERP_OK;
    case DESC_TSS16:
    case DESC_TSS32:
    case DESC_TASK_GATE:
        if (lma)
            break;
        branch_task(in, &d, call);
        return INTERP_OK;
    default:
        break;
    }
    interp_raise_err(in, X86_GP, sel_error(sel));
}

enum interp_result ifar_jmp(struct interp *in, u16 sel, u64 off, unsigned opsize)
{
    return branch(in, sel, off, opsize, false);
}

enum interp_result ifar_call(struct interp *in, u16 sel, u64 off, unsigned opsize)
{
    return branch(in, sel, off, opsize, true);
}

/* --- RET */

enum interp_result ifar_ret(struct interp *in, unsigned opsize, unsigned imm)
{
    struct x86_vcpu_state *s = in->s;
    struct istack st;

    istack_current(in, &st);
    u64 off = istack_pop(in, &st, opsize);
    u16 sel = (u16)istack_pop(in, &st, opsize);

    if (!x86_protected(s)) {
        if (off > s->seg[X86_CS].limit)
            interp_raise_err(in, X86_GP, 0);
        st.sp = (st.sp + imm) & st.mask;
        istack_commit(in, &st);
        iseg_set_real(in, X86_CS, sel);
        in->next_rip = off;
        return INTERP_OK;
    }

    struct idesc d;
    unsigned rpl = sel & 3;
    ifar_return_code(in, sel, &d);
    code_limit_checked(in, &d, off);
    st.sp = (st.sp + imm) & st.mask;
    if (rpl == s->cpl) {
        idesc_mark_accessed(in, &d);
        istack_commit(in, &st);
        enter(in, &d, rpl, off);
        return INTERP_OK;
    }

    struct idesc ssd;
    struct x86_seg ss;
    bool to64 = ifar_is_64bit(in, d.attr), null;
    u64 sp = istack_pop(in, &st, opsize);
    u16 ss_sel = (u16)istack_pop(in, &st, opsize);
    ifar_return_stack(in, ss_sel, rpl, to64, &ssd, &ss, &null);
    idesc_mark_accessed(in, &d);
    if (!null)
        idesc_mark_accessed(in, &ssd);
    s->seg[X86_SS] = ss;
    istack_new(in, &st, &ss, sp, rpl, to64);
    st.sp = (st.sp + imm) & st.mask;
    istack_commit(in, &st);
    enter(in, &d, rpl, off);
    iseg_set_cpl(in, (u8)rpl);
    iseg_drop_inner(in);
    return INTERP_OK;
}

/* --- the instructions */

/* Opcodes 9A and EA (pointer), FF /3 and /5 (memory), CA and CB. */
enum interp_result ifar_branch(struct interp *in, const struct x86_insn *insn)
{
    if (insn->opcode == 0xca || insn->opcode == 0xcb)
        return ifar_ret(in, insn->opsize, insn->opcode == 0xca ? (u16)insn->imm[0] : 0);
    bool call = insn->mnemonic == ZYDIS_MNEMONIC_CALL;
    if (insn->opcode != 0xff)
        return branch(in, (u16)insn->imm[1], insn->imm[0], insn->opsize, call);
    /* On AMD's CPUs the offset has 32 bits even if REX.W widens what is pushed. */
    unsigned size = insn->mem.size / 8u - 2u;
    u64 ea = im_ea(in, insn), wrap = size_mask(insn->addrsize);
    u64 off = im_read(in, insn->mem.seg, ea, size);
    u16 sel = (u16)im_read(in, insn->mem.seg, (ea + size) & wrap, 2);
    return branch(in, sel, off, insn->opsize, call);
}
