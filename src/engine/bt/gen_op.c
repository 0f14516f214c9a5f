/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instructions copied with their operands replaced: the memory operand becomes [r10] (the host
 * address), guest RSP becomes r9, and guest r8..r11 become scratch registers loaded before and
 * stored after.
 */
#include <Zydis/MetaInfo.h>
#include <Zydis/SharedTypes.h>

#include "engine/bt/gen.h"

enum field { F_REG, F_RM, F_OPCODE, F_VVVV, NFIELDS };

/* What stands in for a GPR field of the encoding. */
struct subst {
    bool used;
    u8 guest, host;
    bool load, store;
};

void gen_get(struct gen *g, unsigned dst, unsigned reg)
{
    if (gen_in_memory(reg))
        emit_load(&g->e, dst, H_RSP, 8 * (s32)reg);
    else
        emit_mov(&g->e, dst, gen_host(reg));
}

static int field_of(const struct x86_op *op)
{
    switch (op->enc) {
    case ZYDIS_OPERAND_ENCODING_MODRM_REG:
        return F_REG;
    case ZYDIS_OPERAND_ENCODING_MODRM_RM:
        return F_RM;
    case ZYDIS_OPERAND_ENCODING_OPCODE:
        return F_OPCODE;
    case ZYDIS_OPERAND_ENCODING_NDSNDD:
        return F_VVVV;
    default:
        return -1;
    }
}

/* Chooses host registers for the GPR fields. false: not possible. */
static bool choose(struct gen *g, struct subst *s)
{
    static const u8 outside[] = {H_R11, H_R8, H_R10}, inside[] = {H_R11, H_R10};
    const struct x86_insn *in = g->insn;
    const u8 *scratch = g->item->in_group ? inside : outside;
    unsigned nscratch = g->item->in_group ? 2 : 3, used = 0;
    bool high8 = false, rex = in->mem.present;

    if (in->mem.present && !in->mem.agen && !g->item->grouped)
        nscratch--; /* r10 holds the address */

    for (unsigned i = 0; i < in->nops; i++) {
        const struct x86_op *op = &in->op[i];
        unsigned j;
        int f;

        if (op->kind != X86_OP_GPR)
            continue;
        if (op->high8) {
            high8 = true;
            continue;
        }
        f = field_of(op);
        if (f < 0) {
            if (op->reg == X86_RSP || gen_in_memory(op->reg))
                return false;
            continue;
        }
        s[f].used = true;
        s[f].guest = op->reg;
        if (!gen_in_memory(op->reg)) {
            s[f].host = (u8)gen_host(op->reg);
            rex |= op->reg == X86_RSP;
            continue;
        }
        rex = true;
        /* A conditional write keeps the old value: CMOVcc, and BSF and BSR of zero on real CPUs. */
        s[f].load = op->read || op->size < 32 || in->category == ZYDIS_CATEGORY_CMOV ||
                    in->mnemonic == ZYDIS_MNEMONIC_BSF || in->mnemonic == ZYDIS_MNEMONIC_BSR;
        s[f].store = op->write;
        /* The same guest register in two fields shares one scratch register. */
        for (j = 0; j < NFIELDS; j++)
            if ((int)j != f && s[j].used && s[j].guest == op->reg)
                break;
        if (j < NFIELDS) {
            s[f].host = s[j].host;
            s[j].load |= s[f].load;
            s[j].store |= s[f].store;
            s[f].load = s[f].store = false;
            continue;
        }
        if (used == nscratch)
            return false;
        s[f].host = scratch[used++];
    }
    return !(high8 && rex);
}

/* Offset of the first opcode byte (escape bytes included) of a legacy instruction. REX bytes may
 * stand anywhere among the prefixes and more than once; only one right before the opcode counts. */
static unsigned opcode_start(const struct x86_insn *in)
{
    unsigned i = 0;

    for (; i < in->length; i++) {
        u8 b = in->bytes[i];

        if (b != 0x66 && b != 0x67 && b != 0xf0 && b != 0xf2 && b != 0xf3 && b != 0x2e &&
            b != 0x36 && b != 0x3e && b != 0x26 && b != 0x64 && b != 0x65 &&
            !(in->mode == 64 && (b & 0xf0) == 0x40))
            break;
    }
    return i;
}

/*
 * Prefixes that keep their meaning: operand size, lock, repeat or mandatory. F2 and F3 on locked
 * instructions and on one-byte opcodes are at most the hints XACQUIRE and XRELEASE (SDM 1 16.3.2):
 * the guest is shown no transactions and must not begin one of ours.
 */
static void emit_prefixes(struct emit *e, const struct x86_insn *in, unsigned end)
{
    bool hint = (in->prefixes & X86_PFX_LOCK) || in->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT;

    for (unsigned i = 0; i < end; i++) {
        u8 b = in->bytes[i];

        if (b == 0x66 || b == 0xf0 || (!hint && (b == 0xf2 || b == 0xf3)))
            emit8(e, b);
    }
}

/* How the memory operand is encoded. */
enum mem { MEM_NONE, MEM_R10, MEM_STACK /* [r9 + r8 + disp32] */ };

static void emit_modrm(struct emit *e, const struct x86_insn *in, const struct subst *s,
                       enum mem mem)
{
    unsigned reg = (in->modrm >> 3) & 7, rm = in->modrm & 7, mod = in->modrm >> 6;

    if (s[F_REG].used)
        reg = s[F_REG].host & 7;
    if (mem == MEM_R10) {
        mod = 0;
        rm = H_R10 & 7;
    } else if (mem == MEM_STACK) {
        mod = 2;
        rm = 4;
    } else if (s[F_RM].used) {
        rm = s[F_RM].host & 7;
    }
    emit8(e, mod << 6 | reg << 3 | rm);
    if (mem == MEM_STACK) {
        emit8(e, (H_R8 & 7) << 3 | (H_R9 & 7));
        emit32(e, (u32)in->mem.disp);
    }
}

static void emit_legacy(struct gen *g, const struct subst *s, enum mem mem)
{
    const struct x86_insn *in = g->insn;
    struct emit *e = &g->e;
    unsigned op = opcode_start(in), rex = in->rex & 0x0f, last;
    unsigned rest = in->imm_off ? in->imm_off : in->length;
    bool force = in->rex != 0;

    last = op;
    if (in->opcode_map == ZYDIS_OPCODE_MAP_0F)
        last = op + 1;
    else if (in->opcode_map == ZYDIS_OPCODE_MAP_0F38 || in->opcode_map == ZYDIS_OPCODE_MAP_0F3A)
        last = op + 2;
    if (s[F_REG].used)
        rex = (rex & ~4u) | (unsigned)(s[F_REG].host >> 3) << 2;
    if (mem)
        rex = (rex & ~3u) | (mem == MEM_STACK ? 3 : 1);
    else if (s[F_RM].used)
        rex = (rex & ~3u) | s[F_RM].host >> 3;
    if (s[F_OPCODE].used)
        rex = (rex & ~1u) | s[F_OPCODE].host >> 3;
    emit_prefixes(e, in, op);
    if (rex || force)
        emit8(e, 0x40 | rex);
    emit_bytes(e, in->bytes + op, last - op);
    if (s[F_OPCODE].used)
        emit8(e, (in->bytes[last] & ~7u) | (s[F_OPCODE].host & 7));
    else if (in->mode == 32 && in->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && in->opcode == 0x82)
        emit8(e, 0x80); /* its alias, which 64-bit mode does not have */
    else
        emit8(e, in->bytes[last]);
    if (in->has_modrm)
        emit_modrm(e, in, s, mem);
    emit_bytes(e, in->bytes + rest, in->length - rest);
}

/* VEX.W and EVEX.W make no operand a 64-bit integer outside 64-bit mode. */
static bool drop_w(const struct x86_insn *in)
{
    if (in->mode == 64)
        return false;
    if (in->mem.present && in->mem.size == 32)
        return true;
    for (unsigned i = 0; i < in->nops; i++)
        if (in->op[i].kind == X86_OP_GPR)
            return true;
    return false;
}

/* Is the immediate's high nibble a register number? */
static bool has_is4(const struct x86_insn *in)
{
    for (unsigned i = 0; i < in->nops; i++)
        if (in->op[i].enc == ZYDIS_OPERAND_ENCODING_IS4)
            return true;
    return false;
}

/* Always in the three-byte form: the two-byte one has no B. */
static void emit_vex(struct gen *g, const struct subst *s, enum mem mem)
{
    const struct x86_insn *in = g->insn;
    struct emit *e = &g->e;
    const u8 *v = in->bytes + in->vex_off;
    unsigned p1, p2, rest = in->imm_off ? in->imm_off : in->length;

    if (v[0] == 0xc5) {
        p1 = (v[1] & 0x80) | 0x60 | 1;
        p2 = v[1] & 0x7f;
    } else {
        p1 = v[1];
        p2 = v[2];
    }
    if (in->mode == 32) {
        /* The high bits of register numbers are ignored there. */
        p1 |= 0xe0;
        p2 |= 0x40;
    }
    if (s[F_REG].used)
        p1 = (p1 & ~0x80u) | (s[F_REG].host & 8 ? 0 : 0x80);
    if (mem)
        p1 = (p1 & ~0x60u) | (mem == MEM_STACK ? 0 : 0x40);
    else if (s[F_RM].used)
        p1 = (p1 & ~0x60u) | 0x40 | (s[F_RM].host & 8 ? 0 : 0x20);
    if (s[F_VVVV].used)
        p2 = (p2 & ~0x78u) | (~(unsigned)s[F_VVVV].host & 15) << 3;
    if (drop_w(in))
        p2 &= 0x7f;
    emit8(e, 0xc4);
    emit8(e, p1);
    emit8(e, p2);
    emit8(e, in->opcode);
    if (in->has_modrm)
        emit_modrm(e, in, s, mem);
    if (in->mode == 32 && rest < in->length && has_is4(in))
        emit8(e, in->bytes[rest] & 0x7f);
    else
        emit_bytes(e, in->bytes + rest, in->length - rest);
}

static void emit_evex(struct gen *g, const struct subst *s, enum mem mem)
{
    const struct x86_insn *in = g->insn;
    struct emit *e = &g->e;
    const u8 *v = in->bytes + in->vex_off;
    unsigned p0 = v[1], p1 = v[2], p2 = v[3], rest = in->imm_off ? in->imm_off : in->length;

    if (in->mode == 32) {
        p0 |= 0xf0;
        p1 |= 0x40;
        p2 |= 0x08;
    }
    if (s[F_REG].used)
        p0 = (p0 & ~0x90u) | 0x10 | (s[F_REG].host & 8 ? 0 : 0x80);
    if (mem)
        p0 = (p0 & ~0x60u) | (mem == MEM_STACK ? 0 : 0x40);
    else if (s[F_RM].used)
        p0 = (p0 & ~0x60u) | 0x40 | (s[F_RM].host & 8 ? 0 : 0x20);
    if (s[F_VVVV].used)
        p1 = (p1 & ~0x78u) | (~(unsigned)s[F_VVVV].host & 15) << 3;
    if (drop_w(in))
        p1 &= 0x7f;
    emit8(e, 0x62);
    emit8(e, p0);
    emit8(e, p1);
    emit8(e, p2);
    emit8(e, in->opcode);
    emit_modrm(e, in, s, mem);
    emit_bytes(e, in->bytes + rest, in->length - rest);
}

/* The one-byte INC and DEC (40..4F), which are REX prefixes to the host, in their modrm form. */
static void emit_inc_dec(struct gen *g, const struct subst *s)
{
    const struct x86_insn *in = g->insn;

    emit_prefixes(&g->e, in, opcode_start(in));
    emit_rex(&g->e, false, 0, 0, s[F_OPCODE].host);
    emit8(&g->e, 0xff);
    emit8(&g->e, 0xc0u | (in->opcode & 8) | (s[F_OPCODE].host & 7));
}

/* MOV between the accumulator and an absolute address (A0..A3): as the modrm form. */
static void emit_moffs(struct gen *g)
{
    const struct x86_insn *in = g->insn;
    bool load = !(in->opcode & 2);

    emit_prefixes(&g->e, in, opcode_start(in));
    emit8(&g->e, 0x41 | (in->rex & 8));
    emit8(&g->e, (load ? 0x8au : 0x88u) | (in->opcode & 1));
    emit8(&g->e, 0x02);
}

static bool replaced(const struct subst *s)
{
    for (unsigned f = 0; f < NFIELDS; f++)
        if (s[f].used && s[f].guest != s[f].host)
            return true;
    return false;
}

/*
 * The limits of gen_generic, known before stack groups are formed: an instruction in a group must
 * not turn into a call of C, which would leave r8 to the accesses after it.
 */
bool gen_generic_fits(const struct x86_insn *in)
{
    bool mem = in->mem.present && !in->mem.agen, high8 = false, rex = in->mem.present;
    u8 seen = 0;

    if (mem) {
        bool modrm = in->has_modrm && in->modrm < 0xc0;

        if (in->mem.vsib || !in->mem.size || in->mem.size > 512 || in->mem.size % 8)
            return false;
        if (!modrm)
            return in->encoding == X86_ENC_LEGACY && in->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
                   in->opcode >= 0xa0 && in->opcode <= 0xa3;
    }
    for (unsigned i = 0; i < in->nops; i++) {
        const struct x86_op *op = &in->op[i];

        if (op->kind != X86_OP_GPR)
            continue;
        if (op->high8)
            high8 = true;
        else if (field_of(op) < 0 && (op->reg == X86_RSP || gen_in_memory(op->reg)))
            return false;
        else if (op->reg == X86_RSP || gen_in_memory(op->reg))
            rex = true;
        if (gen_in_memory(op->reg) && !op->high8)
            seen |= (u8)(1u << (op->reg - X86_R8));
    }
    return !(high8 && rex) && __builtin_popcount(seen) <= (mem ? 2 : 3);
}

bool gen_generic(struct gen *g)
{
    const struct x86_insn *in = g->insn;
    struct subst s[NFIELDS];
    bool mem = in->mem.present && !in->mem.agen;
    bool moffs = mem && !(in->has_modrm && in->modrm < 0xc0);
    bool write = false;
    enum mem how = MEM_NONE;

    memset(s, 0, sizeof(s));
    if (mem) {
        if (in->mem.vsib || !in->mem.size || in->mem.size > 512 || in->mem.size % 8)
            return false;
        if (moffs &&
            !(in->encoding == X86_ENC_LEGACY && in->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
              in->opcode >= 0xa0 && in->opcode <= 0xa3))
            return false;
        for (unsigned i = 0; i < in->nops; i++)
            if (in->op[i].kind == X86_OP_MEM)
                write |= in->op[i].write;
    }
    if (!moffs && !choose(g, s))
        return false;
    if (mem && g->item->grouped) {
        how = MEM_STACK;
    } else if (mem) {
        gen_probe(g, EA_OPERAND, in->mem.size / 8, write);
        how = MEM_R10;
    }
    for (unsigned f = 0; f < NFIELDS; f++)
        if (s[f].load)
            emit_load(&g->e, s[f].host, H_RSP, 8 * s[f].guest);
    gen_commit(g);
    if (in->mode == 32 && in->encoding == X86_ENC_LEGACY &&
        in->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && (in->opcode & 0xf0) == 0x40)
        emit_inc_dec(g, s);
    else if (how == MEM_NONE && !replaced(s) && in->mode == 64)
        emit_bytes(&g->e, in->bytes, in->length);
    else if (moffs)
        emit_moffs(g);
    else if (in->encoding == X86_ENC_VEX)
        emit_vex(g, s, how);
    else if (in->encoding == X86_ENC_EVEX)
        emit_evex(g, s, how);
    else
        emit_legacy(g, s, how);
    for (unsigned f = 0; f < NFIELDS; f++)
        if (s[f].store)
            emit_store(&g->e, H_RSP, 8 * s[f].guest, s[f].host);
    return true;
}

void gen_lea(struct gen *g)
{
    const struct x86_insn *in = g->insn;
    unsigned dst = in->op[0].reg;
    bool narrow = in->opsize == 4 && in->addrsize == 8;

    /* A 32-bit destination of a 64-bit address: the low half of it, which mov r32 takes. */
    if (gen_in_memory(dst) || narrow) {
        gen_ea(g, H_R11, false);
        if (narrow)
            EMIT(&g->e, 0x45, 0x89, 0xdb); /* mov r11d, r11d */
        gen_commit(g);
        if (gen_in_memory(dst))
            emit_store(&g->e, H_RSP, 8 * (s32)dst, H_R11);
        else
            emit_mov(&g->e, gen_host(dst), H_R11);
        return;
    }
    gen_ea(g, gen_host(dst), false);
}
