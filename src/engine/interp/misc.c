/* SPDX-License-Identifier: Apache-2.0 */
/* Flags, hints, fences, cache lines, random numbers and bounds. */
#include <string.h>

#include "engine/interp/integer.h"

enum interp_result i_nop(struct interp *in, const struct x86_insn *insn)
{
    (void)in;
    (void)insn;
    return INTERP_OK;
}

enum interp_result i_pause(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    if (in->ops->pause)
        in->ops->pause(in->opaque);
    return INTERP_OK;
}

enum interp_result i_ud(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    interp_raise(in, X86_UD);
}

enum interp_result i_fence(struct interp *in, const struct x86_insn *insn)
{
    (void)in;
    (void)insn;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return INTERP_OK;
}

enum interp_result i_serialize(struct interp *in, const struct x86_insn *insn)
{
    need_feature(in, X86F_SERIALIZE);
    return i_fence(in, insn);
}

/* CLFLUSH CLFLUSHOPT CLWB: a byte load for faults (SDM 2A CLFLUSH); memory is coherent anyway. */
enum interp_result i_clflush(struct interp *in, const struct x86_insn *insn)
{
    if (insn->mnemonic == ZYDIS_MNEMONIC_CLFLUSHOPT)
        need_feature(in, X86F_CLFLUSHOPT);
    else if (insn->mnemonic == ZYDIS_MNEMONIC_CLWB)
        need_feature(in, X86F_CLWB);
    struct interp_ref ref;
    u64 lin = im_linear(in, insn->mem.seg, im_ea(in, insn), 1, false);
    if (in->ops->translate(in->opaque, lin, 1, X86_ACC_READ | im_access(in), &ref, &in->fault))
        interp_raise_fault(in);
    return INTERP_OK;
}

/* AMD: zeroes the 64-byte line at rAX (APM 3 CLZERO). */
enum interp_result i_clzero(struct interp *in, const struct x86_insn *insn)
{
    need_feature(in, X86F_CLZERO);
    static const u8 zero[64];
    u64 off = io_gpr(in, X86_RAX, insn->addrsize) & ~(u64)63;
    u64 lin = im_linear(in, insn->mem.present ? insn->mem.seg : X86_DS, off, 64, true);
    im_lin_write_buf(in, lin, zero, 64, im_access(in));
    return INTERP_OK;
}

enum interp_result i_clc(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    in->s->rflags &= ~RFLAGS_CF;
    return INTERP_OK;
}

enum interp_result i_stc(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    in->s->rflags |= RFLAGS_CF;
    return INTERP_OK;
}

enum interp_result i_cmc(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    in->s->rflags ^= RFLAGS_CF;
    return INTERP_OK;
}

enum interp_result i_cld(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    in->s->rflags &= ~RFLAGS_DF;
    return INTERP_OK;
}

enum interp_result i_std(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    in->s->rflags |= RFLAGS_DF;
    return INTERP_OK;
}

enum interp_result i_lahf(struct interp *in, const struct x86_insn *insn)
{
    if (insn->mode == 64)
        need_feature(in, X86F_LAHF64);
    u64 ah = (in->s->rflags & FLAGS_AH) | RFLAGS_FIXED;
    in->s->gpr[X86_RAX] = (in->s->gpr[X86_RAX] & ~(u64)0xff00) | ah << 8;
    return INTERP_OK;
}

enum interp_result i_sahf(struct interp *in, const struct x86_insn *insn)
{
    if (insn->mode == 64)
        need_feature(in, X86F_LAHF64);
    u64 ah = (in->s->gpr[X86_RAX] >> 8) & FLAGS_AH;
    in->s->rflags = (in->s->rflags & ~FLAGS_AH) | ah;
    return INTERP_OK;
}

enum interp_result i_salc(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    io_set_gpr(in, X86_RAX, 1, in->s->rflags & RFLAGS_CF ? 0xff : 0);
    return INTERP_OK;
}

enum interp_result i_bound(struct interp *in, const struct x86_insn *insn)
{
    unsigned size = insn->opsize, bits = 8 * size;
    u64 ea = im_ea(in, insn);
    u64 second = (ea + size) & size_mask(insn->addrsize);
    s64 index = (s64)sign_extend(io_gpr(in, insn->op[0].reg, size), bits);
    s64 lower = (s64)sign_extend(im_read(in, insn->mem.seg, ea, size), bits);
    s64 upper = (s64)sign_extend(im_read(in, insn->mem.seg, second, size), bits);
    if (index < lower || index > upper)
        interp_raise(in, X86_BR);
    return INTERP_OK;
}

/* CF tells whether a number was there; the other arithmetic flags are cleared. */
static enum interp_result random_number(struct interp *in, const struct x86_insn *insn, u64 v,
                                        bool ok)
{
    io_write(in, insn, 0, ok ? v : 0);
    flags_set(&in->s->rflags, ok ? RFLAGS_CF : 0);
    return INTERP_OK;
}

enum interp_result i_rdrand(struct interp *in, const struct x86_insn *insn)
{
    need_feature(in, X86F_RDRAND);
    u64 v;
    bool ok;
    __asm__ volatile("rdrand %0" : "=r"(v), "=@ccc"(ok));
    return random_number(in, insn, v, ok);
}

enum interp_result i_rdseed(struct interp *in, const struct x86_insn *insn)
{
    need_feature(in, X86F_RDSEED);
    u64 v;
    bool ok;
    __asm__ volatile("rdseed %0" : "=r"(v), "=@ccc"(ok));
    return random_number(in, insn, v, ok);
}
