/* SPDX-License-Identifier: Apache-2.0 */
/* Moves, conversions, conditional moves and sets. */
#include <string.h>

#include "engine/interp/integer.h"

enum interp_result i_mov(struct interp *in, const struct x86_insn *insn)
{
    io_write(in, insn, 0, io_read(in, insn, 1));
    return INTERP_OK;
}

enum interp_result i_movzx(struct interp *in, const struct x86_insn *insn)
{
    io_write(in, insn, 0, io_read(in, insn, 1));
    return INTERP_OK;
}

enum interp_result i_movsx(struct interp *in, const struct x86_insn *insn)
{
    io_write(in, insn, 0, sign_extend(io_read(in, insn, 1), insn->op[1].size));
    return INTERP_OK;
}

static u64 swap(u64 v, unsigned size)
{
    return __builtin_bswap64(v) >> (64 - 8 * size);
}

enum interp_result i_movbe(struct interp *in, const struct x86_insn *insn)
{
    need_feature(in, X86F_MOVBE);
    io_write(in, insn, 0, swap(io_read(in, insn, 1), insn->op[0].size / 8u));
    return INTERP_OK;
}

enum interp_result i_movdiri(struct interp *in, const struct x86_insn *insn)
{
    need_feature(in, X86F_MOVDIRI);
    io_write(in, insn, 0, io_read(in, insn, 1));
    return INTERP_OK;
}

/* 64 bytes from the memory operand to ES:[reg], which must be aligned (SDM 2B MOVDIR64B). */
enum interp_result i_movdir64b(struct interp *in, const struct x86_insn *insn)
{
    need_feature(in, X86F_MOVDIR64B);
    u8 buf[64];
    u64 off = io_gpr(in, insn->op[0].reg, insn->addrsize);
    u64 dst = im_linear(in, X86_ES, off, 64, true);
    if (dst & 63)
        interp_raise_err(in, X86_GP, 0);
    u64 src = im_linear(in, insn->mem.seg, im_ea(in, insn), 64, false);
    im_lin_read_buf(in, src, buf, 64, im_access(in));
    im_lin_write_buf(in, dst, buf, 64, im_access(in));
    return INTERP_OK;
}

enum interp_result i_lea(struct interp *in, const struct x86_insn *insn)
{
    io_write(in, insn, 0, im_ea(in, insn));
    return INTERP_OK;
}

enum interp_result i_bswap(struct interp *in, const struct x86_insn *insn)
{
    unsigned size = insn->op[0].size / 8u;
    /* Undefined for 16 bits; CPUs clear the register. */
    io_write(in, insn, 0, size == 2 ? 0 : swap(io_read(in, insn, 0), size));
    return INTERP_OK;
}

enum interp_result i_xlat(struct interp *in, const struct x86_insn *insn)
{
    u64 ea = in->s->gpr[X86_RBX] + (u8)in->s->gpr[X86_RAX];
    if (insn->addrsize != 8)
        ea &= size_mask(insn->addrsize);
    io_set_gpr(in, X86_RAX, 1, im_read(in, insn->mem.seg, ea, 1));
    return INTERP_OK;
}

/* CBW CWDE CDQE */
enum interp_result i_cbw(struct interp *in, const struct x86_insn *insn)
{
    unsigned size = insn->opsize;
    io_set_gpr(in, X86_RAX, size, sign_extend(in->s->gpr[X86_RAX], 4 * size));
    return INTERP_OK;
}

/* CWD CDQ CQO */
enum interp_result i_cwd(struct interp *in, const struct x86_insn *insn)
{
    unsigned size = insn->opsize;
    bool neg = (in->s->gpr[X86_RAX] >> (8 * size - 1)) & 1;
    io_set_gpr(in, X86_RDX, size, neg ? ~(u64)0 : 0);
    return INTERP_OK;
}

/* The source is read, and a 32-bit destination's upper half cleared, in any case. */
enum interp_result i_cmov(struct interp *in, const struct x86_insn *insn)
{
    u64 v = io_read(in, insn, 1);
    if (!flags_cond(in->s->rflags, insn->opcode & 15))
        v = io_read(in, insn, 0);
    io_write(in, insn, 0, v);
    return INTERP_OK;
}

enum interp_result i_setcc(struct interp *in, const struct x86_insn *insn)
{
    io_write(in, insn, 0, flags_cond(in->s->rflags, insn->opcode & 15));
    return INTERP_OK;
}
