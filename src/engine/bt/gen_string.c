/* SPDX-License-Identifier: Apache-2.0 */
/*
 * String instructions without a repeat prefix, which compilers use to copy a byte or a word, and
 * 32-bit kernels to compare strings. (With one, MOVS and STOS are bt_help_string's.)
 */
#include <Zydis/MetaInfo.h>

#include "engine/bt/gen.h"

#define OFF(field) ((s32)offsetof(struct bt_env, field))

enum string { NONE, MOVS, STOS, LODS, CMPS, SCAS };

static enum string which(const struct x86_insn *in)
{
    /* One-byte opcodes: MOVSD is an SSE2 instruction, too. */
    if (in->category != ZYDIS_CATEGORY_STRINGOP)
        return NONE;
    switch (in->opcode & 0xfe) {
    case 0xa4:
        return MOVS;
    case 0xaa:
        return STOS;
    case 0xac:
        return LODS;
    case 0xa6:
        return CMPS;
    case 0xae:
        return SCAS;
    default:
        return NONE;
    }
}

bool gen_string_fits(const struct x86_insn *in)
{
    return which(in) != NONE && in->addrsize == in->mode / 8 &&
           !(in->prefixes & (X86_PFX_REP | X86_PFX_REPNE | X86_PFX_LOCK));
}

enum { LOAD = 0x8a, STORE = 0x88, COMPARE = 0x3a };

/* mov reg, [r10], mov [r10], reg or cmp reg, [r10] of an operand's size. */
static void access(struct gen *g, unsigned opcode, unsigned reg, unsigned size)
{
    struct emit *e = &g->e;

    if (size == 2)
        emit8(e, 0x66);
    emit_rex(e, size == 8, reg, 0, H_R10);
    emit8(e, opcode | (size > 1));
    emit8(e, (reg & 7) << 3 | (H_R10 & 7));
}

/* r11 = -1 or 1, by EFLAGS.DF */
static void direction(struct gen *g)
{
    struct emit *e = &g->e;

    emit_op_mem(e, false, 0x8b, H_R11, H_RSP, OFF(s.rflags));
    EMIT(e, 0xc4, 0x62, 0x22, 0xf5, 0x9c, 0x24); /* pext r11d, r11d, [rsp + ...] */
    emit32(e, (u32)OFF(df_mask));
    EMIT(e, 0x4e, 0x8b, 0x9c, 0xdc); /* mov r11, [rsp + r11 * 8 + ...] */
    emit32(e, (u32)OFF(step));
}

/* lea reg, [reg + r11 * size]: signal.c knows its form. reg: rsi or rdi */
static void advance(struct gen *g, unsigned reg, unsigned size)
{
    struct emit *e = &g->e;
    unsigned ss = size == 8 ? 3 : size / 2;

    emit8(e, g->word == 8 ? 0x4a : 0x42);
    emit8(e, 0x8d);
    emit8(e, reg << 3 | 4);
    emit8(e, ss << 6 | (H_R11 & 7) << 3 | reg);
}

void gen_string(struct gen *g)
{
    const struct x86_insn *in = g->insn;
    struct emit *e = &g->e;
    enum string kind = which(in);
    unsigned size = in->opcode & 1 ? in->opsize : 1;
    bool both = kind == MOVS || kind == CMPS;

    if (both) {
        gen_probe(g, EA_OPERAND, size, false);
        access(g, LOAD, H_R11, size);
        emit_store(e, H_RSP, OFF(tmp), H_R11);
        gen_probe(g, EA_RDI, size, kind == MOVS);
        emit_load(e, H_R8, H_RSP, OFF(tmp));
    } else {
        gen_probe(g, EA_OPERAND, size, kind == STOS);
    }
    direction(g);
    gen_commit(g);
    access(g,
           kind == LODS                   ? LOAD
           : kind == MOVS || kind == STOS ? STORE
                                          : COMPARE,
           both ? H_R8 : H_RAX, size);
    if (both || kind == LODS)
        advance(g, H_RSI, size);
    if (kind != LODS)
        advance(g, H_RDI, size);
}
