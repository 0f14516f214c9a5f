/* SPDX-License-Identifier: Apache-2.0 */
/* Near branches; far ones go to far.c. */
#include "engine/interp/integer.h"

/* A near target: truncated to the operand size and checked at the branch (SDM 2A JMP). */
static u64 target(struct interp *in, const struct x86_insn *insn, u64 rip)
{
    if (insn->mode == 64) {
        if (insn->opsize == 2)
            rip = (u16)rip; /* only AMD decodes so */
        if (unlikely(!im_canonical(in, rip)))
            interp_raise_err(in, X86_GP, 0);
        return rip;
    }
    rip = insn->opsize == 2 ? (u16)rip : (u32)rip;
    if (unlikely(rip > in->s->seg[X86_CS].limit))
        interp_raise_err(in, X86_GP, 0);
    return rip;
}

static void jump_relative(struct interp *in, const struct x86_insn *insn)
{
    in->next_rip = target(in, insn, in->next_rip + insn->imm[0]);
}

enum interp_result i_jcc(struct interp *in, const struct x86_insn *insn)
{
    if (flags_cond(in->s->rflags, insn->opcode & 15))
        jump_relative(in, insn);
    return INTERP_OK;
}

/* JCXZ, JECXZ, JRCXZ: the count register has the address size. */
enum interp_result i_jcxz(struct interp *in, const struct x86_insn *insn)
{
    if (!io_gpr(in, X86_RCX, insn->addrsize))
        jump_relative(in, insn);
    return INTERP_OK;
}

/*
 * What the loop wants of ZF: -1 nothing, else its value. On AMD's CPUs a repeat prefix overrides
 * the opcode: F3 makes LOOPE of LOOPNE, F2 the reverse (seen on the host).
 */
static int loop_zf(const struct interp *in, const struct x86_insn *insn)
{
    if (insn->mnemonic == ZYDIS_MNEMONIC_LOOP)
        return -1;
    int zf = insn->mnemonic == ZYDIS_MNEMONIC_LOOPE;
    if (in->model && in->model->amd)
        for (unsigned i = 0; i + 2 < insn->length; i++)
            if (insn->bytes[i] == 0xf2 || insn->bytes[i] == 0xf3)
                zf = insn->bytes[i] == 0xf3;
    return zf;
}

enum interp_result i_loop(struct interp *in, const struct x86_insn *insn)
{
    u64 count = (io_gpr(in, X86_RCX, insn->addrsize) - 1) & size_mask(insn->addrsize);
    int want = loop_zf(in, insn), zf = (in->s->rflags & RFLAGS_ZF) != 0;
    if (count && (want < 0 || want == zf))
        jump_relative(in, insn);
    io_set_gpr(in, X86_RCX, insn->addrsize, count);
    return INTERP_OK;
}

/* Selector and offset of a far pointer operand. */
static u16 far_pointer(struct interp *in, const struct x86_insn *insn, u64 *off)
{
    if (insn->op[0].kind == X86_OP_PTR) {
        *off = insn->imm[0];
        return (u16)insn->imm[1];
    }
    /* In memory: offset of the operand size, then the selector. */
    unsigned size = insn->mem.size / 8u - 2, seg = insn->mem.seg;
    u64 ea = im_ea(in, insn);
    u64 sel_ea = ea + size;
    if (insn->addrsize != 8)
        sel_ea &= size_mask(insn->addrsize);
    *off = im_read(in, seg, ea, size);
    return (u16)im_read(in, seg, sel_ea, 2);
}

static bool far_operand(const struct x86_insn *insn)
{
    unsigned reg = (insn->modrm >> 3) & 7;
    return insn->op[0].kind == X86_OP_PTR || (insn->opcode == 0xff && (reg == 3 || reg == 5));
}

enum interp_result i_jmp(struct interp *in, const struct x86_insn *insn)
{
    if (insn->op[0].kind == X86_OP_REL) {
        jump_relative(in, insn);
        return INTERP_OK;
    }
    if (far_operand(insn)) {
        u64 off;
        u16 sel = far_pointer(in, insn, &off);
        return ifar_jmp(in, sel, off, insn->opsize);
    }
    in->next_rip = target(in, insn, io_read(in, insn, 0));
    return INTERP_OK;
}

enum interp_result i_call(struct interp *in, const struct x86_insn *insn)
{
    u64 to;
    if (insn->op[0].kind == X86_OP_REL) {
        to = in->next_rip + insn->imm[0];
    } else if (far_operand(insn)) {
        u64 off;
        u16 sel = far_pointer(in, insn, &off);
        return ifar_call(in, sel, off, insn->opsize);
    } else {
        to = io_read(in, insn, 0);
    }
    /* AMD's CPUs find out about the stack before they find out about the target. */
    if (in->model && in->model->amd) {
        u64 lin =
            im_linear(in, X86_SS, (is_sp(in) - insn->opsize) & is_mask(in), insn->opsize, true);
        im_align(in, lin, insn->opsize);
        im_lin_probe_write(in, lin, insn->opsize, im_access(in));
    }
    to = target(in, insn, to);
    is_push(in, insn->opsize, in->next_rip);
    in->next_rip = to;
    return INTERP_OK;
}

enum interp_result i_ret(struct interp *in, const struct x86_insn *insn)
{
    unsigned imm = insn->imm_size ? (u16)insn->imm[0] : 0;
    if (insn->opcode == 0xca || insn->opcode == 0xcb)
        return ifar_ret(in, insn->opsize, imm);
    u64 sp = is_sp(in);
    u64 to = target(in, insn, im_read(in, X86_SS, sp, insn->opsize));
    is_set_sp(in, sp + insn->opsize + imm);
    in->next_rip = to;
    return INTERP_OK;
}
