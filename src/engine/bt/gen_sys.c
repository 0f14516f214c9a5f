/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System instructions frequent enough in kernels to be done in place. None of them may disturb the
 * arithmetic flags, so bits of env->s.rflags are changed with PEXT, PDEP and LEA.
 */
#include <Zydis/SharedTypes.h>

#include "engine/bt/gen.h"

#define OFF(field) ((s32)offsetof(struct bt_env, field))

/* op r11d, r11d, [rsp + off] with op PEXT (pp F3) or PDEP (F2). */
static void bits_op(struct emit *e, bool deposit, s32 off)
{
    emit8(e, 0xc4);
    emit8(e, 0x62);
    emit8(e, deposit ? 0x23 : 0x22);
    EMIT(e, 0xf5, 0x9c, 0x24);
    emit32(e, (u32)off);
}

static void load_byte(struct emit *e, s32 off)
{
    EMIT(e, 0x44, 0x0f, 0xb6, 0x9c, 0x24); /* movzx r11d, byte [rsp + off] */
    emit32(e, (u32)off);
}

static void store_byte(struct emit *e, s32 off)
{
    EMIT(e, 0x44, 0x88, 0x9c, 0x24); /* mov [rsp + off], r11b */
    emit32(e, (u32)off);
}

/* Clears, or sets, the bit of byte `off` that `keep` (an env constant, the byte's other bits)
 * leaves out. */
static void change_bit(struct gen *g, s32 off, s32 keep, unsigned set)
{
    struct emit *e = &g->e;

    load_byte(e, off);
    bits_op(e, false, keep);
    bits_op(e, true, keep);
    if (set)
        emit_lea(e, H_R11, H_R11, (s32)set);
    store_byte(e, off);
}

/* PUSHFQ, or PUSHFD in 32-bit code. */
static void gen_pushf(struct gen *g)
{
    struct emit *e = &g->e;
    bool w = g->word == 8;

    EMIT(e, 0x9c, 0x41, 0x5b); /* pushfq; pop r11: through the bytes below the window */
    bits_op(e, false, OFF(arith_mask));
    bits_op(e, true, OFF(arith_mask));
    emit_load(e, H_R10, H_RSP, OFF(s.rflags)); /* arithmetic bits are clear there */
    EMIT(e, 0x4f, 0x8d, 0x1c, 0x13);           /* lea r11, [r11 + r10] */
    emit_store(e, H_RSP, OFF(tmp), H_R11);
    gen_probe(g, EA_PUSH, g->word, true);
    emit_load(e, H_R11, H_RSP, OFF(tmp));
    emit_op_mem(e, w, 0x89, H_R11, H_R10, 0);
    gen_commit(g);
    emit_op_mem(e, w, 0x8d, H_R9, H_R9, -(s32)g->word);
}

/*
 * sti_probe is NULL while an interrupt may be deliverable: reading through it then faults, and the
 * interpreter does the STI with all that follows from it. That keeps a branch, and so the flags,
 * out of the usual case.
 */
static void gen_sti(struct gen *g)
{
    struct emit *e = &g->e;

    emit_load(e, H_R11, H_RSP, OFF(sti_probe));
    EMIT(e, 0x45, 0x0f, 0xb6, 0x1b); /* movzx r11d, byte [r11] */
    change_bit(g, OFF(s.rflags) + 1, OFF(keep_if), 2);
    g->shadow_next = true;
}

/* MOV from a segment register: the selector, zero-extended to the register (SDM 2B MOV). */
static void gen_mov_from_seg(struct gen *g)
{
    struct emit *e = &g->e;
    unsigned dst = g->insn->op[0].reg;
    unsigned host = gen_in_memory(dst) ? H_R11 : gen_host(dst);

    /* movzx host32, word [rsp + sel] */
    gen_commit(g);
    emit_rex(e, false, host, 0, H_RSP);
    EMIT(e, 0x0f, 0xb7);
    emit8(e, 0x84 | (host & 7) << 3);
    emit8(e, 0x24);
    emit32(e, (u32)OFF(s.seg[g->insn->op[1].reg].sel));
    if (gen_in_memory(dst))
        emit_store(e, H_RSP, 8 * (s32)dst, H_R11);
}

static void gen_swapgs(struct gen *g)
{
    struct emit *e = &g->e;

    emit_load(e, H_R10, H_RSP, OFF(s.seg[X86_GS].base));
    emit_load(e, H_R11, H_RSP, OFF(s.kernel_gs_base));
    gen_commit(g);
    emit_store(e, H_RSP, OFF(s.seg[X86_GS].base), H_R11);
    emit_store(e, H_RSP, OFF(s.kernel_gs_base), H_R10);
}

/* RAX and RDX are results only, so an interrupted attempt is simply repeated. */
static void gen_rdtsc(struct gen *g)
{
    struct emit *e = &g->e;

    EMIT(e, 0x0f, 0x31);
    emit_mov_imm(e, H_R11, 32);
    EMIT(e, 0xc4, 0xe2, 0xa1, 0xf7, 0xd2); /* shlx rdx, rdx, r11 */
    EMIT(e, 0x48, 0x8d, 0x04, 0x10);       /* lea rax, [rax + rdx] */
    emit_load(e, H_R10, H_RSP, OFF(s.tsc_offset));
    EMIT(e, 0x4a, 0x8d, 0x04, 0x10);       /* lea rax, [rax + r10] */
    EMIT(e, 0xc4, 0xe2, 0xa3, 0xf7, 0xd0); /* shrx rdx, rax, r11 */
    EMIT(e, 0x89, 0xc0);                   /* mov eax, eax */
    if (g->insn->mnemonic == ZYDIS_MNEMONIC_RDTSCP)
        emit_op_mem(e, false, 0x8b, H_RCX, H_RSP, OFF(s.tsc_aux));
}

/* EFLAGS.AC decides the window in the kernel (SDM 3A 4.6): both change together. */
static void gen_ac(struct gen *g, bool set)
{
    struct emit *e = &g->e;
    unsigned cls = set ? BT_KERNEL_AC : BT_KERNEL;

    change_bit(g, OFF(s.rflags) + 2, OFF(keep_ac), set ? 4 : 0);
    emit_op_mem(e, false, 0xc6, 0, H_RSP, OFF(cls));
    emit8(e, cls);
    emit_load(e, H_R11, H_RSP, OFF(win[cls]));
    emit_store(e, H_RSP, OFF(window), H_R11);
    emit_mov(e, H_RSP, H_R11);
}

bool gen_sys_inline(const struct x86_insn *in, u32 mode)
{
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_PUSHFQ:
        return in->opsize == 8;
    case ZYDIS_MNEMONIC_PUSHFD:
        return in->mode == 32;
    case ZYDIS_MNEMONIC_CLD:
    case ZYDIS_MNEMONIC_STD:
        return true;
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
    case ZYDIS_MNEMONIC_SWAPGS:
        return mode & BT_MODE_CPL0;
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
        return mode & BT_MODE_RDTSC;
    case ZYDIS_MNEMONIC_MOV:
        return in->op[0].kind == X86_OP_GPR && in->op[1].kind == X86_OP_SEG && in->opsize >= 4;
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_CLAC:
        return (mode & BT_MODE_CPL0) && (mode & BT_MODE_SMAP);
    default:
        return false;
    }
}

bool gen_sys(struct gen *g, bool last)
{
    switch (g->insn->mnemonic) {
    case ZYDIS_MNEMONIC_PUSHFQ:
    case ZYDIS_MNEMONIC_PUSHFD:
        gen_pushf(g);
        return true;
    case ZYDIS_MNEMONIC_CLI:
        change_bit(g, OFF(s.rflags) + 1, OFF(keep_if), 0);
        return true;
    case ZYDIS_MNEMONIC_CLD:
    case ZYDIS_MNEMONIC_STD:
        change_bit(g, OFF(s.rflags) + 1, OFF(keep_df),
                   g->insn->mnemonic == ZYDIS_MNEMONIC_STD ? (unsigned)RFLAGS_DF >> 8 : 0);
        return true;
    case ZYDIS_MNEMONIC_STI:
        /* The next instruction must be in this block: its map entry carries the interrupt shadow.
         */
        if (last)
            return false;
        gen_sti(g);
        return true;
    case ZYDIS_MNEMONIC_SWAPGS:
        gen_swapgs(g);
        return true;
    case ZYDIS_MNEMONIC_MOV:
        gen_mov_from_seg(g);
        return true;
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
        gen_rdtsc(g);
        return true;
    case ZYDIS_MNEMONIC_STAC:
        gen_ac(g, true);
        return true;
    case ZYDIS_MNEMONIC_CLAC:
        gen_ac(g, false);
        return true;
    default:
        return false;
    }
}
