/* SPDX-License-Identifier: Apache-2.0 */
/* Shifts and rotates, single, double and BMI2. */
#include "engine/interp/integer.h"

typedef u64 shift_fn(u64 a, u8 count, unsigned size, u64 *f);

#define SHIFT_CASE(op, suffix, mod)                                                                \
    __asm__(FLAGS_IN op suffix " %%cl, %" mod "[a]" FLAGS_OUT                                      \
            : [a] "+r"(a), "+a"(ax)                                                                \
            : "c"(count)                                                                           \
            : "cc")

/* The host's instruction with the count in CL: a count of zero leaves the flags alone, and flags
 * undefined for some counts are the host's. */
#define SHIFT(name, op)                                                                            \
    static inline u64 name(u64 a, u8 count, unsigned size, u64 *f)                                 \
    {                                                                                              \
        u64 ax = flags_to_ax(*f);                                                                  \
        switch (size) {                                                                            \
        case 1:                                                                                    \
            SHIFT_CASE(op, "b", "b");                                                              \
            break;                                                                                 \
        case 2:                                                                                    \
            SHIFT_CASE(op, "w", "w");                                                              \
            break;                                                                                 \
        case 4:                                                                                    \
            SHIFT_CASE(op, "l", "k");                                                              \
            break;                                                                                 \
        default:                                                                                   \
            SHIFT_CASE(op, "q", "q");                                                              \
            break;                                                                                 \
        }                                                                                          \
        *f = flags_from_ax(ax);                                                                    \
        return a;                                                                                  \
    }

SHIFT(op_rol, "rol")
SHIFT(op_ror, "ror")
SHIFT(op_rcl, "rcl")
SHIFT(op_rcr, "rcr")
SHIFT(op_shl, "shl")
SHIFT(op_shr, "shr")
SHIFT(op_sar, "sar")

static inline __attribute__((always_inline)) enum interp_result
shift(struct interp *in, const struct x86_insn *insn, shift_fn *fn)
{
    unsigned size = insn->op[0].size / 8u;
    u8 count = (u8)io_read(in, insn, 1); /* an immediate, an implicit 1, or CL */
    u64 f = in->s->rflags, a = 0;
    if (insn->op[0].kind == X86_OP_MEM) {
        struct im_rmw m;
        rmw_begin(in, insn, size, false, &m);
        im_rmw_get(in, &m, &a);
        u64 r = fn(a, count, size, &f);
        im_rmw_put(in, &m, &r);
    } else {
        a = io_read(in, insn, 0);
        io_write(in, insn, 0, fn(a, count, size, &f));
    }
    flags_set(&in->s->rflags, f);
    return INTERP_OK;
}

#define HANDLER(name, fn)                                                                          \
    enum interp_result name(struct interp *in, const struct x86_insn *insn)                        \
    {                                                                                              \
        return shift(in, insn, fn);                                                                \
    }

HANDLER(i_rol, op_rol)
HANDLER(i_ror, op_ror)
HANDLER(i_rcl, op_rcl)
HANDLER(i_rcr, op_rcr)
HANDLER(i_shl, op_shl)
HANDLER(i_shr, op_shr)
HANDLER(i_sar, op_sar)

#define DOUBLE_CASE(op, suffix, mod)                                                               \
    __asm__(FLAGS_IN op suffix " %%cl, %" mod "[b], %" mod "[a]" FLAGS_OUT                         \
            : [a] "+r"(a), "+a"(ax)                                                                \
            : [b] "r"(b), "c"(count)                                                               \
            : "cc")

#define DOUBLE(name, op)                                                                           \
    static inline u64 name(u64 a, u64 b, u8 count, unsigned size, u64 *f)                          \
    {                                                                                              \
        u64 ax = flags_to_ax(*f);                                                                  \
        switch (size) {                                                                            \
        case 2:                                                                                    \
            DOUBLE_CASE(op, "w", "w");                                                             \
            break;                                                                                 \
        case 4:                                                                                    \
            DOUBLE_CASE(op, "l", "k");                                                             \
            break;                                                                                 \
        default:                                                                                   \
            DOUBLE_CASE(op, "q", "q");                                                             \
            break;                                                                                 \
        }                                                                                          \
        *f = flags_from_ax(ax);                                                                    \
        return a;                                                                                  \
    }

DOUBLE(op_shld, "shld")
DOUBLE(op_shrd, "shrd")

static inline __attribute__((always_inline)) enum interp_result
shift_double(struct interp *in, const struct x86_insn *insn,
             u64 (*fn)(u64, u64, u8, unsigned, u64 *))
{
    unsigned size = insn->op[0].size / 8u;
    u8 count = (u8)io_read(in, insn, 2);
    u64 b = io_read(in, insn, 1), f = in->s->rflags, a = 0;
    if (insn->op[0].kind == X86_OP_MEM) {
        struct im_rmw m;
        rmw_begin(in, insn, size, false, &m);
        im_rmw_get(in, &m, &a);
        u64 r = fn(a, b, count, size, &f);
        im_rmw_put(in, &m, &r);
    } else {
        a = io_read(in, insn, 0);
        io_write(in, insn, 0, fn(a, b, count, size, &f));
    }
    flags_set(&in->s->rflags, f);
    return INTERP_OK;
}

enum interp_result i_shld(struct interp *in, const struct x86_insn *insn)
{
    return shift_double(in, insn, op_shld);
}

enum interp_result i_shrd(struct interp *in, const struct x86_insn *insn)
{
    return shift_double(in, insn, op_shrd);
}

/* --- BMI2: no flags */

enum interp_result i_rorx(struct interp *in, const struct x86_insn *insn)
{
    need_feature(in, X86F_BMI2);
    unsigned bits = insn->op[0].size;
    u64 a = io_read(in, insn, 1);
    unsigned n = (unsigned)insn->imm[0] & (bits - 1);
    io_write(in, insn, 0, n ? a >> n | a << (bits - n) : a);
    return INTERP_OK;
}

static void shift_x_operands(struct interp *in, const struct x86_insn *insn, u64 *a, unsigned *n)
{
    need_feature(in, X86F_BMI2);
    *n = (unsigned)io_read(in, insn, 2) & (insn->op[0].size - 1u);
    *a = io_read(in, insn, 1);
}

enum interp_result i_sarx(struct interp *in, const struct x86_insn *insn)
{
    u64 a;
    unsigned n;
    shift_x_operands(in, insn, &a, &n);
    io_write(in, insn, 0, (u64)((s64)sign_extend(a, insn->op[0].size) >> n));
    return INTERP_OK;
}

enum interp_result i_shlx(struct interp *in, const struct x86_insn *insn)
{
    u64 a;
    unsigned n;
    shift_x_operands(in, insn, &a, &n);
    io_write(in, insn, 0, a << n);
    return INTERP_OK;
}

enum interp_result i_shrx(struct interp *in, const struct x86_insn *insn)
{
    u64 a;
    unsigned n;
    shift_x_operands(in, insn, &a, &n);
    io_write(in, insn, 0, a >> n);
    return INTERP_OK;
}
