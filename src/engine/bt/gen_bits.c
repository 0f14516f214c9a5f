/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BT, BTS, BTR and BTC of a bit string in memory (SDM 2A BT): the index, signed, reaches the words
 * around the address. Kernels keep their CPU masks and page flags so. The word's address and the
 * bit in it are computed here, without touching flags, and the instruction is copied with both in
 * place.
 */
#include <Zydis/SharedTypes.h>

#include "engine/bt/gen.h"

bool gen_bits_fits(const struct x86_insn *in)
{
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTC:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTS:
        return in->mode == 64 && in->encoding == X86_ENC_LEGACY && in->addrsize == 8 &&
               in->opsize >= 4 && in->mem.present && in->op[0].kind == X86_OP_MEM &&
               in->op[1].kind == X86_OP_GPR;
    default:
        return false;
    }
}

void gen_bits_offset(struct gen *g)
{
    const struct x86_insn *in = g->insn;
    unsigned index = in->op[1].reg;
    bool wide = in->opsize == 8;
    struct emit *e = &g->e;

    /* r11 = index >> 6 or 5: sarx r11, index, r11 */
    emit_mov_imm(e, H_R11, wide ? 6 : 5);
    emit8(e, 0xc4);
    emit8(e, gen_in_memory(index) || gen_host(index) < 8 ? 0x62 : 0x42);
    emit8(e, wide ? 0xa2 : 0x22);
    emit8(e, 0xf7);
    if (gen_in_memory(index)) {
        EMIT(e, 0x5c, 0x24);
        emit8(e, 8 * index);
    } else {
        emit8(e, 0xd8u | (gen_host(index) & 7));
    }
    if (!wide)
        EMIT(e, 0x4d, 0x63, 0xdb); /* movsxd r11, r11d */
    /* lea r10, [r10 + r11 * 8 or 4] */
    EMIT(e, 0x4f, 0x8d, 0x14);
    emit8(e, wide ? 0xda : 0x9a);
}

void gen_bits(struct gen *g)
{
    const struct x86_insn *in = g->insn;
    bool wide = in->opsize == 8;
    unsigned index = in->op[1].reg, host = gen_host(index);
    struct emit *e = &g->e;

    gen_probe(g, EA_BITS, (unsigned)in->opsize, in->mnemonic != ZYDIS_MNEMONIC_BT);
    if (gen_in_memory(index)) {
        emit_load(e, H_R11, H_RSP, 8 * (s32)index);
        host = H_R11;
    }
    /* r11 = the bit: pext r11, host, [rsp + mask] */
    EMIT(e, 0xc4, 0x62);
    emit8(e, 0x82u | (~host & 15) << 3);
    EMIT(e, 0xf5, 0x9c, 0x24);
    emit32(e, (u32)(wide ? offsetof(struct bt_env, bits63) : offsetof(struct bt_env, bits31)));
    gen_commit(g);
    /* op [r10], r11 */
    if (in->prefixes & X86_PFX_LOCK)
        emit8(e, 0xf0);
    emit8(e, wide ? 0x4d : 0x45);
    emit8(e, 0x0f);
    emit8(e, in->opcode);
    emit8(e, 0x1a);
}
