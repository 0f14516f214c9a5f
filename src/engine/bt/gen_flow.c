/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stack operations and branches, of 64-bit and of flat 32-bit code (whose RSP has a clear upper
 * half).
 *
 * A direct branch within the page is a jump patched to its target once that is translated. Every
 * other branch puts its target into r11 and goes through the window's branch-target table; the
 * target block checks r11 itself, so a stale or colliding entry only costs a look-up.
 */
#include <Zydis/MetaInfo.h>
#include <Zydis/SharedTypes.h>

#include "engine/bt/gen.h"

#define OFF_TMP ((s32)offsetof(struct bt_env, tmp))

/* Guest RSP += d, leaving flags alone. */
static void add_rsp(struct gen *g, s32 d)
{
    emit_op_mem(&g->e, g->word == 8, 0x8d, H_R9, H_R9, d);
}

/* Target in r11. */
static void branch_r11(struct gen *g)
{
    struct emit *e = &g->e;

    /* r8: whose target it is, should it not be canonical (the branch itself faults then) */
    EMIT(e, 0x4c, 0x8d, 0x05, 0, 0, 0, 0); /* lea r8, [rip] */
    /* pext r10d, r11d, [rsp + ibl_mask]; jmp [rsp + r10 * 8 + IBL] */
    EMIT(e, 0xc4, 0x62, 0x22, 0xf5, 0x94, 0x24);
    emit32(e, (u32)offsetof(struct bt_env, ibl_mask));
    EMIT(e, 0x42, 0xff, 0xa4, 0xd4);
    emit32(e, BT_OFF_IBL);
    g->ended = true;
}

static bool same_page(const struct gen *g, u64 target)
{
    return (target & PAGE_MASK) == (g->b->va & PAGE_MASK);
}

static bool chainable(const struct gen *g, u64 target)
{
    return same_page(g, target) ||
           (!g->b->len2 && bt_far_possible(g->bt, g->b->va, target, g->b->mode));
}

/* So that the rel32 that follows n opcode bytes can be patched while other vCPUs run through it. */
void gen_align_rel32(struct gen *g, unsigned n)
{
    if (g->bt->vm->nvcpus > 1)
        while (((u64)(uintptr_t)g->e.p + n) & 3)
            emit8(&g->e, 0x90);
}

void gen_branch_far_page(struct gen *g, u64 target)
{
    gen_mov_va(g, H_R11, target);
    EMIT(&g->e, 0xff, 0xa4, 0x24);
    emit32(&g->e, BT_OFF_IBL + BT_IBL_INDEX(target) * 8);
    gen_reloc(g, g->e.p - 4, BT_RELOC_IBL, 0);
}

struct bt_link *gen_add_link(struct gen *g, u64 target, const u8 *rel32)
{
    struct bt_link *l = &g->b->link[g->b->nlinks];

    CHECK(g->b->nlinks < BT_NLINKS);
    *l = (struct bt_link){.jmp = (u16)(rel32 - g->entry),
                          .target = target,
                          .index = g->b->nlinks++,
                          .far = same_page(g, target) ? BT_NEAR : BT_FAR};
    return l;
}

void gen_goto(struct gen *g, u64 target)
{
    if (chainable(g, target)) {
        gen_align_rel32(g, 1);
        gen_add_link(g, target, emit_jmp(&g->e));
    } else {
        gen_branch_far_page(g, target);
    }
    g->ended = true;
}

/* keep_flags must hold for the write: r10 = host address of the new top of stack. */
static void probe_push(struct gen *g)
{
    if (g->item->grouped)
        return;
    gen_probe(g, EA_PUSH, g->word, true);
}

static void probe_pop(struct gen *g)
{
    if (g->item->grouped)
        return;
    gen_probe(g, EA_POP, g->word, false);
}

/* Moves between a host register and the new top of stack (push) or the old one (pop), after the
 * probe. */
static void store_top(struct gen *g, unsigned reg)
{
    if (g->item->grouped)
        gen_stack_op(g, 0x89, reg, -(s32)g->word);
    else
        emit_op_mem(&g->e, g->word == 8, 0x89, reg, H_R10, 0);
}

/* mov reg, [r10] of the stack's width. */
static void load_word(struct gen *g, unsigned reg)
{
    emit_op_mem(&g->e, g->word == 8, 0x8b, reg, H_R10, 0);
}

static void load_top(struct gen *g, unsigned reg)
{
    if (g->item->grouped)
        gen_stack_op(g, 0x8b, reg, 0);
    else
        load_word(g, reg);
}

/* mov word [r10], imm; address: it is one of the guest's code */
static void store_top_imm(struct gen *g, u64 imm, bool address)
{
    if (g->word == 4 || (u64)(s64)(s32)imm == imm) {
        if (g->item->grouped)
            gen_stack_op(g, 0xc7, 0, -(s32)g->word);
        else
            emit_op_mem(&g->e, g->word == 8, 0xc7, 0, H_R10, 0);
        emit32(&g->e, (u32)imm);
        if (address)
            gen_reloc(g, g->e.p - 4, BT_RELOC_VA32S, 0);
    } else {
        if (address)
            gen_mov_va(g, H_R11, imm);
        else
            emit_mov_imm(&g->e, H_R11, imm);
        store_top(g, H_R11);
    }
}

static bool gen_push(struct gen *g)
{
    const struct x86_insn *in = g->insn;
    const struct x86_op *op = &in->op[0];

    switch (op->kind) {
    case X86_OP_GPR:
        probe_push(g);
        if (gen_in_memory(op->reg)) {
            emit_load(&g->e, H_R11, H_RSP, 8 * op->reg);
            store_top(g, H_R11);
        } else {
            store_top(g, gen_host(op->reg));
        }
        break;
    case X86_OP_IMM:
        probe_push(g);
        store_top_imm(g, in->imm[0], false);
        break;
    case X86_OP_MEM:
        gen_probe(g, EA_OPERAND, g->word, false);
        load_word(g, H_R10);
        emit_store(&g->e, H_RSP, OFF_TMP, H_R10);
        probe_push(g);
        emit_load(&g->e, H_R11, H_RSP, OFF_TMP);
        store_top(g, H_R11);
        break;
    default:
        return false;
    }
    gen_commit(g);
    add_rsp(g, -(s32)g->word);
    return true;
}

static bool gen_pop(struct gen *g)
{
    const struct x86_insn *in = g->insn;
    const struct x86_op *op = &in->op[0];

    probe_pop(g);
    if (op->reg == X86_RSP) {
        load_top(g, H_R9);
        return true;
    }
    if (gen_in_memory(op->reg)) {
        load_top(g, H_R11);
        gen_commit(g);
        emit_store(&g->e, H_RSP, 8 * op->reg, H_R11);
    } else {
        gen_commit(g);
        load_top(g, gen_host(op->reg));
    }
    add_rsp(g, (s32)g->word);
    return true;
}

/* RBP is written last: until then the frame it pops must stay below the stack an interrupt would
 * use. */
static bool gen_leave(struct gen *g)
{
    gen_probe(g, EA_FRAME, g->word, false);
    load_word(g, H_R11);
    gen_commit(g);
    emit_op_mem(&g->e, g->word == 8, 0x8d, H_R9, H_RBP, (s32)g->word);
    emit_mov(&g->e, H_RBP, H_R11);
    return true;
}

static bool gen_ret(struct gen *g)
{
    const struct x86_insn *in = g->insn;
    u32 extra = in->nops && in->op[0].kind == X86_OP_IMM ? (u32)in->imm[0] & 0xffff : 0;

    probe_pop(g);
    load_top(g, H_R11);
    gen_commit(g);
    g->map->kind = BT_MAP_INDIRECT;
    add_rsp(g, (s32)(g->word + extra));
    branch_r11(g);
    return true;
}

static u64 branch_target(const struct gen *g)
{
    u64 target = g->next + g->insn->imm[0];

    return g->word == 8 ? target : (u32)target;
}

/* r11 = a branch target from a register. */
static void get_target(struct gen *g, unsigned reg)
{
    if (g->word == 8)
        gen_get(g, H_R11, reg);
    else
        emit_op_mem(&g->e, false, 0x8d, H_R11, gen_host(reg),
                    0); /* lea: the upper half is none of it */
}

static bool gen_call(struct gen *g)
{
    const struct x86_insn *in = g->insn;
    const struct x86_op *op = &in->op[0];

    switch (op->kind) {
    case X86_OP_REL:
        probe_push(g);
        store_top_imm(g, g->next, true);
        gen_commit(g);
        g->map->kind = BT_MAP_DIRECT;
        g->b->target = branch_target(g);
        add_rsp(g, -(s32)g->word);
        gen_goto(g, g->b->target);
        return true;
    case X86_OP_GPR:
        probe_push(g);
        store_top_imm(g, g->next, true);
        get_target(g, op->reg);
        break;
    case X86_OP_MEM:
        gen_probe(g, EA_OPERAND, g->word, false);
        load_word(g, H_R10);
        emit_store(&g->e, H_RSP, OFF_TMP, H_R10);
        probe_push(g);
        store_top_imm(g, g->next, true);
        emit_load(&g->e, H_R11, H_RSP, OFF_TMP);
        break;
    default:
        return false;
    }
    gen_commit(g);
    g->map->kind = BT_MAP_INDIRECT;
    add_rsp(g, -(s32)g->word);
    branch_r11(g);
    return true;
}

static bool gen_jmp(struct gen *g)
{
    const struct x86_insn *in = g->insn;
    const struct x86_op *op = &in->op[0];

    switch (op->kind) {
    case X86_OP_REL:
        gen_goto(g, branch_target(g));
        return true;
    case X86_OP_GPR:
        get_target(g, op->reg);
        break;
    case X86_OP_MEM:
        gen_probe(g, EA_OPERAND, g->word, false);
        load_word(g, H_R11);
        break;
    default:
        return false;
    }
    branch_r11(g);
    return true;
}

/* Opcode low nibble of Jcc is the condition. */
static bool gen_jcc(struct gen *g)
{
    const struct x86_insn *in = g->insn;
    u64 target = branch_target(g);
    unsigned cc = in->opcode & 15;

    if (in->mnemonic == ZYDIS_MNEMONIC_JRCXZ) {
        u8 *over;

        EMIT(&g->e, 0xe3, 0x05); /* jrcxz over the next jump */
        over = emit_jmp(&g->e);
        gen_goto(g, target);
        emit_patch32(over, g->e.p);
        gen_goto(g, g->next);
        return true;
    }
    if (chainable(g, target)) {
        gen_align_rel32(g, 2);
        gen_add_link(g, target, emit_jcc(&g->e, cc));
    } else {
        u8 *skip = emit_jcc(&g->e, cc ^ 1);

        gen_branch_far_page(g, target);
        emit_patch32(skip, g->e.p);
    }
    gen_goto(g, g->next);
    return true;
}

bool gen_flow_handles(const struct x86_insn *in)
{
    bool word = in->opsize == in->mode / 8;

    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
        return word && in->op[0].kind != X86_OP_SEG;
    case ZYDIS_MNEMONIC_POP:
        return word && in->op[0].kind == X86_OP_GPR;
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_RET:
        return word && !gen_is_far(in);
    case ZYDIS_MNEMONIC_LEAVE:
        return word;
    case ZYDIS_MNEMONIC_JRCXZ:
        return in->mode == 64 && word;
    default:
        return in->category == ZYDIS_CATEGORY_COND_BR && word &&
               (in->opcode & 0xf0) == (in->opcode_map ? 0x80 : 0x70);
    }
}

bool gen_flow(struct gen *g)
{
    switch (g->insn->mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
        return gen_push(g);
    case ZYDIS_MNEMONIC_POP:
        return gen_pop(g);
    case ZYDIS_MNEMONIC_LEAVE:
        return gen_leave(g);
    case ZYDIS_MNEMONIC_RET:
        return gen_ret(g);
    case ZYDIS_MNEMONIC_CALL:
        return gen_call(g);
    case ZYDIS_MNEMONIC_JMP:
        return gen_jmp(g);
    default:
        return gen_jcc(g);
    }
}
