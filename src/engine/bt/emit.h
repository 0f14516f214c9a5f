/* SPDX-License-Identifier: Apache-2.0 */
/* Writes x86-64 machine code, byte by byte. Register arguments are host encoding numbers. */
#ifndef TRIVISOR_ENGINE_BT_EMIT_H
#define TRIVISOR_ENGINE_BT_EMIT_H

#include "base/types.h"

struct emit {
    u8 *p;   /* next byte, writable view */
    u8 *end; /* one past the room there is; writes beyond set overflow and are dropped */
    bool overflow;
};

static inline void emit8(struct emit *e, unsigned b)
{
    if (likely(e->p < e->end))
        *e->p++ = (u8)b;
    else
        e->overflow = true;
}

static inline void emit32(struct emit *e, u32 v)
{
    for (unsigned i = 0; i < 4; i++)
        emit8(e, (v >> (8 * i)) & 0xff);
}

static inline void emit64(struct emit *e, u64 v)
{
    emit32(e, (u32)v);
    emit32(e, (u32)(v >> 32));
}

static inline void emit_bytes(struct emit *e, const void *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        emit8(e, ((const u8 *)p)[i]);
}

/* A literal sequence: EMIT(e, 0x48, 0x89, 0xc0). */
#define EMIT(e, ...)                                                                               \
    do {                                                                                           \
        static const u8 emit_lit_[] = {__VA_ARGS__};                                               \
        emit_bytes((e), emit_lit_, sizeof(emit_lit_));                                             \
    } while (0)

static inline void emit_rex(struct emit *e, bool w, unsigned reg, unsigned index, unsigned base)
{
    emit8(e, 0x40u | (unsigned)w << 3 | (reg >> 3) << 2 | (index >> 3) << 1 | base >> 3);
}

/* opcode reg, [base + disp] with a one-byte opcode; any base. */
static inline void emit_op_mem(struct emit *e, bool w, unsigned opcode, unsigned reg, unsigned base,
                               s32 disp)
{
    bool short_disp = disp >= -128 && disp <= 127;

    if (w || reg >= 8 || base >= 8)
        emit_rex(e, w, reg, 0, base);
    emit8(e, opcode);
    emit8(e, (short_disp ? 0x40u : 0x80u) | (reg & 7) << 3 | (base & 7));
    if ((base & 7) == 4)
        emit8(e, 0x24);
    if (short_disp)
        emit8(e, (u8)disp);
    else
        emit32(e, (u32)disp);
}

static inline void emit_load(struct emit *e, unsigned reg, unsigned base, s32 disp)
{
    emit_op_mem(e, true, 0x8b, reg, base, disp);
}

static inline void emit_store(struct emit *e, unsigned base, s32 disp, unsigned reg)
{
    emit_op_mem(e, true, 0x89, reg, base, disp);
}

static inline void emit_lea(struct emit *e, unsigned reg, unsigned base, s32 disp)
{
    emit_op_mem(e, true, 0x8d, reg, base, disp);
}

/* mov dword [base + disp], imm */
static inline void emit_store_imm32(struct emit *e, unsigned base, s32 disp, u32 imm)
{
    emit_op_mem(e, false, 0xc7, 0, base, disp);
    emit32(e, imm);
}

static inline void emit_mov(struct emit *e, unsigned dst, unsigned src)
{
    emit_rex(e, true, src, 0, dst);
    emit8(e, 0x89);
    emit8(e, 0xc0u | (src & 7) << 3 | (dst & 7));
}

/* Shortest form; leaves flags alone. */
static inline void emit_mov_imm(struct emit *e, unsigned reg, u64 imm)
{
    if (imm <= 0xffffffffu) {
        if (reg >= 8)
            emit8(e, 0x41);
        emit8(e, 0xb8u | (reg & 7));
        emit32(e, (u32)imm);
    } else if ((u64)(s64)(s32)imm == imm) {
        emit_rex(e, true, 0, 0, reg);
        emit8(e, 0xc7);
        emit8(e, 0xc0u | (reg & 7));
        emit32(e, (u32)imm);
    } else {
        emit_rex(e, true, 0, 0, reg);
        emit8(e, 0xb8u | (reg & 7));
        emit64(e, imm);
    }
}

/* Jumps with a 32-bit displacement; the displacement's place is returned for emit_patch32. cc:
 * condition 0..15. */
static inline u8 *emit_jcc(struct emit *e, unsigned cc)
{
    emit8(e, 0x0f);
    emit8(e, 0x80u | cc);
    emit32(e, 0);
    return e->p - 4;
}

static inline u8 *emit_jmp(struct emit *e)
{
    emit8(e, 0xe9);
    emit32(e, 0);
    return e->p - 4;
}

static inline u8 *emit_call(struct emit *e)
{
    emit8(e, 0xe8);
    emit32(e, 0);
    return e->p - 4;
}

/* Lets the displacement at `at` (writable view) reach `target` (same view). */
static inline void emit_patch32(u8 *at, const u8 *target)
{
    s32 rel = (s32)(target - (at + 4));

    __builtin_memcpy(at, &rel, 4);
}

#endif
