/* SPDX-License-Identifier: Apache-2.0 */
/* Two-operand arithmetic and logic, and the exchange instructions. */
#include <string.h>

#include "engine/interp/integer.h"

/* (a op b), with the flags going through *f. */
typedef u64 alu_fn(u64 a, u64 b, unsigned size, u64 *f);

/* One function per operation, the host's instruction for each operand size. */
#define ALU_CASE(op, suffix, mod, flags_in)                                                        \
    __asm__(flags_in op suffix " %" mod "[b], %" mod "[a]" FLAGS_OUT                               \
            : [a] "+r"(a), "+a"(ax)                                                                \
            : [b] "r"(b)                                                                           \
            : "cc")

#define ALU(name, op, flags_in)                                                                    \
    static inline __attribute__((always_inline)) u64 name(u64 a, u64 b, unsigned size, u64 *f)     \
    {                                                                                              \
        u64 ax = flags_to_ax(*f);                                                                  \
        switch (size) {                                                                            \
        case 1:                                                                                    \
            ALU_CASE(op, "b", "b", flags_in);                                                      \
            break;                                                                                 \
        case 2:                                                                                    \
            ALU_CASE(op, "w", "w", flags_in);                                                      \
            break;                                                                                 \
        case 4:                                                                                    \
            ALU_CASE(op, "l", "k", flags_in);                                                      \
            break;                                                                                 \
        default:                                                                                   \
            ALU_CASE(op, "q", "q", flags_in);                                                      \
            break;                                                                                 \
        }                                                                                          \
        *f = flags_from_ax(ax);                                                                    \
        return a;                                                                                  \
    }

ALU(op_add, "add", "")
ALU(op_or, "or", "")
ALU(op_and, "and", "")
ALU(op_sub, "sub", "")
ALU(op_xor, "xor", "")
ALU(op_adc, "adc", FLAGS_IN)
ALU(op_sbb, "sbb", FLAGS_IN)

/* One-operand forms: b is ignored. INC and DEC keep CF. */
#define ALU1_CASE(op, suffix, mod, flags_in)                                                       \
    __asm__(flags_in op suffix " %" mod "[a]" FLAGS_OUT : [a] "+r"(a), "+a"(ax) : : "cc")

#define ALU1(name, op, flags_in)                                                                   \
    static inline __attribute__((always_inline)) u64 name(u64 a, u64 b, unsigned size, u64 *f)     \
    {                                                                                              \
        u64 ax = flags_to_ax(*f);                                                                  \
        (void)b;                                                                                   \
        switch (size) {                                                                            \
        case 1:                                                                                    \
            ALU1_CASE(op, "b", "b", flags_in);                                                     \
            break;                                                                                 \
        case 2:                                                                                    \
            ALU1_CASE(op, "w", "w", flags_in);                                                     \
            break;                                                                                 \
        case 4:                                                                                    \
            ALU1_CASE(op, "l", "k", flags_in);                                                     \
            break;                                                                                 \
        default:                                                                                   \
            ALU1_CASE(op, "q", "q", flags_in);                                                     \
            break;                                                                                 \
        }                                                                                          \
        *f = flags_from_ax(ax);                                                                    \
        return a;                                                                                  \
    }

ALU1(op_inc, "inc", FLAGS_IN)
ALU1(op_dec, "dec", FLAGS_IN)
ALU1(op_neg, "neg", "")

static inline u64 op_not(u64 a, u64 b, unsigned size, u64 *f)
{
    (void)b;
    (void)size;
    (void)f;
    return ~a;
}

bool rmw_cas(void *p, unsigned size, u64 *old, u64 val)
{
    switch (size) {
    case 1: {
        u8 e = (u8)*old;
        bool ok = __atomic_compare_exchange_n((u8 *)p, &e, (u8)val, false, __ATOMIC_SEQ_CST,
                                              __ATOMIC_SEQ_CST);
        *old = e;
        return ok;
    }
    case 2: {
        u16 e = (u16)*old;
        bool ok = __atomic_compare_exchange_n((u16 *)p, &e, (u16)val, false, __ATOMIC_SEQ_CST,
                                              __ATOMIC_SEQ_CST);
        *old = e;
        return ok;
    }
    case 4: {
        u32 e = (u32)*old;
        bool ok = __atomic_compare_exchange_n((u32 *)p, &e, (u32)val, false, __ATOMIC_SEQ_CST,
                                              __ATOMIC_SEQ_CST);
        *old = e;
        return ok;
    }
    default:
        return __atomic_compare_exchange_n((u64 *)p, old, val, false, __ATOMIC_SEQ_CST,
                                           __ATOMIC_SEQ_CST);
    }
}

/* dst op= src with src (operand 1, when there is one) already read. */
static inline __attribute__((always_inline)) void
alu_mem(struct interp *in, const struct x86_insn *insn, unsigned size, u64 b, alu_fn *fn)
{
    struct im_rmw m;
    bool locked = (insn->prefixes & X86_PFX_LOCK) != 0;
    u64 f = in->s->rflags, a = 0;
    rmw_begin(in, insn, size, locked, &m);
    im_rmw_get(in, &m, &a);
    if (locked && m.single) {
        u64 r;
        do {
            f = in->s->rflags;
            r = fn(a, b, size, &f);
        } while (!rmw_cas(m.part[0].host, size, &a, r));
    } else {
        u64 r = fn(a, b, size, &f);
        im_rmw_put(in, &m, &r);
    }
    rmw_end(in, locked, &m);
    flags_set(&in->s->rflags, f & RFLAGS_ARITH);
}

static inline __attribute__((always_inline)) enum interp_result
alu_rmw(struct interp *in, const struct x86_insn *insn, bool two, alu_fn *fn)
{
    unsigned size = insn->op[0].size / 8u;
    u64 b = two ? io_read(in, insn, 1) : 0;
    if (insn->op[0].kind == X86_OP_MEM) {
        alu_mem(in, insn, size, b, fn);
        return INTERP_OK;
    }
    u64 f = in->s->rflags;
    u64 r = fn(io_read(in, insn, 0), b, size, &f);
    io_write(in, insn, 0, r);
    flags_set(&in->s->rflags, f & RFLAGS_ARITH);
    return INTERP_OK;
}

#define RMW(name, two, fn)                                                                         \
    enum interp_result name(struct interp *in, const struct x86_insn *insn)                        \
    {                                                                                              \
        return alu_rmw(in, insn, two, fn);                                                         \
    }

RMW(i_add, true, op_add)
RMW(i_or, true, op_or)
RMW(i_adc, true, op_adc)
RMW(i_sbb, true, op_sbb)
RMW(i_and, true, op_and)
RMW(i_sub, true, op_sub)
RMW(i_xor, true, op_xor)
RMW(i_inc, false, op_inc)
RMW(i_dec, false, op_dec)
RMW(i_neg, false, op_neg)
RMW(i_not, false, op_not)

static inline __attribute__((always_inline)) enum interp_result
alu_compare(struct interp *in, const struct x86_insn *insn, alu_fn *fn)
{
    u64 a = io_read(in, insn, 0), b = io_read(in, insn, 1), f = in->s->rflags;
    fn(a, b, insn->op[0].size / 8u, &f);
    flags_set(&in->s->rflags, f);
    return INTERP_OK;
}

enum interp_result i_cmp(struct interp *in, const struct x86_insn *insn)
{
    return alu_compare(in, insn, op_sub);
}

enum interp_result i_test(struct interp *in, const struct x86_insn *insn)
{
    return alu_compare(in, insn, op_and);
}

/* ADCX and ADOX: an addition through CF or OF that leaves the other flags alone. */
static enum interp_result add_through(struct interp *in, const struct x86_insn *insn, u64 flag)
{
    need_feature(in, X86F_ADX);
    unsigned size = insn->op[0].size / 8u;
    u64 mask = size_mask(size);
    u64 a = io_read(in, insn, 0), b = io_read(in, insn, 1) & mask;
    u64 c = in->s->rflags & flag ? 1 : 0;
    unsigned __int128 sum = (unsigned __int128)a + b + c;
    io_write(in, insn, 0, (u64)sum & mask);
    in->s->rflags &= ~flag;
    if ((sum >> (8 * size)) & 1)
        in->s->rflags |= flag;
    return INTERP_OK;
}

enum interp_result i_adcx(struct interp *in, const struct x86_insn *insn)
{
    return add_through(in, insn, RFLAGS_CF);
}

enum interp_result i_adox(struct interp *in, const struct x86_insn *insn)
{
    return add_through(in, insn, RFLAGS_OF);
}

enum interp_result i_xadd(struct interp *in, const struct x86_insn *insn)
{
    unsigned size = insn->op[0].size / 8u;
    u64 b = io_read(in, insn, 1), a = 0, f = 0;
    if (insn->op[0].kind != X86_OP_MEM) {
        a = io_read(in, insn, 0);
        u64 r = op_add(a, b, size, &f);
        io_write(in, insn, 1, a); /* first: XADD r,r with one register leaves the sum */
        io_write(in, insn, 0, r);
    } else {
        struct im_rmw m;
        bool locked = (insn->prefixes & X86_PFX_LOCK) != 0;
        rmw_begin(in, insn, size, locked, &m);
        im_rmw_get(in, &m, &a);
        if (locked && m.single) {
            u64 r;
            do {
                r = op_add(a, b, size, &f);
            } while (!rmw_cas(m.part[0].host, size, &a, r));
        } else {
            u64 r = op_add(a, b, size, &f);
            im_rmw_put(in, &m, &r);
        }
        rmw_end(in, locked, &m);
        io_write(in, insn, 1, a);
    }
    flags_set(&in->s->rflags, f);
    return INTERP_OK;
}

/* XCHG with memory is locked with and without the prefix (SDM 2D XCHG). */
enum interp_result i_xchg(struct interp *in, const struct x86_insn *insn)
{
    unsigned mem = insn->op[0].kind == X86_OP_MEM ? 0 : 1;
    unsigned reg = 1 - mem, size = insn->op[0].size / 8u;
    if (insn->op[mem].kind != X86_OP_MEM) {
        u64 a = io_read(in, insn, 0), b = io_read(in, insn, 1);
        io_write(in, insn, 0, b);
        io_write(in, insn, 1, a);
        return INTERP_OK;
    }
    struct im_rmw m;
    u64 a = 0, b = io_read(in, insn, reg);
    rmw_begin(in, insn, size, true, &m);
    im_rmw_get(in, &m, &a);
    if (m.single)
        while (!rmw_cas(m.part[0].host, size, &a, b))
            ;
    else
        im_rmw_put(in, &m, &b);
    rmw_end(in, true, &m);
    io_write(in, insn, reg, a);
    return INTERP_OK;
}

/* The destination is written in any case (SDM 2A CMPXCHG), so a failing compare needs a writable
 * page too. */
enum interp_result i_cmpxchg(struct interp *in, const struct x86_insn *insn)
{
    unsigned size = insn->op[0].size / 8u;
    u64 acc = io_gpr(in, X86_RAX, size), src = io_read(in, insn, 1), old = 0, f = 0;
    if (insn->op[0].kind != X86_OP_MEM) {
        old = io_read(in, insn, 0);
        op_sub(acc, old, size, &f);
        if (old == acc) {
            io_write(in, insn, 0, src);
        } else {
            /* Whether a 32-bit destination loses its upper half here is the CPU's choice. */
            if (size == 4) {
                u64 *d = &in->s->gpr[insn->op[0].reg], a = acc;
                __asm__("cmpxchgl %k2, %k1" : "+a"(a), "+r"(*d) : "r"(src) : "cc");
            }
            io_set_gpr(in, X86_RAX, size, old);
        }
        flags_set(&in->s->rflags, f);
        return INTERP_OK;
    }
    struct im_rmw m;
    bool locked = (insn->prefixes & X86_PFX_LOCK) != 0;
    rmw_begin(in, insn, size, locked, &m);
    if (m.single) {
        old = acc;
        rmw_cas(m.part[0].host, size, &old, src);
    } else {
        im_rmw_get(in, &m, &old);
        im_rmw_put(in, &m, old == acc ? &src : &old);
    }
    rmw_end(in, locked, &m);
    op_sub(acc, old, size, &f);
    if (old != acc)
        io_set_gpr(in, X86_RAX, size, old);
    flags_set(&in->s->rflags, f);
    return INTERP_OK;
}

static bool cas128(void *p, u64 old[2], const u64 val[2])
{
    bool ok;
    __asm__ volatile("lock cmpxchg16b %[m]"
                     : [m] "+m"(*(unsigned __int128 *)p), "+a"(old[0]), "+d"(old[1]), "=@ccz"(ok)
                     : "b"(val[0]), "c"(val[1])
                     : "memory");
    return ok;
}

/* CMPXCHG8B and CMPXCHG16B. */
enum interp_result i_cmpxchg8b(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    unsigned size = insn->mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B ? 16 : 8, half = size / 2;
    u64 acc[2] = {io_gpr(in, X86_RAX, half), io_gpr(in, X86_RDX, half)};
    u64 src[2] = {io_gpr(in, X86_RBX, half), io_gpr(in, X86_RCX, half)};
    u64 old[2] = {0, 0};
    struct im_rmw m;
    bool locked = (insn->prefixes & X86_PFX_LOCK) != 0, eq;
    if (size == 16) {
        need_feature(in, X86F_CX16);
        u64 lin = im_linear(in, insn->mem.seg, im_ea(in, insn), 16, true);
        if (lin & 15)
            interp_raise_err(in, X86_GP, 0);
        im_rmw(in, lin, 16, im_access(in), &m);
        if (rmw_stops_others(locked, &m))
            in->ops->exclusive_begin(in->opaque);
    } else {
        rmw_begin(in, insn, 8, locked, &m);
    }
    if (size == 8) {
        acc[0] |= acc[1] << 32;
        src[0] |= src[1] << 32;
        acc[1] = src[1] = 0;
    }
    if (m.single) {
        old[0] = acc[0];
        old[1] = acc[1];
        eq =
            size == 16 ? cas128(m.part[0].host, old, src) : rmw_cas(m.part[0].host, 8, old, src[0]);
    } else {
        im_rmw_get(in, &m, old);
        eq = old[0] == acc[0] && old[1] == acc[1];
        im_rmw_put(in, &m, eq ? src : old);
    }
    rmw_end(in, locked, &m);
    s->rflags &= ~RFLAGS_ZF;
    if (eq) {
        s->rflags |= RFLAGS_ZF;
    } else {
        io_set_gpr(in, X86_RAX, half, size == 16 ? old[0] : (u32)old[0]);
        io_set_gpr(in, X86_RDX, half, size == 16 ? old[1] : old[0] >> 32);
    }
    return INTERP_OK;
}
