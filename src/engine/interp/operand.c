/* SPDX-License-Identifier: Apache-2.0 */
/* Operands: registers, memory and immediates as values. */
#include "engine/interp/interp_priv.h"

u64 io_gpr(const struct interp *in, unsigned reg, unsigned size)
{
    return in->s->gpr[reg] & size_mask(size);
}

void io_set_gpr(struct interp *in, unsigned reg, unsigned size, u64 val)
{
    u64 *r = &in->s->gpr[reg];
    switch (size) {
    case 1:
        *r = (*r & ~(u64)0xff) | (u8)val;
        break;
    case 2:
        *r = (*r & ~(u64)0xffff) | (u16)val;
        break;
    case 4:
        *r = (u32)val; /* clears the upper half in every mode (SDM 1 3.4.1.1) */
        break;
    default:
        *r = val;
        break;
    }
}

/* BOUND and the like aside, an instruction has one immediate; ENTER reads imm[] itself. */
u64 io_read(struct interp *in, const struct x86_insn *insn, unsigned n)
{
    const struct x86_op *op = &insn->op[n];
    switch (op->kind) {
    case X86_OP_GPR:
        if (op->high8)
            return (u8)(in->s->gpr[op->reg] >> 8);
        return io_gpr(in, op->reg, op->size / 8u);
    case X86_OP_MEM:
        return im_read(in, insn->mem.seg, im_ea(in, insn), op->size / 8u);
    case X86_OP_IMM:
    case X86_OP_REL:
        return insn->imm[0];
    default:
        interp_raise(in, X86_UD);
    }
}

void io_write(struct interp *in, const struct x86_insn *insn, unsigned n, u64 val)
{
    const struct x86_op *op = &insn->op[n];
    if (op->kind == X86_OP_GPR) {
        if (op->high8)
            in->s->gpr[op->reg] = (in->s->gpr[op->reg] & ~(u64)0xff00) | (u64)(u8)val << 8;
        else
            io_set_gpr(in, op->reg, op->size / 8u, val);
    } else if (op->kind == X86_OP_MEM) {
        im_write(in, insn->mem.seg, im_ea(in, insn), op->size / 8u, val);
    } else {
        interp_raise(in, X86_UD);
    }
}
