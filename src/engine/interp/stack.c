/* SPDX-License-Identifier: Apache-2.0 */
/* The stack: PUSH, POP, PUSHA, POPA, ENTER, LEAVE and what call and return share. */
#include "engine/interp/integer.h"

/* Stack address size in bytes (SDM 1 6.2.3). */
static unsigned stack_width(const struct interp *in)
{
    if (x86_64bit(in->s))
        return 8;
    return in->s->seg[X86_SS].attr & X86_SEG_DB ? 4 : 2;
}

u64 is_mask(const struct interp *in)
{
    return size_mask(stack_width(in));
}

u64 is_sp(const struct interp *in)
{
    return in->s->gpr[X86_RSP] & size_mask(stack_width(in));
}

void is_set_sp(struct interp *in, u64 sp)
{
    u64 *rsp = &in->s->gpr[X86_RSP];
    switch (stack_width(in)) {
    case 8:
        *rsp = sp;
        break;
    case 4:
        *rsp = (u32)sp;
        break;
    default:
        *rsp = (*rsp & ~(u64)0xffff) | (u16)sp;
        break;
    }
}

static u64 wrap(const struct interp *in, u64 sp)
{
    return sp & size_mask(stack_width(in));
}

void is_push(struct interp *in, unsigned size, u64 val)
{
    u64 sp = wrap(in, is_sp(in) - size);
    im_write(in, X86_SS, sp, size, val);
    is_set_sp(in, sp);
}

u64 is_pop(struct interp *in, unsigned size)
{
    u64 sp = is_sp(in);
    u64 v = im_read(in, X86_SS, sp, size);
    is_set_sp(in, wrap(in, sp + size));
    return v;
}

enum interp_result i_push(struct interp *in, const struct x86_insn *insn)
{
    /* The operand is read first: PUSH ESP stores the old value. */
    is_push(in, insn->opsize, io_read(in, insn, 0));
    return INTERP_OK;
}

enum interp_result i_pop(struct interp *in, const struct x86_insn *insn)
{
    unsigned size = insn->opsize;
    if (insn->op[0].kind != X86_OP_MEM) {
        u64 v = is_pop(in, size);
        io_set_gpr(in, insn->op[0].reg, size, v);
        return INTERP_OK;
    }
    /* An address that uses rSP uses the value after the pop (SDM 2B POP); rSP is restored when the
     * store faults. */
    u64 sp = is_sp(in), old = in->s->gpr[X86_RSP];
    u64 v = im_read(in, X86_SS, sp, size);
    is_set_sp(in, wrap(in, sp + size));
    u64 ea = im_ea(in, insn);
    u64 lin, new = in->s->gpr[X86_RSP];
    in->s->gpr[X86_RSP] = old;
    lin = im_linear(in, insn->mem.seg, ea, size, true);
    im_align(in, lin, size);
    im_lin_write(in, lin, size, v, im_access(in));
    in->s->gpr[X86_RSP] = new;
    return INTERP_OK;
}

enum interp_result i_pusha(struct interp *in, const struct x86_insn *insn)
{
    unsigned size = insn->opsize;
    u64 at = is_sp(in), val[8];
    /* In the order of the pushes, so that a fault names the address the CPU would; nothing is
     * stored before all of it is known to work. */
    for (unsigned i = 0; i < 8; i++) {
        val[i] = in->s->gpr[i] & size_mask(size);
        at = wrap(in, at - size);
        u64 lin = im_linear(in, X86_SS, at, size, true);
        im_align(in, lin, size);
        im_lin_probe_write(in, lin, size, im_access(in));
    }
    at = is_sp(in);
    for (unsigned i = 0; i < 8; i++) {
        at = wrap(in, at - size);
        im_write(in, X86_SS, at, size, val[i]);
    }
    is_set_sp(in, at);
    return INTERP_OK;
}

enum interp_result i_popa(struct interp *in, const struct x86_insn *insn)
{
    unsigned size = insn->opsize;
    u64 at = is_sp(in), v[8];
    for (unsigned i = 0; i < 8; i++) {
        v[i] = im_read(in, X86_SS, at, size);
        at = wrap(in, at + size);
    }
    for (unsigned i = 0; i < 8; i++)
        if (7 - i != X86_RSP)
            io_set_gpr(in, 7 - i, size, v[i]);
    is_set_sp(in, at);
    return INTERP_OK;
}

/*
 * The frame pointers are copied one by one: with nested frames a copy may be what was pushed just
 * before. A fault leaves what has been pushed below RSP, RSP and RBP unchanged.
 */
enum interp_result i_enter(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    unsigned size = insn->opsize, level = (unsigned)insn->imm[1] & 31;
    u64 at = wrap(in, is_sp(in) - size), bp = wrap(in, s->gpr[X86_RBP]);
    /* All of ESP goes to EBP and into the frame, also with a 16-bit stack. */
    u64 frame_ptr = (s->gpr[X86_RSP] & ~size_mask(stack_width(in))) | at;
    im_write(in, X86_SS, at, size, s->gpr[X86_RBP] & size_mask(size));
    if (level) {
        for (unsigned i = 1; i < level; i++) {
            bp = wrap(in, bp - size);
            at = wrap(in, at - size);
            im_write(in, X86_SS, at, size, im_read(in, X86_SS, bp, size));
        }
        at = wrap(in, at - size);
        im_write(in, X86_SS, at, size, frame_ptr & size_mask(size));
    }
    /* The final stack pointer must be usable for a write (SDM 2A ENTER). */
    u64 final = wrap(in, at - (u16)insn->imm[0]);
    u64 lin = im_linear(in, X86_SS, final, size, true);
    im_align(in, lin, size);
    im_lin_probe_write(in, lin, size, im_access(in));
    io_set_gpr(in, X86_RBP, size, frame_ptr);
    is_set_sp(in, final);
    return INTERP_OK;
}

enum interp_result i_leave(struct interp *in, const struct x86_insn *insn)
{
    unsigned size = insn->opsize;
    u64 at = wrap(in, in->s->gpr[X86_RBP]);
    u64 v = im_read(in, X86_SS, at, size);
    is_set_sp(in, wrap(in, at + size));
    io_set_gpr(in, X86_RBP, size, v);
    return INTERP_OK;
}
