/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of one instruction: a random instance of a form and a state that makes it interesting. */
#include <string.h>

#include <Zydis/Zydis.h>

#include "gen_insn.h"

void gen_state(struct rng *r, struct diff_case *c)
{
    struct diff_regs *s = &c->init;

    for (unsigned i = 0; i < 16; i++)
        s->gpr[i] = rnd_value(r);
    s->gpr[X86_RSP] = STACK_VA + 0x400 + (rnd_below(r, 0x800) & ~7u);
    if (rnd_percent(r, 4))
        s->gpr[X86_RSP] += rnd_below(r, 8);
    if (rnd_percent(r, 30))
        s->gpr[X86_RBP] = STACK_VA + 0x400 + (rnd_below(r, 0x800) & ~7u);
    s->rflags = RFLAGS_FIXED | RFLAGS_IF | (rnd(r) & RFLAGS_ARITH);
    if (rnd_percent(r, 20))
        s->rflags |= RFLAGS_DF;
    if (rnd_percent(r, 3) && !policy.paravirtual)
        s->rflags |= RFLAGS_NT;
    if (rnd_percent(r, 10))
        s->rflags |= RFLAGS_ID;
    for (unsigned i = 0; i < X86_NSEG; i++)
        s->sel[i] = c->mode == 64 && rnd_percent(r, 50) ? 0 : USER_DS;
    if (c->mode == 32 && !c->stream && rnd_percent(r, 4))
        s->sel[X86_DS + rnd_below(r, 3)] = 0; /* DS, FS or GS cannot be used then */
    s->sel[X86_SS] = USER_DS;
    s->sel[X86_CS] = c->mode == 64 ? USER_CS64 : USER_CS32;
    s->fs_base = rnd(r) & 0x0ffffff0;
    s->gs_base = rnd(r) & 0x0ffffff0;
    if (c->mode == 32) {
        for (unsigned i = 0; i < 8; i++)
            s->gpr[i] = (u32)s->gpr[i];
        for (unsigned i = 8; i < 16; i++)
            s->gpr[i] = 0; /* not visible, and not kept by every kernel */
    }
    xstate_random(r, s->xsave);
    c->image = (u8)rnd_below(r, MEM_IMAGES);
}

static void poke(struct diff_case *c, u64 va, u64 val)
{
    int off = mem_off(va), end = mem_off(va + 7);
    if (off < 0 || end != off + 7 || c->npokes == POKES_MAX)
        return;
    if (off < 0x3000 && end >= 0x2000) /* read-only page */
        return;
    c->poke[c->npokes].off = (u32)off;
    c->poke[c->npokes++].val = val;
}

static u64 addr_mask(const struct x86_insn *in)
{
    return size_mask(in->addrsize);
}

/* Garbage above the address size must not matter. */
static u64 dress(struct rng *r, const struct x86_insn *in, u64 v)
{
    if (in->mode == 64 && in->addrsize == 4 && rnd_percent(r, 50))
        return (v & 0xffffffff) | rnd(r) << 32;
    return in->mode == 32 ? (u32)v : v;
}

/* Sets registers or the displacement so that the instruction's memory operand is at `target`. */
static bool aim(struct rng *r, struct diff_case *c, struct x86_insn *in, u64 target)
{
    u64 *g = c->init.gpr, want = target, small = rnd_below(r, 64);

    if (in->mem.seg == X86_FS)
        want -= c->init.fs_base;
    if (in->mem.seg == X86_GS)
        want -= c->init.gs_base;
    if (in->mem.vsib) {
        u8 v[64];
        bool dwords = rnd_percent(r, 30);
        for (unsigned i = 0; i < 16; i++) {
            u32 e = rnd_percent(r, 95) ? rnd_below(r, 256) : (u32)rnd_value(r);
            if (!dwords && i % 2)
                e = 0;
            memcpy(v + 4 * i, &e, 4);
        }
        xstate_set_vec(c->init.xsave, in->mem.index, v);
        small = 0;
    }
    u8 base = in->mem.base, index = in->mem.vsib ? X86_NOREG : in->mem.index;
    if (base == X86_REG_RIP)
        return gen_patch(in, in->disp_off, 4, want - (c->init.rip + in->length));
    if (base == X86_NOREG && in->disp_size >= 2) {
        if (index != X86_NOREG)
            g[index] = dress(r, in, small);
        else
            small = 0;
        return gen_patch(in, in->disp_off, in->disp_size, want - small * in->mem.scale);
    }
    want -= (u64)in->mem.disp;
    if (base == X86_NOREG)
        return true;
    if (index == base) {
        g[base] = dress(r, in, want / (1u + in->mem.scale));
        return true;
    }
    if (index != X86_NOREG) {
        if (index == X86_RSP || rnd_percent(r, 70))
            g[index] = dress(r, in, small);
        want -= g[index] * in->mem.scale;
    }
    g[base] = dress(r, in, want & addr_mask(in));
    return true;
}

static bool gpr_operand(const struct x86_insn *in, unsigned n, u8 *reg)
{
    if (n >= in->nops || in->op[n].kind != X86_OP_GPR || in->op[n].high8)
        return false;
    *reg = in->op[n].reg;
    return true;
}

/* Selectors that mean the same to Linux's descriptor tables and to ours; never 78h, the CPU number.
 */
static u16 rnd_selector(struct rng *r)
{
    static const u16 sel[] = {0x00, 0x03, 0x08, 0x10, 0x18, 0x20, 0x23, 0x28,   0x2b,  0x30,
                              0x33, 0x38, 0x3b, 0x68, 0x6b, 0x04, 0x07, 0x1237, 0xfffc};
    if (rnd_percent(r, 60))
        return rnd_percent(r, 70) ? USER_DS : rnd_percent(r, 50) ? USER_CS64 : USER_CS32;
    return sel[rnd_below(r, ARRAY_SIZE(sel))];
}

/* Instructions that take a selector, or a far address, from a register, memory or the stack. */
static void season_selectors(struct rng *r, struct diff_case *c, const struct x86_insn *in,
                             u64 target)
{
    u64 *g = c->init.gpr, sel = rnd_selector(r), to = CODE_VA + rnd_below(r, CODE_SIZE);
    u64 w = in->opsize;

    for (unsigned i = 0; i < in->nops; i++)
        if (in->op[i].kind == X86_OP_GPR && in->op[i].read && !in->op[i].high8 &&
            in->op[i].reg != X86_RSP)
            g[in->op[i].reg] = (g[in->op[i].reg] & ~(u64)0xffff) | sel;
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_POP:
        poke(c, g[X86_RSP], sel | rnd(r) << 16);
        break;
    case ZYDIS_MNEMONIC_RET: /* far */
        poke(c, g[X86_RSP], to);
        poke(c, g[X86_RSP] + w, sel);
        break;
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ: {
        u8 frame[40] = {0};
        u64 fl = rnd(r) & ~(RFLAGS_TF | RFLAGS_AC | RFLAGS_VM), sp = STACK_TOP,
            ss = rnd_selector(r);
        memcpy(frame, &to, w);
        memcpy(frame + w, &sel, w);
        memcpy(frame + 2 * w, &fl, w);
        memcpy(frame + 3 * w, &sp, w);
        memcpy(frame + 4 * w, &ss, w);
        for (unsigned i = 0; i < 5 * w; i += 8) {
            u64 v;
            memcpy(&v, frame + i, 8);
            poke(c, g[X86_RSP] + i, v);
        }
        break;
    }
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL:
        poke(c, target, to);
        poke(c, target + w, sel);
        break;
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS:
        poke(c, target + w, sel);
        break;
    default:
        poke(c, target, sel | rnd(r) << 16);
        break;
    }
}

static bool takes_selector(const struct x86_insn *in)
{
    for (unsigned i = 0; i < in->nops; i++)
        if (in->op[i].kind == X86_OP_SEG)
            return true;
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS:
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
        return true;
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL:
        return in->opcode == 0xff && ((in->modrm >> 3 & 7) == 3 || (in->modrm >> 3 & 7) == 5);
    case ZYDIS_MNEMONIC_RET:
        return in->opcode == 0xca || in->opcode == 0xcb;
    default:
        return false;
    }
}

static bool vector_insn(const struct x86_insn *in)
{
    for (unsigned i = 0; i < in->nops; i++)
        if (in->op[i].kind == X86_OP_VEC || in->op[i].kind == X86_OP_MMX ||
            in->op[i].kind == X86_OP_MASK)
            return true;
    return false;
}

/* Values without which most instances of an instruction would only fault or do nothing. */
static void season(struct rng *r, struct diff_case *c, const struct x86_insn *in, u64 target)
{
    u64 *g = c->init.gpr;
    u8 reg;

    if (in->category == ZYDIS_CATEGORY_IOSTRINGOP) {
        /* Whether a count of 0 is looked at before IOPL is the CPU's. */
        g[X86_RCX] = 1 + rnd_below(r, 1000);
        return;
    }
    if (in->category == ZYDIS_CATEGORY_STRINGOP) {
        g[X86_RDI] = dress(r, in, gen_target(r, in->opsize));
        g[X86_RSI] = dress(r, in, gen_target(r, in->opsize));
        if (in->mem.seg == X86_FS && rnd_percent(r, 90))
            g[X86_RSI] = dress(r, in, gen_target(r, in->opsize) - c->init.fs_base);
        if (in->mem.seg == X86_GS && rnd_percent(r, 90))
            g[X86_RSI] = dress(r, in, gen_target(r, in->opsize) - c->init.gs_base);
        unsigned k = rnd_below(r, 10);
        if (k < 8)
            g[X86_RCX] = dress(r, in, rnd_below(r, 40));
        else if (k < 9)
            g[X86_RCX] = dress(r, in, rnd_below(r, 0x3000));
        return;
    }
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        if (gpr_operand(in, 1, &reg) && in->mem.present && rnd_percent(r, 85) &&
            reg != in->mem.base && reg != in->mem.index)
            g[reg] = (u64)rnd_below(r, 8192) - 4096;
        break;
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
        if (rnd_percent(r, 60))
            g[X86_RDX] = rnd_percent(r, 50) ? 0 : (u64)((s64)g[X86_RAX] >> 63);
        break;
    case ZYDIS_MNEMONIC_CMPXCHG:
        if (!rnd_percent(r, 50))
            break;
        if (in->mem.present)
            poke(c, target, g[X86_RAX]);
        else if (gpr_operand(in, 0, &reg) && reg != X86_RSP)
            g[reg] = g[X86_RAX];
        break;
    case ZYDIS_MNEMONIC_CMPXCHG8B:
        if (rnd_percent(r, 50))
            poke(c, target, (g[X86_RDX] << 32) | (u32)g[X86_RAX]);
        break;
    case ZYDIS_MNEMONIC_CMPXCHG16B:
        if (rnd_percent(r, 50)) {
            poke(c, target, g[X86_RAX]);
            poke(c, target + 8, g[X86_RDX]);
        }
        break;
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL: {
        u64 to = CODE_VA + rnd_below(r, CODE_SIZE);
        if (rnd_percent(r, 15))
            break;
        if (in->mem.present)
            poke(c, target, to);
        else if (gpr_operand(in, 0, &reg) && reg != X86_RSP)
            g[reg] = to;
        break;
    }
    case ZYDIS_MNEMONIC_RET:
        if (rnd_percent(r, 85))
            poke(c, g[X86_RSP], CODE_VA + rnd_below(r, CODE_SIZE));
        break;
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
        g[X86_RCX] = rnd_below(r, 3);
        break;
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
        if (rnd_percent(r, 80))
            poke(c, g[X86_RSP], rnd(r) & ~(u64)(rnd_percent(r, 70) ? RFLAGS_TF | RFLAGS_AC : 0));
        break;
    case ZYDIS_MNEMONIC_FLDCW:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FRSTOR:
        if (rnd_percent(r, 60))
            poke(c, target, 0xffff0000ffff037f);
        break;
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
        if (rnd_percent(r, 80))
            poke(c, target, rnd(r) & 0xffff);
        break;
    default:
        break;
    }
}

/*
 * Now and then one byte of the instruction is another: what the decoder does not know must be #UD
 * on the host too, and what it takes for something else must be that.
 */
static void mutate(struct rng *r, struct x86_insn *in)
{
    u8 b[X86_INSN_MAX];
    struct x86_insn m;
    enum x86_decode_result d;

    memset(b, CODE_FILL, sizeof(b));
    memcpy(b, in->bytes, in->length);
    if (rnd_percent(r, 50))
        b[rnd_below(r, in->length)] ^= (u8)(1u << rnd_below(r, 8));
    else
        b[rnd_below(r, in->length)] = (u8)rnd(r);
    d = x86_decode(&m, b, sizeof(b), in->mode, false);
    if (d == X86_DECODE_OK ? exclude_reason(&m) || m.category == ZYDIS_CATEGORY_IOSTRINGOP
                           : exclude_bytes(b, in->mode) != NULL)
        return;
    if (d == X86_DECODE_OK && m.length < in->length) /* no second instruction behind it */
        memset(b + m.length, CODE_FILL, (size_t)(in->length - m.length));
    memcpy(in->bytes, b, in->length);
}

bool gen_form_case(u64 seed, const struct form *f, struct diff_case *c)
{
    struct rng rng = {seed}, *r = &rng;
    struct x86_insn in;
    u64 target = 0;

    c->mode = f->mode;
    c->stream = 0;
    c->npokes = 0;
    c->seed = seed;
    gen_state(r, c);
    if (rnd_percent(r, 3))
        c->init.rflags |= RFLAGS_AC;
    if (rnd_percent(r, 3))
        c->init.rflags |= RFLAGS_TF;
    unsigned place = rnd_below(r, 100);
    c->code_off = place < 85   ? 0x400 + rnd_below(r, 0x800)
                  : place < 97 ? 0x1000 - rnd_below(r, 15)
                               : CODE_SIZE - 15;
    c->init.rip = CODE_VA + c->code_off;
    if (!gen_insn(r, f, NULL, &in))
        return false;
    if (place >= 97) { /* at or across the end of the code */
        c->code_off = CODE_SIZE - in.length + (rnd_percent(r, 50) ? rnd_below(r, in.length) : 0);
        c->init.rip = CODE_VA + c->code_off;
    }
    if (in.mem.present) {
        target = gen_target(r, in.mem.size / 8);
        /* AMD's CPUs want the offset canonical before FS or GS is added, too. */
        if (target >= BIT64(46) && (in.mem.seg == X86_FS || in.mem.seg == X86_GS))
            target = DATA_VA;
        /* A selector from the read-only page would be any: the host's own segments, too. */
        if (takes_selector(&in) && target + 16 > DATA_RO_VA && target < DATA_END)
            target -= 0x1000;
        if (in.mem.vsib) /* they may trap between elements */
            c->init.rflags &= ~RFLAGS_TF;
        if (!aim(r, c, &in, target))
            return false;
    }
    if (takes_selector(&in)) {
        c->init.rflags &= ~RFLAGS_AC; /* the order of #AC and others is the CPU's */
        season_selectors(r, c, &in, target);
    } else
        season(r, c, &in, target);
    if (in.imm_size && (in.op[0].kind == X86_OP_PTR)) {
        gen_patch(&in, in.imm_off, in.imm_size, CODE_VA + rnd_below(r, CODE_SIZE));
        gen_patch(&in, in.length - 2u, 2, rnd_selector(r));
    }
    /* Which vector accesses AC checks differs between vendors and from the manuals. */
    if (in.mnemonic == ZYDIS_MNEMONIC_ENTER || in.mem.size >= 128 || vector_insn(&in))
        c->init.rflags &= ~RFLAGS_AC;
    for (unsigned i = 0; i < 8 && c->mode == 32; i++)
        c->init.gpr[i] = (u32)c->init.gpr[i];
    if (exclude_reason(&in))
        return false;
    if (place < 97 && rnd_percent(r, 4)) /* whole: a CPU may refuse what it has not all read */
        mutate(r, &in);
    c->code_len = in.length;
    if (c->code_off + c->code_len > CODE_SIZE)
        c->code_len = CODE_SIZE - c->code_off;
    memcpy(c->code, in.bytes, in.length);
    return true;
}
