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

        emit_mov_imm(e, dst, w ? a : (u32)a);
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
        lea_sib(g, true, dst, dst, H_R11, 1, 0);
    }
}

static void tlb_op(struct emit *e, unsigned opcode, s32 off)
{
    /* op r10, [rsp + r11 + off] */
    emit8(e, 0x4e);
    emit8(e, opcode);
    emit8(e, 0x94);
    emit8(e, 0x1c);
    emit32(e, (u32)off);
}

/*
 * r10 ^ tag is the offset in the page on a hit and at least 4096 otherwise, so one comparison sees
 * a miss and an access that crosses the page's end alike. Flags that are still needed wait in rax
 * (lahf; seto), rax in r8.
 */
void gen_probe(struct gen *g, unsigned size, bool write)
{
    struct emit *e = &g->e;
    struct gen_cold *c = &g->cold[g->ncold++];
    u16 park = 0;
    s32 off = write ? (s32)BT_OFF_TLB_W : (s32)BT_OFF_TLB_R;

    c->parked = g->keep_flags;
    c->write = write;
    c->arg = size | (u32)write << 8 | g->index << 16;
    if (c->parked) {
        EMIT(e, 0x49, 0x89, 0xc0); /* mov r8, rax */
        park = gen_off(g);
        g->map->park[g->map->park[0] ? 1 : 0] = park;
        EMIT(e, 0x9f, 0x0f, 0x90, 0xc0); /* lahf; seto al */
    }
    EMIT(e, 0x45, 0x89, 0xd3);       /* mov r11d, r10d */
    EMIT(e, 0x41, 0xc1, 0xeb, 0x08); /* shr r11d, 8 */
    EMIT(e, 0x41, 0x81, 0xe3);       /* and r11d, mask of index * 16 */
    emit32(e, (BT_TLB_SIZE - 1) << 4);
    tlb_op(e, 0x33, off);
    EMIT(e, 0x49, 0x81, 0xfa); /* cmp r10, 4096 - size */
    emit32(e, (u32)PAGE_SIZE - size);
    c->ja = emit_jcc(e, 7);
    tlb_op(e, 0x03, off + 8);
    if (c->parked) {
        EMIT(e, 0x04, 0x7f, 0x9e); /* add al, 127; sahf */
        CHECK(e->overflow || gen_off(g) == park + BT_PARK_LEN);
        EMIT(e, 0x4c, 0x89, 0xc0); /* mov rax, r8 */
    }
    c->back = e->p;
}

void gen_cold_paths(struct gen *g)
{
    struct emit *e = &g->e;

    for (unsigned i = 0; i < g->ncold && !e->overflow; i++) {
        struct gen_cold *c = &g->cold[i];

        emit_patch32(c->ja, e->p);
        tlb_op(e, 0x33, c->write ? (s32)BT_OFF_TLB_W : (s32)BT_OFF_TLB_R);
        if (c->parked)
            EMIT(e, 0x04, 0x7f, 0x9e, 0x4c, 0x89, 0xc0);
        emit_mov_imm(e, H_R11, c->arg);
        emit_patch32(emit_call(e), bt_rw(g->bt, g->bt->slow_access));
        emit_patch32(emit_jmp(e), c->back);
    }
}
