/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stack groups: consecutive accesses at known distances from RSP share one check. It compares the
 * whole range with the window's stack cell (the page the stack was last seen in) and leaves in r8
 * what to add to a stack address to get the host's; the accesses themselves are then [r9 + r8 +
 * disp]. Where the range straddles pages, the rest of the block runs in a twin without groups
 * (BT_MODE_NOGROUP).
 */
#include <Zydis/SharedTypes.h>

#include "engine/bt/gen.h"

/* Farther from RSP than this an access is checked on its own. */
#define REACH 1024

struct effect {
    bool breaks; /* cannot be inside a group: needs r8, or calls C */
    bool access;
    bool write;
    bool unknown; /* RSP afterwards is not known */
    s32 off;      /* of the access, from RSP before the instruction */
    s32 size;
    s32 delta; /* RSP after less RSP before */
};

/* Distinct guest registers among the explicit operands that live in memory. */
static unsigned memory_regs(const struct x86_insn *in)
{
    u8 seen = 0;

    for (unsigned i = 0; i < in->nops; i++)
        if (in->op[i].kind == X86_OP_GPR && gen_in_memory(in->op[i].reg))
            seen |= (u8)(1u << (in->op[i].reg - X86_R8));
    return (unsigned)__builtin_popcount(seen);
}

static bool rsp_relative(const struct x86_insn *in)
{
    return in->mem.present && !in->mem.agen && in->mem.base == X86_RSP &&
           in->mem.index == X86_NOREG && in->addrsize == in->mode / 8 && in->mem.seg != X86_FS &&
           in->mem.seg != X86_GS && in->has_modrm && in->modrm < 0xc0 && in->mem.disp > -REACH &&
           in->mem.disp < REACH && in->mem.size && in->mem.size <= 512 && in->mem.size % 8 == 0;
}

static void rsp_change(const struct x86_insn *in, struct effect *f)
{
    bool written = false;

    for (unsigned i = 0; i < in->nops; i++)
        if (in->op[i].kind == X86_OP_GPR && in->op[i].reg == X86_RSP && in->op[i].write &&
            !in->op[i].high8)
            written = true;
    if (!written)
        return;
    if ((in->mnemonic == ZYDIS_MNEMONIC_ADD || in->mnemonic == ZYDIS_MNEMONIC_SUB) &&
        in->op[0].kind == X86_OP_GPR && in->op[1].kind == X86_OP_IMM &&
        in->opsize == in->mode / 8 && (s64)in->imm[0] > -REACH && (s64)in->imm[0] < REACH) {
        f->delta = in->mnemonic == ZYDIS_MNEMONIC_ADD ? (s32)in->imm[0] : -(s32)in->imm[0];
        return;
    }
    if (in->mnemonic == ZYDIS_MNEMONIC_LEA && in->opsize == in->mode / 8 &&
        in->addrsize == in->mode / 8 && in->mem.base == X86_RSP && in->mem.index == X86_NOREG &&
        in->mem.disp > -REACH && in->mem.disp < REACH) {
        f->delta = (s32)in->mem.disp;
        return;
    }
    f->unknown = true;
}

static struct effect flow_effect(const struct x86_insn *in)
{
    struct effect f = {0};

    s32 word = in->mode / 8;

    f.breaks = in->opsize != word || gen_is_far(in);
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
        f.access = f.write = true;
        f.off = f.delta = -word;
        f.breaks |= in->op[0].kind == X86_OP_SEG;
        break;
    case ZYDIS_MNEMONIC_POP:
        f.access = true;
        f.delta = word;
        f.breaks |= in->op[0].kind != X86_OP_GPR;
        f.unknown = in->op[0].kind == X86_OP_GPR && in->op[0].reg == X86_RSP;
        break;
    case ZYDIS_MNEMONIC_CALL:
        f.access = f.write = true;
        f.off = -word;
        f.breaks |= in->op[0].kind == X86_OP_PTR;
        break;
    case ZYDIS_MNEMONIC_RET:
        f.access = true;
        break;
    case ZYDIS_MNEMONIC_LEAVE:
        f.unknown = true;
        break;
    default:
        f.breaks = true; /* a branch ends the block anyway; PUSHF, POPF and the like call C */
        break;
    }
    f.size = word;
    return f;
}

static struct effect effect_of(const struct item *it)
{
    const struct x86_insn *in = &it->insn;
    struct effect f = {0};

    switch (it->kind) {
    case KIND_SKIP:
        return f;
    case KIND_FLOW:
        return flow_effect(in);
    case KIND_LEA:
        rsp_change(in, &f);
        return f;
    case KIND_GENERIC:
        rsp_change(in, &f);
        if (rsp_relative(in)) {
            f.access = true;
            f.off = (s32)in->mem.disp;
            f.size = in->mem.size / 8;
            for (unsigned i = 0; i < in->nops; i++)
                f.write |= in->op[i].kind == X86_OP_MEM && in->op[i].write;
            f.breaks = memory_regs(in) > 2;
        } else {
            f.breaks = memory_regs(in) > (in->mem.present && !in->mem.agen ? 1 : 2);
        }
        return f;
    default:
        f.breaks = true;
        return f;
    }
}

/* One group starting at items[i] at the earliest. Returns where the next may start. */
static unsigned find_group(struct item *items, unsigned i, unsigned n)
{
    s32 delta[BT_BLOCK_INSNS], d = 0, lo = 0, hi = 0;
    unsigned j, first = n, place;
    bool write = false;

    for (j = i; j < n; j++) {
        struct effect f = effect_of(&items[j]);

        if (f.breaks)
            break;
        delta[j - i] = d;
        if (f.access) {
            s32 a = d + f.off, b = a + f.size;

            if (first == n) {
                first = j;
                lo = a;
                hi = b;
            } else if ((b > hi ? b : hi) - (a < lo ? a : lo) > REACH) {
                break;
            } else {
                lo = a < lo ? a : lo;
                hi = b > hi ? b : hi;
            }
            items[j].grouped = true;
            write |= f.write;
        }
        d += f.delta;
        if (f.unknown) {
            j++;
            break;
        }
    }
    if (first == n)
        return j == i ? i + 1 : j;
    /* As late as possible where the check may destroy the flags. */
    for (place = first; place > i && items[place].keep_flags; place--)
        ;
    if (items[place].keep_flags)
        place = first;
    items[place].check = true;
    items[place].check_write = write;
    items[place].check_lo = lo - delta[place - i];
    items[place].check_size = hi - lo;
    for (unsigned k = place; k < j; k++)
        items[k].in_group = true;
    return j == i ? i + 1 : j;
}

void gen_find_groups(struct item *items, unsigned n)
{
    for (unsigned i = 0; i < n;)
        i = find_group(items, i, n);
}
