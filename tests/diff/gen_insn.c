/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include <Zydis/Zydis.h>

#include "gen_insn.h"

static u8 pick_bit(struct rng *r, unsigned mask)
{
    unsigned n = (unsigned)__builtin_popcount(mask), k = rnd_below(r, n ? n : 1);
    for (u8 i = 0; i < 16; i++)
        if (mask >> i & 1 && k-- == 0)
            return i;
    return 0;
}

u64 gen_target(struct rng *r, unsigned size)
{
    unsigned k = rnd_below(r, 100), s = size ? size : 1, back = s > 1 ? 1 + rnd_below(r, s - 1) : 0;
    u64 t;

    if (k < 62) {
        t = DATA_VA + rnd_below(r, 0x2000 - 64);
        if (rnd_percent(r, 70))
            t &= ~(u64)63;
        return t;
    }
    if (k < 70)
        return (STACK_VA + rnd_below(r, STACK_SIZE - 64)) & ~(u64)(rnd_percent(r, 60) ? 63 : 0);
    if (k < 76)
        return DATA_VA + 0x1000 - back;
    if (k < 82)
        return DATA_RO_VA - back;
    if (k < 87)
        return (DATA_RO_VA + rnd_below(r, 0x1000 - 64)) & ~(u64)(rnd_percent(r, 60) ? 63 : 0);
    if (k < 90)
        return DATA_END - back;
    if (k < 94)
        return DATA2_VA + 0x1000 - (rnd_percent(r, 50) ? s : back);
    if (k < 95)
        return DATA_VA - back;
    if (k < 97)
        return DATA2_VA;
    return rnd_value(r);
}

bool gen_patch(struct x86_insn *insn, unsigned off, unsigned size, u64 v)
{
    u8 b[X86_INSN_MAX] = {0};
    memcpy(b, insn->bytes, insn->length);
    memcpy(b + off, &v, size);
    return x86_decode(insn, b, insn->length, insn->mode, false) == X86_DECODE_OK;
}

void gen_immediates(struct rng *r, struct x86_insn *insn)
{
    bool rel = false;
    u64 v;

    if (!insn->imm_size || !insn->imm_off)
        return;
    for (unsigned i = 0; i < insn->nops; i++)
        rel |= insn->op[i].kind == X86_OP_REL;
    if (rel && !rnd_percent(r, 5))
        v = (u64)rnd_below(r, 200) - 100;
    else
        v = rnd_value(r);
    gen_patch(insn, insn->imm_off, insn->imm_size, v);
}

static void random_fields(struct rng *r, const struct form *f, const struct roles *roles,
                          struct enc_fields *e, unsigned attempt)
{
    unsigned ext = f->enc == X86_ENC_EVEX ? 4 : 2; /* register numbers: 3 bits times this */
    bool timid = attempt >= 12;

    if (f->mode == 32 || timid)
        ext = 1;
    memset(e, 0, sizeof(*e));
    e->reg = (u8)(pick_bit(r, f->reg_mask) + 8 * rnd_below(r, ext));
    e->rm = (u8)(pick_bit(r, f->rm_mask) + 8 * rnd_below(r, ext));
    e->vvvv = timid || rnd_percent(r, 20) ? 0 : (u8)rnd_below(r, ext * 8);
    e->aaa = (u8)(f->enc != X86_ENC_EVEX        ? 0
                  : f->need_mask                ? 1 + rnd_below(r, 7)
                  : timid || rnd_percent(r, 40) ? 0
                                                : rnd_below(r, 8));
    e->z = e->aaa && !timid && rnd_percent(r, 40);
    e->vex2 = rnd_percent(r, 50);
    e->v5 = rnd_percent(r, 50);
    e->rex_force = !timid && rnd_percent(r, 15);
    for (unsigned i = 0; i < sizeof(e->tail); i++)
        e->tail[i] = (u8)rnd(r);

    unsigned nregs = f->mode == 64 ? 16 : 8;
    e->index = 4;
    if (roles) {
        e->base = pick_bit(r, roles->pointers);
        e->mod = rnd_percent(r, 70) ? 1 : 2;
        if (rnd_percent(r, 30)) {
            e->use_sib = 1;
            e->index = pick_bit(r, roles->index);
            e->scale = (u8)rnd_below(r, 4);
        }
        if (e->mod == 2) { /* displacement -256..767; for EVEX disp8 the scale does the rest */
            u32 d = rnd_below(r, 1024) - 256u;
            memcpy(e->tail, &d, 4);
        }
    } else {
        e->base = (u8)rnd_below(r, nregs);
        e->mod = (u8)rnd_below(r, 3);
        e->use_sib = rnd_percent(r, 40) || f->need_mask;
        if (rnd_percent(r, 80))
            e->index = (u8)rnd_below(r, nregs);
        e->scale = (u8)rnd_below(r, 4);
    }
    if (rnd_percent(r, 8)) {
        e->rip = 1;
        e->mod = 0;
    }
    if (timid)
        return;
    if (!roles && rnd_percent(r, 8))
        e->pfx_seg = rnd_percent(r, 50) ? 0x64 : 0x65;
    else if (rnd_percent(r, 2))
        e->pfx_seg = (u8)(0x26 + 8 * rnd_below(r, 4));
    if (!roles && rnd_percent(r, 6))
        e->pfx_67 = 1;
    if (f->enc == X86_ENC_LEGACY) {
        if (!f->modreg && rnd_percent(r, 10))
            e->pfx_lock = 1;
        if (f->pp >= 2 && rnd_percent(r, 15))
            e->pfx_66 = 1;
    }
}

bool gen_insn(struct rng *r, const struct form *f, const struct roles *roles, struct x86_insn *insn)
{
    for (unsigned attempt = 0; attempt < 20; attempt++) {
        struct enc_fields e;
        u8 buf[32];

        random_fields(r, f, roles, &e, attempt);
        encode(f, &e, buf);
        if (x86_decode(insn, buf, X86_INSN_MAX, f->mode, false) != X86_DECODE_OK ||
            insn->mnemonic != f->mnemonic || insn->encoding != f->enc || exclude_reason(insn))
            continue;
        gen_immediates(r, insn);
        if (exclude_reason(insn))
            continue;
        return true;
    }
    return false;
}
