/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MOVS STOS LODS CMPS SCAS. One step does one iteration, or with REP as many as fit the pages in
 * reach (in RAM, upwards, nothing watching), by the host's own instruction on host addresses. RIP
 * stays at the instruction until the count is done; the registers are architectural after each
 * step, so faults and interrupts between steps are precise.
 */
#include "engine/interp/integer.h"

struct string_op {
    unsigned size;
    u64 mask; /* of the address size */
    u64 step; /* what is added to the index registers */
    bool rep;
    unsigned src_seg;
};

static bool string_begin(struct interp *in, const struct x86_insn *insn, struct string_op *o)
{
    o->size = insn->mem.size / 8u;
    o->mask = size_mask(insn->addrsize);
    o->step = in->s->rflags & RFLAGS_DF ? -(u64)o->size : o->size;
    o->rep = (insn->prefixes & (X86_PFX_REP | X86_PFX_REPNE)) != 0;
    o->src_seg = insn->mem.seg;
    return !o->rep || (in->s->gpr[X86_RCX] & o->mask);
}

static void advance(struct interp *in, const struct x86_insn *insn, const struct string_op *o,
                    unsigned reg, u64 n)
{
    io_set_gpr(in, reg, insn->addrsize, (in->s->gpr[reg] + n * o->step) & o->mask);
}

/* After n iterations of a repeated instruction: stay here when more are to come. Until then RF
 * keeps an instruction breakpoint from triggering again (SDM 3B 17.3.1.1). */
static void count_down(struct interp *in, const struct x86_insn *insn, const struct string_op *o,
                       u64 n, bool stop)
{
    if (!o->rep)
        return;
    u64 left = ((in->s->gpr[X86_RCX] & o->mask) - n) & o->mask;
    io_set_gpr(in, X86_RCX, insn->addrsize, left);
    if (left && !stop) {
        in->next_rip = in->s->rip;
        /* AMD's CPUs do not show it to anyone; here it keeps the breakpoint quiet. */
        if (!in->model || !in->model->amd || (in->s->dr7 & DR7_ENABLED))
            in->s->rflags |= RFLAGS_RF;
    }
}

/*
 * A run of up to `n` elements at seg:reg lying in one page of RAM: its host address, and n reduced
 * to what is there; 0 when the slow way must be taken. Faults are left to the slow way.
 */
static u64 run_at(struct interp *in, const struct string_op *o, unsigned seg, unsigned reg, u64 n,
                  bool write, void **host)
{
    struct interp_ref ref;
    u64 off = in->s->gpr[reg] & o->mask, lin;
    if (!im_linear_ok(in, seg, off, o->size, write, &lin))
        return 0;
    u64 fit = (PAGE_SIZE - (lin & ~PAGE_MASK)) / o->size;
    if (fit < n)
        n = fit;
    fit = (o->mask - off) / o->size + 1; /* up to where the offset wraps */
    if (fit < n)
        n = fit;
    if (!n || !im_linear_ok(in, seg, off, n * o->size, write, &lin))
        return 0;
    unsigned access = im_access(in) | (write ? X86_ACC_WRITE : X86_ACC_READ);
    struct interp_fault saved = in->fault;
    if (in->ops->translate(in->opaque, lin, (unsigned)(n * o->size), access, &ref, &in->fault) ||
        !ref.host) {
        in->fault = saved;
        return 0;
    }
    *host = ref.host;
    return n;
}

/* Can more than one iteration be done in this step? */
static bool can_run(const struct interp *in, const struct string_op *o)
{
    const struct x86_vcpu_state *s = in->s;
    return o->rep && !in->watched && !(s->rflags & (RFLAGS_DF | RFLAGS_TF)) &&
           !(s->dr7 & DR7_ENABLED) && !((s->rflags & RFLAGS_AC) && s->cpl == 3);
}

#define REP_CASE(op, suffix)                                                                       \
    __asm__ volatile("cld\n\trep " op suffix                                                       \
                     : "+D"(dst), "+S"(src), "+c"(n), "+a"(acc)                                    \
                     :                                                                             \
                     : "memory", "cc")

static void host_movs(void *dst, const void *src, u64 n, unsigned size)
{
    u64 acc = 0;
    switch (size) {
    case 1:
        REP_CASE("movs", "b");
        break;
    case 2:
        REP_CASE("movs", "w");
        break;
    case 4:
        REP_CASE("movs", "l");
        break;
    default:
        REP_CASE("movs", "q");
        break;
    }
}

static void host_stos(void *dst, u64 acc, u64 n, unsigned size)
{
    const void *src = NULL;
    switch (size) {
    case 1:
        REP_CASE("stos", "b");
        break;
    case 2:
        REP_CASE("stos", "w");
        break;
    case 4:
        REP_CASE("stos", "l");
        break;
    default:
        REP_CASE("stos", "q");
        break;
    }
}

enum interp_result i_movs(struct interp *in, const struct x86_insn *insn)
{
    struct string_op o;
    if (!string_begin(in, insn, &o))
        goto none;
    if (can_run(in, &o)) {
        void *src, *dst;
        u64 n = run_at(in, &o, o.src_seg, X86_RSI, in->s->gpr[X86_RCX] & o.mask, false, &src);
        if (n)
            n = run_at(in, &o, X86_ES, X86_RDI, n, true, &dst);
        if (n) {
            host_movs(dst, src, n, o.size);
            advance(in, insn, &o, X86_RSI, n);
            advance(in, insn, &o, X86_RDI, n);
            count_down(in, insn, &o, n, false);
            return INTERP_OK;
        }
    }
    u64 v = im_read(in, o.src_seg, in->s->gpr[X86_RSI] & o.mask, o.size);
    im_write(in, X86_ES, in->s->gpr[X86_RDI] & o.mask, o.size, v);
    advance(in, insn, &o, X86_RSI, 1);
    advance(in, insn, &o, X86_RDI, 1);
    count_down(in, insn, &o, 1, false);
    return INTERP_OK;
none:
    return INTERP_OK;
}

enum interp_result i_stos(struct interp *in, const struct x86_insn *insn)
{
    struct string_op o;
    if (!string_begin(in, insn, &o))
        return INTERP_OK;
    u64 acc = in->s->gpr[X86_RAX];
    if (can_run(in, &o)) {
        void *dst;
        u64 n = run_at(in, &o, X86_ES, X86_RDI, in->s->gpr[X86_RCX] & o.mask, true, &dst);
        if (n) {
            host_stos(dst, acc, n, o.size);
            advance(in, insn, &o, X86_RDI, n);
            count_down(in, insn, &o, n, false);
            return INTERP_OK;
        }
    }
    im_write(in, X86_ES, in->s->gpr[X86_RDI] & o.mask, o.size, acc);
    advance(in, insn, &o, X86_RDI, 1);
    count_down(in, insn, &o, 1, false);
    return INTERP_OK;
}

enum interp_result i_lods(struct interp *in, const struct x86_insn *insn)
{
    struct string_op o;
    if (!string_begin(in, insn, &o))
        return INTERP_OK;
    u64 v = im_read(in, o.src_seg, in->s->gpr[X86_RSI] & o.mask, o.size);
    io_set_gpr(in, X86_RAX, o.size, v);
    advance(in, insn, &o, X86_RSI, 1);
    count_down(in, insn, &o, 1, false);
    return INTERP_OK;
}

/* --- comparing ones */

/* Flags of a - b. */
static u64 compare(u64 a, u64 b, unsigned size)
{
    u64 ax = 0;
    unsigned shift = 64 - 8 * size;
    /* At the top of a register every flag but AF and PF comes out right; those two want the low
     * byte. */
    u64 x = a << shift, y = b << shift, lo = 0;
    __asm__("cmpq %[y], %[x]" FLAGS_OUT : "+a"(ax) : [x] "r"(x), [y] "r"(y) : "cc");
    __asm__("cmpb %b[y], %b[x]" FLAGS_OUT : "+a"(lo) : [x] "r"(a), [y] "r"(b) : "cc");
    u64 low = RFLAGS_AF | RFLAGS_PF;
    return (flags_from_ax(ax) & ~low) | (flags_from_ax(lo) & low);
}

/* True when a repeated comparison ends on these flags. */
static bool ends(const struct x86_insn *insn, u64 f)
{
    bool zf = (f & RFLAGS_ZF) != 0;
    return insn->prefixes & X86_PFX_REPNE ? zf : !zf;
}

#define CMP_CASE(prefix, op, suffix)                                                               \
    __asm__ volatile("cld\n\t" prefix " " op suffix FLAGS_OUT                                      \
                     : "+D"(b), "+S"(a), "+c"(n), "+a"(ax)                                         \
                     :                                                                             \
                     : "memory", "cc")

#define CMP_SIZES(prefix, op)                                                                      \
    switch (size) {                                                                                \
    case 1:                                                                                        \
        CMP_CASE(prefix, op, "b");                                                                 \
        break;                                                                                     \
    case 2:                                                                                        \
        CMP_CASE(prefix, op, "w");                                                                 \
        break;                                                                                     \
    case 4:                                                                                        \
        CMP_CASE(prefix, op, "l");                                                                 \
        break;                                                                                     \
    default:                                                                                       \
        CMP_CASE(prefix, op, "q");                                                                 \
        break;                                                                                     \
    }

/* n > 0 elements on the host; returns how many were done, flags in *f. */
static u64 host_cmps(const void *a, const void *b, u64 n, unsigned size, bool repne, u64 *f)
{
    u64 all = n, ax = 0;
    if (repne) {
        CMP_SIZES("repne", "cmps")
    } else {
        CMP_SIZES("repe", "cmps")
    }
    *f = flags_from_ax(ax);
    return all - n;
}

static u64 host_scas(const void *b, u64 ax, u64 n, unsigned size, bool repne, u64 *f)
{
    u64 all = n;
    const void *a = NULL;
    if (repne) {
        CMP_SIZES("repne", "scas")
    } else {
        CMP_SIZES("repe", "scas")
    }
    *f = flags_from_ax(ax);
    return all - n;
}

enum interp_result i_cmps(struct interp *in, const struct x86_insn *insn)
{
    struct string_op o;
    u64 f;
    if (!string_begin(in, insn, &o))
        return INTERP_OK;
    u64 n = 0;
    if (can_run(in, &o)) {
        void *a, *b;
        n = run_at(in, &o, o.src_seg, X86_RSI, in->s->gpr[X86_RCX] & o.mask, false, &a);
        if (n)
            n = run_at(in, &o, X86_ES, X86_RDI, n, false, &b);
        if (n)
            n = host_cmps(a, b, n, o.size, (insn->prefixes & X86_PFX_REPNE) != 0, &f);
    }
    if (!n) {
        u64 x = im_read(in, o.src_seg, in->s->gpr[X86_RSI] & o.mask, o.size);
        u64 y = im_read(in, X86_ES, in->s->gpr[X86_RDI] & o.mask, o.size);
        f = compare(x, y, o.size);
        n = 1;
    }
    advance(in, insn, &o, X86_RSI, n);
    advance(in, insn, &o, X86_RDI, n);
    flags_set(&in->s->rflags, f);
    count_down(in, insn, &o, n, ends(insn, f));
    return INTERP_OK;
}

enum interp_result i_scas(struct interp *in, const struct x86_insn *insn)
{
    struct string_op o;
    u64 f;
    if (!string_begin(in, insn, &o))
        return INTERP_OK;
    u64 n = 0, acc = in->s->gpr[X86_RAX];
    if (can_run(in, &o)) {
        void *b;
        n = run_at(in, &o, X86_ES, X86_RDI, in->s->gpr[X86_RCX] & o.mask, false, &b);
        if (n)
            n = host_scas(b, acc, n, o.size, (insn->prefixes & X86_PFX_REPNE) != 0, &f);
    }
    if (!n) {
        u64 y = im_read(in, X86_ES, in->s->gpr[X86_RDI] & o.mask, o.size);
        f = compare(acc & size_mask(o.size), y, o.size);
        n = 1;
    }
    advance(in, insn, &o, X86_RDI, n);
    flags_set(&in->s->rflags, f);
    count_down(in, insn, &o, n, ends(insn, f));
    return INTERP_OK;
}
