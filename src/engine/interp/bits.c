/* SPDX-License-Identifier: Apache-2.0 */
/* Bit tests, scans and counts, BMI1 and BMI2. */
#include "engine/interp/integer.h"

/* --- BT BTS BTR BTC */

enum bit_op { BIT_TEST, BIT_SET, BIT_RESET, BIT_COMPLEMENT };

#define BT_CASE(op, suffix, mod)                                                                   \
    __asm__(FLAGS_IN op suffix " %" mod "[n], %" mod "[a]" FLAGS_OUT                               \
            : [a] "+r"(a), "+a"(ax)                                                                \
            : [n] "r"(n)                                                                           \
            : "cc")

/* On a value; n is already reduced to its width. Flags other than CF are the host's. */
static u64 bit_value(enum bit_op op, u64 a, u64 n, unsigned size, u64 *f)
{
    u64 ax = flags_to_ax(*f);
    switch (op) {
    case BIT_TEST:
        if (size == 2)
            BT_CASE("bt", "w", "w");
        else if (size == 4)
            BT_CASE("bt", "l", "k");
        else
            BT_CASE("bt", "q", "q");
        break;
    case BIT_SET:
        if (size == 2)
            BT_CASE("bts", "w", "w");
        else if (size == 4)
            BT_CASE("bts", "l", "k");
        else
            BT_CASE("bts", "q", "q");
        break;
    case BIT_RESET:
        if (size == 2)
            BT_CASE("btr", "w", "w");
        else if (size == 4)
            BT_CASE("btr", "l", "k");
        else
            BT_CASE("btr", "q", "q");
        break;
    default:
        if (size == 2)
            BT_CASE("btc", "w", "w");
        else if (size == 4)
            BT_CASE("btc", "l", "k");
        else
            BT_CASE("btc", "q", "q");
        break;
    }
    *f = flags_from_ax(ax);
    return a;
}

static enum interp_result bit_insn(struct interp *in, const struct x86_insn *insn, enum bit_op op)
{
    unsigned size = insn->op[0].size / 8u, bits = insn->op[0].size;
    u64 n = io_read(in, insn, 1), f = in->s->rflags, a = 0;
    if (insn->op[0].kind != X86_OP_MEM) {
        a = bit_value(op, io_read(in, insn, 0), n & (bits - 1), size, &f);
        if (op != BIT_TEST)
            io_write(in, insn, 0, a);
        flags_set(&in->s->rflags, f);
        return INTERP_OK;
    }
    u64 ea = im_ea(in, insn);
    if (insn->op[1].kind == X86_OP_GPR) {
        /* A register index addresses a bit string: it is signed and moves the operand (SDM 2A
         * 3.1.1.9). */
        s64 index = (s64)sign_extend(n, bits);
        ea += (u64)(index >> (size == 2 ? 4 : size == 4 ? 5 : 6)) * size;
        if (insn->addrsize != 8)
            ea &= size_mask(insn->addrsize);
    }
    n &= bits - 1;
    u64 lin = im_linear(in, insn->mem.seg, ea, size, op != BIT_TEST);
    im_align(in, lin, size);
    if (op == BIT_TEST) {
        a = im_lin_read(in, lin, size, im_access(in));
        bit_value(op, a, n, size, &f);
        flags_set(&in->s->rflags, f);
        return INTERP_OK;
    }
    struct im_rmw m;
    bool locked = (insn->prefixes & X86_PFX_LOCK) != 0;
    im_rmw(in, lin, size, im_access(in), &m);
    if (rmw_stops_others(locked, &m))
        in->ops->exclusive_begin(in->opaque);
    im_rmw_get(in, &m, &a);
    if (locked && m.single) {
        u64 r;
        do {
            f = in->s->rflags;
            r = bit_value(op, a, n, size, &f);
        } while (!rmw_cas(m.part[0].host, size, &a, r));
    } else {
        u64 r = bit_value(op, a, n, size, &f);
        im_rmw_put(in, &m, &r);
    }
    rmw_end(in, locked, &m);
    flags_set(&in->s->rflags, f);
    return INTERP_OK;
}

enum interp_result i_bt(struct interp *in, const struct x86_insn *insn)
{
    return bit_insn(in, insn, BIT_TEST);
}

enum interp_result i_bts(struct interp *in, const struct x86_insn *insn)
{
    return bit_insn(in, insn, BIT_SET);
}

enum interp_result i_btr(struct interp *in, const struct x86_insn *insn)
{
    return bit_insn(in, insn, BIT_RESET);
}

enum interp_result i_btc(struct interp *in, const struct x86_insn *insn)
{
    return bit_insn(in, insn, BIT_COMPLEMENT);
}

/* --- scans and counts: dst, src */

#define SCAN_CASE(op, suffix, mod)                                                                 \
    __asm__(FLAGS_IN op suffix " %" mod "[b], %" mod "[a]" FLAGS_OUT                               \
            : [a] "+r"(a), "+a"(ax)                                                                \
            : [b] "r"(b)                                                                           \
            : "cc")

/* `a` goes in as the old destination: BSF and BSR of zero leave it as it was. */
#define SCAN(handler, text, feature)                                                               \
    enum interp_result handler(struct interp *in, const struct x86_insn *insn)                     \
    {                                                                                              \
        need_feature(in, feature);                                                                 \
        unsigned size = insn->op[0].size / 8u;                                                     \
        u64 b = io_read(in, insn, 1), a = in->s->gpr[insn->op[0].reg];                             \
        u64 ax = flags_to_ax(in->s->rflags);                                                       \
        if (size == 2)                                                                             \
            SCAN_CASE(text, "w", "w");                                                             \
        else if (size == 4)                                                                        \
            SCAN_CASE(text, "l", "k");                                                             \
        else                                                                                       \
            SCAN_CASE(text, "q", "q");                                                             \
        in->s->gpr[insn->op[0].reg] = a; /* all 64 bits as the host left them */                   \
        flags_set(&in->s->rflags, flags_from_ax(ax));                                              \
        return INTERP_OK;                                                                          \
    }

SCAN(i_bsf, "bsf", 0)
SCAN(i_bsr, "bsr", 0)
SCAN(i_lzcnt, "lzcnt", X86F_LZCNT)
SCAN(i_tzcnt, "tzcnt", X86F_BMI1)
SCAN(i_popcnt, "popcnt", X86F_POPCNT)

enum interp_result i_crc32(struct interp *in, const struct x86_insn *insn)
{
    need_feature(in, X86F_SSE42);
    u64 crc = (u32)in->s->gpr[insn->op[0].reg], b = io_read(in, insn, 1);
    switch (insn->op[1].size) {
    case 8:
        __asm__("crc32b %b1, %k0" : "+r"(crc) : "r"(b));
        break;
    case 16:
        __asm__("crc32w %w1, %k0" : "+r"(crc) : "r"(b));
        break;
    case 32:
        __asm__("crc32l %k1, %k0" : "+r"(crc) : "r"(b));
        break;
    default:
        __asm__("crc32q %q1, %q0" : "+r"(crc) : "r"(b));
        break;
    }
    in->s->gpr[insn->op[0].reg] = crc;
    return INTERP_OK;
}

/* --- BMI1 and BMI2: VEX forms of 32 and 64 bits, run on the host for its flags */

#define BMI3_CASE(op, mod)                                                                         \
    __asm__(FLAGS_IN op " %" mod "[c], %" mod "[b], %" mod "[a]" FLAGS_OUT                         \
            : [a] "=&r"(a), "+a"(ax)                                                               \
            : [b] "r"(b), [c] "r"(c)                                                               \
            : "cc")

/* AT&T order: op c, b, a for "a = b op c" as the manuals write it. */
#define BMI3(handler, text, first, second, feature)                                                \
    enum interp_result handler(struct interp *in, const struct x86_insn *insn)                     \
    {                                                                                              \
        need_feature(in, feature);                                                                 \
        u64 b = io_read(in, insn, first), c = io_read(in, insn, second), a;                        \
        u64 ax = flags_to_ax(in->s->rflags);                                                       \
        if (insn->op[0].size == 64)                                                                \
            BMI3_CASE(text, "q");                                                                  \
        else                                                                                       \
            BMI3_CASE(text, "k");                                                                  \
        io_write(in, insn, 0, a);                                                                  \
        flags_set(&in->s->rflags, flags_from_ax(ax));                                              \
        return INTERP_OK;                                                                          \
    }

BMI3(i_andn, "andn", 1, 2, X86F_BMI1)
BMI3(i_bextr, "bextr", 1, 2, X86F_BMI1)
BMI3(i_bzhi, "bzhi", 1, 2, X86F_BMI2)
BMI3(i_pdep, "pdep", 1, 2, X86F_BMI2)
BMI3(i_pext, "pext", 1, 2, X86F_BMI2)

#define BMI2OP_CASE(op, mod)                                                                       \
    __asm__(FLAGS_IN op " %" mod "[b], %" mod "[a]" FLAGS_OUT                                      \
            : [a] "=&r"(a), "+a"(ax)                                                               \
            : [b] "r"(b)                                                                           \
            : "cc")

#define BLS(handler, text)                                                                         \
    enum interp_result handler(struct interp *in, const struct x86_insn *insn)                     \
    {                                                                                              \
        need_feature(in, X86F_BMI1);                                                               \
        u64 b = io_read(in, insn, 1), a;                                                           \
        u64 ax = flags_to_ax(in->s->rflags);                                                       \
        if (insn->op[0].size == 64)                                                                \
            BMI2OP_CASE(text, "q");                                                                \
        else                                                                                       \
            BMI2OP_CASE(text, "k");                                                                \
        io_write(in, insn, 0, a);                                                                  \
        flags_set(&in->s->rflags, flags_from_ax(ax));                                              \
        return INTERP_OK;                                                                          \
    }

BLS(i_blsi, "blsi")
BLS(i_blsmsk, "blsmsk")
BLS(i_blsr, "blsr")
