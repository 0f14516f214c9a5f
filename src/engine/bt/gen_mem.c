/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses and the inline soft-TLB probe. */
#include "engine/bt/gen.h"

/* lea dst, [base + index * scale + disp]; base or index may be X86_NOREG. w: 64-bit, else truncated
 * to 32. */
static void lea_sib(struct gen *g, bool w, unsigned dst, unsigned base, unsigned index,
                    unsigned scale, s32 disp)
{
    struct emit *e = &g->e;
    unsigned ss = scale == 8 ? 3 : scale == 4 ? 2 : scale == 2 ? 1 : 0;

    if (index == X86_NOREG && base != X86_NOREG) {
        /* A plain copy costs no time on CPUs that rename it away. */
        if (w && !disp)
            emit_mov(e, dst, base);
        else
            emit_op_mem(e, w, 0x8d, dst, base, disp);
        return;
    }
    emit_rex(e, w, dst, index, base == X86_NOREG ? 0 : base);
    emit8(e, 0x8d);
    if (base == X86_NOREG) {
        emit8(e, (dst & 7) << 3 | 4);
        emit8(e, ss << 6 | (index & 7) << 3 | 5);
        emit32(e, (u32)disp);
    } else {
        bool d8 = disp >= -128 && disp <= 127;

        emit8(e, (d8 ? 0x40u : 0x80u) | (dst & 7) << 3 | 4);
        emit8(e, ss << 6 | (index & 7) << 3 | (base & 7));
        if (d8)
            emit8(e, (u8)disp);
        else
            emit32(e, (u32)disp);
    }
}

void gen_ea(struct gen *g, unsigned dst, bool with_segment)
{
    const struct x86_insn *in = g->insn;
    struct emit *e = &g->e;
    bool w = in->addrsize == 8;
    unsigned base = in->mem.base, index = in->mem.index;

    if (base == X86_REG_RIP) {
        u64 a = g->next + (u64)in->mem.disp;

        if (w) {
            gen_mov_va(g, dst, a);
        } else {
            emit_mov_imm(e, dst, (u32)a);
            g->nrelocs = BT_RELOCS_MAX + 1; /* it wraps: not for clones */
        }
    } else if (base == X86_NOREG && index == X86_NOREG) {
        emit_mov_imm(e, dst, w ? (u64)in->mem.disp : (u32)in->mem.disp);
    } else {
        if (base != X86_NOREG) {
            if (gen_in_memory(base)) {
                emit_load(e, H_R10, H_RSP, 8 * (s32)base);
                base = H_R10;
            } else {
                base = gen_host(base);
            }
        }
        if (index != X86_NOREG && gen_in_memory(index)) {
            emit_load(e, H_R11, H_RSP, 8 * (s32)index);
            index = H_R11;
        }
        lea_sib(g, w, dst, base, index, in->mem.scale, (s32)in->mem.disp);
    }
    if (with_segment && (in->mem.seg == X86_FS || in->mem.seg == X86_GS)) {
        emit_load(e, H_R11, H_RSP, (s32)offsetof(struct bt_env, s.seg[in->mem.seg].base));
        lea_sib(g, g->word == 8, dst, dst, H_R11, 1, 0);
        if (g->word == 4) {
            emit_load(e, H_R11, H_RSP, (s32)offsetof(struct bt_env, no_seg[in->mem.seg - X86_FS]));
            lea_sib(g, true, dst, dst, H_R11, 1, 0);
        }
    }
}

/* op reg, [rsp + r11 + off], reg r10 or r11 */
static void tlb_op(struct emit *e, unsigned opcode, unsigned reg, s32 off)
{
    emit8(e, 0x4e);
    emit8(e, opcode);
    emit8(e, 0x84 | (reg & 7) << 3);
    emit8(e, 0x1c);
    emit32(e, (u32)off);
}

/* rax to where it waits while its register holds flags. */
static void park_flags(struct gen *g, bool in_memory)
{
    if (in_memory) {
        emit_store(&g->e, H_RSP, (s32)offsetof(struct bt_env, park), H_RAX);
        g->map->park_mem = 1;
    } else {
        emit_mov(&g->e, H_R8, H_RAX);
    }
}

static void unpark_rax(struct gen *g, bool in_memory)
{
    if (in_memory)
        emit_load(&g->e, H_RAX, H_RSP, (s32)offsetof(struct bt_env, park));
    else
        emit_mov(&g->e, H_RAX, H_R8);
}

/* r10 = the address of access `ea` of g->insn. */
static void gen_access(struct gen *g, enum gen_access ea)
{
    struct emit *e = &g->e;
    bool w = g->word == 8;

    switch (ea) {
    case EA_OPERAND:
        gen_ea(g, H_R10, true);
        break;
    case EA_BITS:
        gen_ea(g, H_R10, true);
        gen_bits_offset(g);
        break;
    case EA_PUSH:
        emit_op_mem(e, w, 0x8d, H_R10, H_R9, -(s32)g->word);
        break;
    case EA_POP:
        emit_mov(e, H_R10, H_R9);
        break;
    case EA_RDI:
        emit_op_mem(e, w, 0x8d, H_R10, H_RDI, 0);
        break;
    case EA_FRAME:
        emit_op_mem(e, w, 0x8d, H_R10, H_RBP, 0);
        break;
    }
}

/*
 * The sum of address and delta, less (by exclusive or) the host page, is the offset in the page on
 * a hit and at least 4096 otherwise, so one comparison sees a miss and an access that crosses the
 * page's end alike. The load that needs the sum waits for one load and one addition only; the check
 * is beside its path. Flags that are still needed wait in rax (lahf; seto).
 */
void gen_probe(struct gen *g, enum gen_access ea, unsigned size, bool write)
{
    struct emit *e = &g->e;
    struct gen_cold *c = &g->cold[g->ncold++];
    u16 park = 0;
    s32 off = write ? (s32)BT_OFF_TLB_W : (s32)BT_OFF_TLB_R;

    *c = (struct gen_cold){.item = g->item,
                           .ea = ea,
                           .parked = g->keep_flags,
                           .park_mem = g->item->in_group,
                           .arg = size | (u32)write << 8 | g->index << 16};
    gen_access(g, ea);
    if (c->parked) {
        park_flags(g, c->park_mem);
        park = gen_off(g);
        g->map->park[g->map->park[1] ? 2 : g->map->park[0] ? 1 : 0] = park;
        EMIT(e, 0x9f, 0x0f, 0x90, 0xc0); /* lahf; seto al */
    }
    EMIT(e, 0x45, 0x89, 0xd3);       /* mov r11d, r10d */
    EMIT(e, 0x41, 0xc1, 0xeb, 0x08); /* shr r11d, 8 */
    EMIT(e, 0x41, 0x81, 0xe3);       /* and r11d, mask of index * 16 */
    emit32(e, (BT_TLB_SIZE - 1) << 4);
    tlb_op(e, 0x03, H_R10, off + (s32)offsetof(struct bt_tlb_entry, delta));
    tlb_op(e, 0x8b, H_R11, off + (s32)offsetof(struct bt_tlb_entry, host));
    EMIT(e, 0x4d, 0x31, 0xd3); /* xor r11, r10 */
    EMIT(e, 0x49, 0x81, 0xfb); /* cmp r11, 4096 - size */
    emit32(e, (u32)PAGE_SIZE - size);
    c->ja = emit_jcc(e, 7);
    if (c->parked) {
        EMIT(e, 0x04, 0x7f, 0x9e); /* add al, 127; sahf */
        CHECK(e->overflow || gen_off(g) == park + BT_PARK_LEN);
        unpark_rax(g, c->park_mem);
    }
    c->back = e->p;
}

/* xor r8, [rsp + off] and mov r8, [rsp + off]: 8 bytes each. */
static void cell_op(struct emit *e, unsigned opcode, s32 off)
{
    emit8(e, 0x4c);
    emit8(e, opcode);
    emit8(e, 0x84);
    emit8(e, 0x24);
    emit32(e, (u32)off);
}

#define OFF_CELL_TAG ((s32)(BT_OFF_PRIV + offsetof(struct bt_window_priv, stack_tag)))
#define OFF_CELL_ADDEND ((s32)(BT_OFF_PRIV + offsetof(struct bt_window_priv, stack_addend)))

/*
 * Without parking, registers and flags dead, an interrupted check is just repeated. With it, rax
 * waits in env->park; the sequence from there has the length that gen_probe's has, which is what
 * unparking counts on.
 */
void gen_stack_check(struct gen *g)
{
    struct emit *e = &g->e;
    struct gen_cold *c = &g->cold[g->ncold++];
    u16 park = 0;

    *c = (struct gen_cold){.item = g->item,
                           .stack = true,
                           .parked = g->keep_flags,
                           .park_mem = true,
                           .shadow = g->map->shadow != 0};
    c->arg = (u32)g->item->check_size | (u32)g->item->check_write << 15 | g->index << 16;
    c->back = e->p;
    if (c->parked) {
        park_flags(g, true);
        park = gen_off(g);
        g->map->park[g->map->park[1] ? 2 : g->map->park[0] ? 1 : 0] = park;
        EMIT(e, 0x9f, 0x0f, 0x90, 0xc0); /* lahf; seto al */
    }
    c->lo = g->item->check_lo;
    emit_lea(e, H_R8, H_R9, c->lo);
    cell_op(e, 0x33, OFF_CELL_TAG);
    EMIT(e, 0x49, 0x81, 0xf8); /* cmp r8, 4096 - size */
    emit32(e, (u32)PAGE_SIZE - (u32)g->item->check_size);
    c->ja = emit_jcc(e, 7);
    if (c->parked) {
        while (gen_off(g) < park + BT_PARK_LEN - 3 - 8)
            emit8(e, 0x90);
        cell_op(e, 0x8b, OFF_CELL_ADDEND);
        EMIT(e, 0x04, 0x7f, 0x9e); /* add al, 127; sahf */
        unpark_rax(g, true);
    } else {
        cell_op(e, 0x8b, OFF_CELL_ADDEND);
    }
}

void gen_stack_op(struct gen *g, unsigned opcode, unsigned reg, s32 disp)
{
    struct emit *e = &g->e;
    bool d8 = disp >= -128 && disp <= 127;

    emit_rex(e, g->word == 8, reg, H_R8, H_R9);
    emit8(e, opcode);
    emit8(e, (d8 ? 0x40u : 0x80u) | (reg & 7) << 3 | 4);
    emit8(e, (H_R8 & 7) << 3 | (H_R9 & 7));
    if (d8)
        emit8(e, (u8)disp);
    else
        emit32(e, (u32)disp);
}

/* The stack cell does not fit: fetch it, or go on in the twin. Flags and rax are as parked, if they
 * are. */
static void cold_stack(struct gen *g, const struct gen_cold *c)
{
    struct emit *e = &g->e;
    struct bt_link *l;
    u32 start = gen_off(g);
    u8 *fits;

    if (c->parked) {
        EMIT(e, 0x04, 0x7f, 0x9e);
        unpark_rax(g, true);
    }
    emit_lea(e, H_R10, H_R9, c->lo);
    if (!c->parked && !c->shadow && g->b->nlinks < BT_NLINKS) {
        /* Straddling pages is no matter for C. Until the jump, rolling back is possible (signal.c).
         */
        EMIT(e, 0x45, 0x89, 0xd3); /* mov r11d, r10d */
        EMIT(e, 0x41, 0x81, 0xe3); /* and r11d, 0xfff */
        emit32(e, (u32)PAGE_SIZE - 1);
        EMIT(e, 0x41, 0x81, 0xfb); /* cmp r11d, 4096 - size */
        emit32(e, (u32)PAGE_SIZE - (c->arg & 0x7fff));
        fits = emit_jcc(e, 6);
        gen_align_rel32(g, 1);
        l = gen_add_link(g, c->item->va, emit_jmp(e));
        l->nogroup = true;
        l->cold_start = (u16)start;
        l->cold_end = gen_off(g);
        emit_patch32(fits, e->p);
    }
    emit_mov_imm(e, H_R11, c->arg);
    gen_call_stub(g, g->bt->call_stack);
    emit_patch32(emit_jmp(e), c->back); /* the whole check again */
}

void gen_cold_paths(struct gen *g)
{
    struct emit *e = &g->e;

    for (unsigned i = 0; i < g->ncold && !e->overflow; i++) {
        struct gen_cold *c = &g->cold[i];

        emit_patch32(c->ja, e->p);
        if (c->stack) {
            cold_stack(g, c);
            continue;
        }
        if (c->site) {
            gen_mov_record(g, H_R11, c->site, BT_RELOC_SITE, 0);
            gen_call_stub(g, g->bt->call_interp);
            emit_patch32(emit_jmp(e), c->back);
            continue;
        }
        if (c->parked) {
            EMIT(e, 0x04, 0x7f, 0x9e);
            unpark_rax(g, c->park_mem);
        }
        g->item = c->item;
        g->insn = &c->item->insn;
        g->next = c->item->va + c->item->insn.length;
        gen_access(g, c->ea);
        emit_mov_imm(e, H_R11, c->arg);
        gen_call_stub(g, g->bt->slow_access);
        emit_patch32(emit_jmp(e), c->back);
    }
}
