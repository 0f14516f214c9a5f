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
 * --- decimal adjustments. They do not exist in 64-bit mode, so not on the host as we run on it.
 * Flags left undefined by the manuals are those of the addition or subtraction the adjustment is
 * made of, before digits are cut off: so the host, checked over all inputs.
 */

#define ADJUST_CASE(text, mod)                                                                     \
    __asm__(text " %" mod "[b], %" mod "[a]" FLAGS_OUT                                             \
            : [a] "+r"(a), "=a"(ax)                                                                \
            : [b] "r"(b)                                                                           \
            : "c"                                                                                  \
              "c")

static u64 add8(u64 a, u64 b, u64 *f)
{
    u64 ax;
    ADJUST_CASE("addb", "b");
    *f = flags_from_ax(ax);
    return (u8)a;
}

static u64 sub8(u64 a, u64 b, u64 *f)
{
    u64 ax;
    ADJUST_CASE("subb", "b");
    *f = flags_from_ax(ax);
    return (u8)a;
}

static u64 add16(u64 a, u64 b, u64 *f)
{
    u64 ax;
    ADJUST_CASE("addw", "w");
    *f = flags_from_ax(ax);
    return (u16)a;
}

static u64 sub16(u64 a, u64 b, u64 *f)
{
    u64 ax;
    ADJUST_CASE("subw", "w");
    *f = flags_from_ax(ax);
    return (u16)a;
}

typedef u64 adjust_fn(u64 a, u64 b, u64 *f);

static enum interp_result ascii_adjust(struct interp *in, adjust_fn *fn)
{
    struct x86_vcpu_state *s = in->s;
    bool adjust = (s->gpr[X86_RAX] & 15) > 9 || (s->rflags & RFLAGS_AF);
    u64 f, ax = fn((u16)s->gpr[X86_RAX], adjust ? 0x106 : 0, &f);
    f &= ~(RFLAGS_AF | RFLAGS_CF);
    if (adjust)
        f |= RFLAGS_AF | RFLAGS_CF;
    io_set_gpr(in, X86_RAX, 2, ax & 0xff0f);
    flags_set(&s->rflags, f);
    return INTERP_OK;
}

enum interp_result i_aaa(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    return ascii_adjust(in, add16);
}

enum interp_result i_aas(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    return ascii_adjust(in, sub16);
}

enum interp_result i_aad(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    u16 ax = (u16)s->gpr[X86_RAX];
    u64 f, al = add8(ax & 0xff, (u8)((ax >> 8) * (u8)insn->imm[0]), &f);
    io_set_gpr(in, X86_RAX, 2, al);
    flags_set(&s->rflags, f);
    return INTERP_OK;
}

enum interp_result i_aam(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    u8 al = (u8)s->gpr[X86_RAX], base = (u8)insn->imm[0];
    u64 f;
    if (!base)
        interp_raise(in, X86_DE);
    u64 rem = add8(al % base, 0, &f);
    io_set_gpr(in, X86_RAX, 2, (u64)(al / base) << 8 | rem);
    flags_set(&s->rflags, f);
    return INTERP_OK;
}

static enum interp_result decimal_adjust(struct interp *in, adjust_fn *fn, bool subtract)
{
    struct x86_vcpu_state *s = in->s;
    u8 al = (u8)s->gpr[X86_RAX];
    bool low = (al & 15) > 9 || (s->rflags & RFLAGS_AF);
    bool high = al > 0x99 || (s->rflags & RFLAGS_CF);
    u64 f, r = fn(al, (low ? 6u : 0u) + (high ? 0x60u : 0u), &f);
    f &= ~(RFLAGS_AF | RFLAGS_CF);
    if (low)
        f |= RFLAGS_AF;
    /* DAS also keeps the borrow of its first step. */
    if (high || (subtract && low && al < 6))
        f |= RFLAGS_CF;
    io_set_gpr(in, X86_RAX, 1, r);
    flags_set(&s->rflags, f);
    return INTERP_OK;
}

enum interp_result i_daa(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    return decimal_adjust(in, add8, false);
}

enum interp_result i_das(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    return decimal_adjust(in, sub8, true);
}
