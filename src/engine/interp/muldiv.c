/* SPDX-License-Identifier: Apache-2.0 */
/* Multiplication, division and the decimal adjustments. */
#include "engine/interp/integer.h"

/* Around an instruction that needs RAX itself: flags through the stack. Only arithmetic flags and
 * the host's IF (ignored by POPF in user mode) are loaded. */
#define PUSHED_IN "pushq %[f]\n\tpopfq\n\t"
#define PUSHED_OUT "\n\tpushfq\n\tpopq %[f]"

static u64 pushed(u64 rflags)
{
    return (rflags & RFLAGS_ARITH) | RFLAGS_FIXED | RFLAGS_IF;
}

#define WIDE_CASE(op, suffix, mod)                                                                 \
    __asm__(PUSHED_IN op suffix " %" mod "[b]" PUSHED_OUT                                          \
            : [f] "+r"(f), "+a"(a), "+d"(d)                                                        \
            : [b] "r"(b)                                                                           \
            : "cc", "memory")

/* One-operand forms on RDX:RAX (AX for bytes). b must not make a division fault. */
#define WIDE(name, op)                                                                             \
    static void name(u64 *ra, u64 *rd, u64 b, unsigned size, u64 *rf)                              \
    {                                                                                              \
        u64 a = *ra, d = *rd, f = pushed(*rf);                                                     \
        switch (size) {                                                                            \
        case 1:                                                                                    \
            WIDE_CASE(op, "b", "b");                                                               \
            break;                                                                                 \
        case 2:                                                                                    \
            WIDE_CASE(op, "w", "w");                                                               \
            break;                                                                                 \
        case 4:                                                                                    \
            WIDE_CASE(op, "l", "k");                                                               \
            break;                                                                                 \
        default:                                                                                   \
            WIDE_CASE(op, "q", "q");                                                               \
            break;                                                                                 \
        }                                                                                          \
        *ra = a;                                                                                   \
        *rd = d;                                                                                   \
        *rf = f & RFLAGS_ARITH;                                                                    \
    }

WIDE(wide_mul, "mul")
WIDE(wide_imul, "imul")
WIDE(wide_div, "div")
WIDE(wide_idiv, "idiv")

typedef void wide_fn(u64 *ra, u64 *rd, u64 b, unsigned size, u64 *rf);

/* RAX and RDX come back whole from the host: it keeps and clears upper parts as the guest's would.
 */
static enum interp_result wide(struct interp *in, const struct x86_insn *insn, u64 b, wide_fn *fn)
{
    struct x86_vcpu_state *s = in->s;
    u64 f = s->rflags;
    fn(&s->gpr[X86_RAX], &s->gpr[X86_RDX], b, insn->op[0].size / 8u, &f);
    flags_set(&s->rflags, f);
    return INTERP_OK;
}

enum interp_result i_mul(struct interp *in, const struct x86_insn *insn)
{
    return wide(in, insn, io_read(in, insn, 0), wide_mul);
}

static bool one_operand(const struct x86_insn *insn)
{
    return insn->opcode_map == 0 && (insn->opcode == 0xf6 || insn->opcode == 0xf7);
}

#define IMUL_CASE(suffix, mod)                                                                     \
    __asm__(FLAGS_IN "imul" suffix " %" mod "[b], %" mod "[a]" FLAGS_OUT                           \
            : [a] "+r"(a), "+a"(ax)                                                                \
            : [b] "r"(b)                                                                           \
            : "cc")

enum interp_result i_imul(struct interp *in, const struct x86_insn *insn)
{
    if (one_operand(insn))
        return wide(in, insn, io_read(in, insn, 0), wide_imul);
    bool three = insn->opcode == 0x69 || insn->opcode == 0x6b;
    u64 a = io_read(in, insn, three ? 1 : 0);
    u64 b = three ? insn->imm[0] : io_read(in, insn, 1);
    u64 ax = flags_to_ax(in->s->rflags);
    switch (insn->op[0].size) {
    case 16:
        IMUL_CASE("w", "w");
        break;
    case 32:
        IMUL_CASE("l", "k");
        break;
    default:
        IMUL_CASE("q", "q");
        break;
    }
    io_write(in, insn, 0, a);
    flags_set(&in->s->rflags, flags_from_ax(ax));
    return INTERP_OK;
}

/* The dividend as one number, truncated to 2 * size bytes. */
static unsigned __int128 dividend(const struct x86_vcpu_state *s, unsigned size)
{
    u64 a = s->gpr[X86_RAX], d = s->gpr[X86_RDX];
    switch (size) {
    case 1:
        return (u16)a;
    case 2:
        return (u32)((u16)a | (u32)(u16)d << 16);
    case 4:
        return (u64)(u32)a | d << 32;
    default:
        return (unsigned __int128)d << 64 | a;
    }
}

enum interp_result i_div(struct interp *in, const struct x86_insn *insn)
{
    unsigned size = insn->op[0].size / 8u;
    u64 b = io_read(in, insn, 0);
    /* The quotient fits exactly when the dividend's upper half is below the divisor. */
    if (!b || (u64)(dividend(in->s, size) >> (8 * size)) >= b)
        interp_raise(in, X86_DE);
    return wide(in, insn, b, wide_div);
}

enum interp_result i_idiv(struct interp *in, const struct x86_insn *insn)
{
    unsigned size = insn->op[0].size / 8u, bits = 8 * size;
    u64 b = io_read(in, insn, 0);
    s64 sb = (s64)sign_extend(b, bits);
    unsigned __int128 ua = dividend(in->s, size);
    bool neg = (ua >> (2 * bits - 1)) & 1;
    if (bits < 64) {
        if (neg)
            ua |= ~(unsigned __int128)0 << (2 * bits);
    }
    if (!sb)
        interp_raise(in, X86_DE);
    /* |quotient| by magnitudes: |a| / |b| < 2^(bits-1), or == 2^(bits-1) when negative. */
    unsigned __int128 mag = neg ? -ua : ua;
    u64 mb = sb < 0 ? -(u64)sb : (u64)sb;
    bool qneg = neg != (sb < 0);
    u64 limit = (u64)1 << (bits - 1); /* first magnitude that does not fit a positive quotient */
    /* mag / mb >= limit (+1 when negative)  <=>  mag >= mb * limit (+ mb) */
    unsigned __int128 bound = (unsigned __int128)mb * limit + (qneg ? mb : 0);
    if (mag >= bound)
        interp_raise(in, X86_DE);
    return wide(in, insn, b, wide_idiv);
}

enum interp_result i_mulx(struct interp *in, const struct x86_insn *insn)
{
    need_feature(in, X86F_BMI2);
    unsigned bits = insn->op[0].size;
    unsigned __int128 r = (unsigned __int128)io_gpr(in, X86_RDX, bits / 8) * io_read(in, insn, 2);
    io_write(in, insn, 1, (u64)r & size_mask(bits / 8)); /* low first: both may be one register */
    io_write(in, insn, 0, (u64)(r >> bits));
    return INTERP_OK;
}

/*
 * --- decimal adjustments. They do not exist in 64-bit mode, so not on the host as we run on it;
 * flags left undefined by the manuals follow what CPUs do: SF ZF PF of the result, OF clear unless
 * noted.
 */

static u64 result_flags(u8 r)
{
    u64 f = 0;
    if (!r)
        f |= RFLAGS_ZF;
    if (r & 0x80)
        f |= RFLAGS_SF;
    if (!(__builtin_popcount(r) & 1))
        f |= RFLAGS_PF;
    return f;
}

static enum interp_result ascii_adjust(struct interp *in, bool subtract)
{
    struct x86_vcpu_state *s = in->s;
    u16 ax = (u16)s->gpr[X86_RAX];
    u64 f = 0;
    if ((ax & 15) > 9 || (s->rflags & RFLAGS_AF)) {
        ax = (u16)(subtract ? ax - 0x106 : ax + 0x106);
        f = RFLAGS_AF | RFLAGS_CF;
    }
    ax &= 0xff0f;
    io_set_gpr(in, X86_RAX, 2, ax);
    flags_set(&s->rflags, f | result_flags((u8)ax));
    return INTERP_OK;
}

enum interp_result i_aaa(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    return ascii_adjust(in, false);
}

enum interp_result i_aas(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    return ascii_adjust(in, true);
}

enum interp_result i_aad(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    u16 ax = (u16)s->gpr[X86_RAX];
    u8 al = (u8)((ax & 0xff) + (ax >> 8) * (u8)insn->imm[0]);
    io_set_gpr(in, X86_RAX, 2, al);
    flags_set(&s->rflags, result_flags(al));
    return INTERP_OK;
}

enum interp_result i_aam(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    u8 al = (u8)s->gpr[X86_RAX], base = (u8)insn->imm[0];
    if (!base)
        interp_raise(in, X86_DE);
    u8 rem = (u8)(al % base);
    io_set_gpr(in, X86_RAX, 2, (u64)(al / base) << 8 | rem);
    flags_set(&s->rflags, result_flags(rem));
    return INTERP_OK;
}

static enum interp_result decimal_adjust(struct interp *in, bool subtract)
{
    struct x86_vcpu_state *s = in->s;
    u8 al = (u8)s->gpr[X86_RAX], r = al;
    bool cf = (s->rflags & RFLAGS_CF) != 0, carry = false;
    u64 f = 0;
    if ((al & 15) > 9 || (s->rflags & RFLAGS_AF)) {
        carry = cf || (subtract ? al < 6 : al > 0xf9);
        r = (u8)(subtract ? r - 6 : r + 6);
        f |= RFLAGS_AF;
    }
    if (al > 0x99 || cf) {
        r = (u8)(subtract ? r - 0x60 : r + 0x60);
        carry = true;
    }
    if (carry)
        f |= RFLAGS_CF;
    io_set_gpr(in, X86_RAX, 1, r);
    flags_set(&s->rflags, f | result_flags(r));
    return INTERP_OK;
}

enum interp_result i_daa(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    return decimal_adjust(in, false);
}

enum interp_result i_das(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    return decimal_adjust(in, true);
}
