/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CLI, STI, PUSHF, POPF, CLAC, STAC and the software interrupts, with IOPL and the virtual
 * interrupt flag of virtual-8086 mode extensions (SDM 3B 20.3) and PVI (20.4).
 */
#include "engine/interp/system_priv.h"

#define FLAGS_ANY (RFLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT)

/* How IF may be touched: the real one, VIF in its place, or not at all. */
enum if_access { IF_REAL, IF_VIRTUAL, IF_FAULT };

static enum if_access if_access(const struct x86_vcpu_state *s)
{
    if (!(s->cr0 & CR0_PE) || s->cpl <= iopl(s))
        return IF_REAL;
    if (s->cpl == 3 && (s->cr4 & (in_v86(s) ? CR4_VME : CR4_PVI)))
        return IF_VIRTUAL;
    return IF_FAULT;
}

enum interp_result isys_cli(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    (void)insn;
    switch (if_access(s)) {
    case IF_REAL:
        s->rflags &= ~RFLAGS_IF;
        return INTERP_OK;
    case IF_VIRTUAL:
        s->rflags &= ~RFLAGS_VIF;
        return INTERP_OK;
    default:
        interp_raise_err(in, X86_GP, 0);
    }
}

enum interp_result isys_sti(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    (void)insn;
    enum if_access a = if_access(s);
    if (a == IF_FAULT || (a == IF_VIRTUAL && (s->rflags & RFLAGS_VIP)))
        interp_raise_err(in, X86_GP, 0);
    if (a == IF_VIRTUAL) {
        s->rflags |= RFLAGS_VIF;
        return INTERP_OK;
    }
    if (!(s->rflags & RFLAGS_IF))
        in->new_shadow = 1;
    s->rflags |= RFLAGS_IF;
    return INTERP_OK;
}

/* IF and IOPL as a virtual-8086 task with IOPL < 3 sees them. */
static u64 virtual_flags(const struct x86_vcpu_state *s)
{
    u64 f = (s->rflags & ~RFLAGS_IF) | RFLAGS_IOPL;
    return s->rflags & RFLAGS_VIF ? f | RFLAGS_IF : f;
}

enum interp_result isys_pushf(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    u64 flags = s->rflags;
    struct istack st;

    if (in_v86(s) && iopl(s) < 3) {
        if (!(s->cr4 & CR4_VME) || insn->opsize != 2)
            interp_raise_err(in, X86_GP, 0);
        flags = virtual_flags(s);
    }
    istack_current(in, &st);
    istack_push(in, &st, insn->opsize, flags & ~(RFLAGS_VM | RFLAGS_RF));
    istack_commit(in, &st);
    return INTERP_OK;
}

enum interp_result isys_popf(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    unsigned size = insn->opsize;
    bool vme = in_v86(s) && iopl(s) < 3;
    u64 mask = FLAGS_ANY;
    struct istack st;

    if (vme && (!(s->cr4 & CR4_VME) || size != 2))
        interp_raise_err(in, X86_GP, 0);
    istack_current(in, &st);
    u64 flags = istack_pop(in, &st, size);
    if (size > 2)
        mask |= RFLAGS_AC | RFLAGS_ID;
    if (vme) {
        if (((flags & RFLAGS_IF) && (s->rflags & RFLAGS_VIP)) || (flags & RFLAGS_TF))
            interp_raise_err(in, X86_GP, 0);
        flags = (flags & ~RFLAGS_VIF) | (flags & RFLAGS_IF ? RFLAGS_VIF : 0);
        mask |= RFLAGS_VIF;
    } else {
        if (!(s->cr0 & CR0_PE) || s->cpl <= iopl(s))
            mask |= RFLAGS_IF;
        if (s->cpl == 0)
            mask |= RFLAGS_IOPL;
    }
    istack_commit(in, &st);
    iflags_set(in, flags, mask);
    return INTERP_OK;
}

/* CLAC and STAC */
enum interp_result isys_clac(struct interp *in, const struct x86_insn *insn)
{
    if (!in->model->smap || in->s->cpl != 0)
        interp_raise(in, X86_UD);
    iflags_set(in, insn->mnemonic == ZYDIS_MNEMONIC_STAC ? RFLAGS_AC : 0, RFLAGS_AC);
    return INTERP_OK;
}

/* --- software interrupts */

/* Bit `vector` of the interrupt redirection bitmap, the 32 bytes below the I/O bitmap. */
static bool redirected(struct interp *in, u8 vector)
{
    const struct x86_seg *tr = &in->s->tr;
    int type = attr_system_type(tr->attr);
    if ((type != DESC_TSS32 && type != DESC_TSS32_BUSY) || tr->limit < 0x67)
        interp_raise_err(in, X86_GP, 0);
    u32 io = (u32)im_lin_read(in, (u32)(tr->base + 0x66), 2, im_system_access(in));
    if (io < 32 || io - 32 + vector / 8 > tr->limit)
        interp_raise_err(in, X86_GP, 0);
    u64 byte = im_lin_read(in, (u32)(tr->base + io - 32 + vector / 8), 1, im_system_access(in));
    return !(byte >> (vector & 7) & 1);
}

/* INT n handled by the virtual-8086 program's own vector table (SDM 3B 20.3.3, method 5 and 6). */
static void interrupt_v86(struct interp *in, u8 vector)
{
    struct x86_vcpu_state *s = in->s;
    bool low = iopl(s) < 3;
    struct istack st;

    u32 entry = (u32)im_lin_read(in, vector * 4u, 4, im_access(in));
    istack_current(in, &st);
    istack_push(in, &st, 2, low ? virtual_flags(s) : s->rflags);
    istack_push(in, &st, 2, s->seg[X86_CS].sel);
    istack_push(in, &st, 2, in->next_rip);
    istack_commit(in, &st);
    iseg_set_real(in, X86_CS, (u16)(entry >> 16));
    in->next_rip = (u16)entry;
    iflags_set(in, 0, RFLAGS_TF | RFLAGS_RF | (low ? RFLAGS_VIF : RFLAGS_IF));
    in->suppress_tf = true;
}

enum interp_result isys_int(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    u8 vector = (u8)insn->imm[0];
    if (in_v86(s)) {
        if ((s->cr4 & CR4_VME) && redirected(in, vector)) {
            interrupt_v86(in, vector);
            return INTERP_OK;
        }
        if (iopl(s) < 3)
            interp_raise_err(in, X86_GP, 0);
    }
    return ievent_deliver(in, EV_SOFT_INT, vector, false, 0, in->next_rip);
}

enum interp_result isys_int3(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    return ievent_deliver(in, EV_SOFT_INT, X86_BP, false, 0, in->next_rip);
}

enum interp_result isys_into(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    if (!(in->s->rflags & RFLAGS_OF))
        return INTERP_OK;
    return ievent_deliver(in, EV_SOFT_INT, X86_OF, false, 0, in->next_rip);
}

enum interp_result isys_int1(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    return ievent_deliver(in, EV_ICEBP, X86_DB, false, 0, in->next_rip);
}
