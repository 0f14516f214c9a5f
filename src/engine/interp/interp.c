/* SPDX-License-Identifier: Apache-2.0 */
/* The step: fetch, decode cache, execution, and where faults unwind to. */
#include <string.h>

#include "engine/interp/interp_priv.h"

/*
 * A decoded instruction. The key is the linear address and the code size; the bytes in memory are
 * compared at every use, so nothing has to be invalidated when code or translations change.
 */
struct cache_entry {
    u64 lin;
    u64 bytes[2], mask[2];
    interp_handler *handler;
    u8 key; /* mode | real << 7; 0: empty */
    struct x86_insn insn;
};

#define CACHE_ENTRIES 8192u

struct interp_cache {
    struct cache_entry entry[CACHE_ENTRIES];
    struct cache_entry scratch; /* instructions that cross a page or come from MMIO */
};

size_t interp_cache_size(void)
{
    return sizeof(struct interp_cache);
}

void interp_init(struct interp *in, struct x86_vcpu_state *s, const struct x86_cpu_model *model,
                 const struct interp_ops *ops, void *opaque, void *cache, void *native,
                 void *native_rx)
{
    memset(in, 0, sizeof *in);
    in->s = s;
    in->model = model;
    in->ops = ops;
    in->opaque = opaque;
    in->cache = cache;
    in->native = native;
    in->native_rx = native_rx;
    in->features = interp_features(model);
}

/* --- raising */

_Noreturn void interp_raise_fault(struct interp *in)
{
    __builtin_longjmp(in->fault_jmp, 1);
}

_Noreturn void interp_raise(struct interp *in, u8 vector)
{
    in->fault = (struct interp_fault){.vector = vector};
    interp_raise_fault(in);
}

_Noreturn void interp_raise_err(struct interp *in, u8 vector, u32 error)
{
    if (vector == X86_TS || vector == X86_NP || vector == X86_SS_FAULT || vector == X86_GP)
        error |= in->ext;
    in->fault = (struct interp_fault){.vector = vector, .has_error = true, .error = error};
    interp_raise_fault(in);
}

enum interp_result interp_exception(struct interp *in, const struct interp_fault *fault)
{
    struct x86_vcpu_state *s = in->s;
    struct interp_fault f = *fault;
    if (f.vector == X86_PF)
        s->cr2 = f.cr2;
    s->int_shadow = 0;
    in->new_shadow = 0;
    in->suppress_tf = false;
    return ievent_deliver(in, EV_FAULT, f.vector, f.has_error, f.error, s->rip);
}

enum interp_result interp_interrupt(struct interp *in, u8 vector, bool nmi)
{
    struct x86_vcpu_state *s = in->s;
    if (s->activity == X86_HALTED)
        s->activity = X86_RUNNING;
    s->int_shadow = 0;
    in->new_shadow = 0;
    in->suppress_tf = false;
    return ievent_deliver(in, nmi ? EV_NMI : EV_EXTERNAL, vector, false, 0, s->rip);
}

/* The #DB trap that DR6 already describes. */
static enum interp_result deliver_db(struct interp *in)
{
    in->s->db_pending = 0;
    in->s->int_shadow = 0;
    return ievent_deliver(in, EV_TRAP, X86_DB, false, 0, in->s->rip);
}

enum interp_result interp_event_again(struct interp *in)
{
    struct x86_vcpu_state *s = in->s;
    u8 vector = s->ev_vector, kind = s->ev_kind;

    s->ev_kind = X86_EV_NONE;
    if (kind != X86_EV_EXCEPTION)
        return interp_interrupt(in, vector, kind == X86_EV_NMI);
    if (vector == X86_DB)
        return deliver_db(in);
    struct interp_fault f = {
        .vector = vector, .has_error = s->ev_has_error, .error = s->ev_error, .cr2 = s->cr2};
    return interp_exception(in, &f);
}

/* --- execution */

static enum interp_result undefined(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    interp_raise(in, X86_UD);
}

static bool has_system_operand(const struct x86_insn *insn)
{
    for (unsigned i = 0; i < insn->nops; i++)
        if (insn->op[i].kind == X86_OP_SEG || insn->op[i].kind == X86_OP_CR ||
            insn->op[i].kind == X86_OP_DR)
            return true;
    return false;
}

/* MOVSD and CMPSD are string instructions and SSE2 instructions. */
static bool shares_string_mnemonic(const struct x86_insn *insn)
{
    return (insn->mnemonic == ZYDIS_MNEMONIC_MOVSD || insn->mnemonic == ZYDIS_MNEMONIC_CMPSD) &&
           insn->opcode_map != 0;
}

static interp_handler *resolve(const struct x86_insn *insn)
{
    interp_handler *h = NULL;
    if (has_system_operand(insn))
        h = interp_system_handler(insn->mnemonic);
    if (!h && !shares_string_mnemonic(insn))
        h = interp_integer_handler(insn->mnemonic);
    if (!h)
        h = interp_system_handler(insn->mnemonic);
    if (!h && interp_is_vector(insn))
        h = ivector;
    /* All that is left belongs to extensions no guest is shown. */
    return h ? h : undefined;
}

/* After an instruction: single-step and watchpoint traps. A MOV SS shadow drops the former and
 * holds the latter back (SDM 3A 6.8.3). */
static enum interp_result trap_after(struct interp *in, bool tf, enum interp_result r)
{
    struct x86_vcpu_state *s = in->s;
    if (r == INTERP_SHUTDOWN)
        return r;
    if (tf && !in->suppress_tf && s->int_shadow != 2) {
        s->dr6 |= DR6_BS;
        s->db_pending = 1;
    }
    if (!s->db_pending || s->int_shadow == 2)
        return r;
    if (s->activity == X86_HALTED)
        s->activity = X86_RUNNING;
    return deliver_db(in);
}

static inline __attribute__((always_inline)) enum interp_result
run(struct interp *in, const struct x86_insn *insn, interp_handler *h)
{
    struct x86_vcpu_state *s = in->s;
    u64 flags = s->rflags;
    u64 next = s->rip + insn->length;
    in->next_rip = insn->mode == 64 ? next : (u32)next;
    in->new_shadow = 0;
    in->suppress_tf = false;
    s->rflags = flags & ~RFLAGS_RF;
    enum interp_result r = h(in, insn);
    if (unlikely(r == INTERP_UNSUPPORTED)) {
        s->rflags = flags;
        return r;
    }
    s->rip = in->next_rip;
    s->int_shadow = in->new_shadow;
    in->retired++;
    bool tf = (flags & RFLAGS_TF) != 0;
    if (unlikely(tf && s->debugctl)) /* BTF: only branches that were taken (SDM 3B 17.4.3) */
        tf = in->next_rip != (insn->mode == 64 ? next : (u32)next);
    if (unlikely(tf || s->db_pending))
        return trap_after(in, tf, r);
    return r;
}

static enum interp_result take_fault(struct interp *in)
{
    /* A watchpoint met by an instruction that then faults is not reported. */
    in->s->db_pending = 0;
    return interp_exception(in, &in->fault);
}

/*
 * Around what a function with __builtin_setjmp returns: clang would otherwise make the call before
 * it a jump, and the frame that a fault returns to would be gone.
 */
static inline enum interp_result keep_frame(enum interp_result r)
{
    __asm__ volatile("" : "+r"(r));
    return r;
}

enum interp_result interp_exec(struct interp *in, const struct x86_insn *insn)
{
    struct interp *volatile self = in; /* clang does not keep `in` for the second return */
    if (__builtin_setjmp(in->fault_jmp))
        return take_fault(self);
    return keep_frame(run(in, insn, resolve(insn)));
}

/* --- fetch */

static u64 load64(const u8 *p)
{
    typedef u64 __attribute__((aligned(1))) any64;
    return *(const volatile any64 *)p;
}

static void fill_entry(struct cache_entry *e, u64 lin, u8 key)
{
    u8 mask[16];
    e->lin = lin;
    e->key = key;
    e->handler = resolve(&e->insn);
    e->bytes[0] = e->bytes[1] = 0;
    memcpy(e->bytes, e->insn.bytes, X86_INSN_MAX);
    memset(mask, 0, sizeof mask);
    memset(mask, 0xff, e->insn.length);
    memcpy(e->mask, mask, sizeof mask);
}

/* Copies up to n bytes of code at lin, all in one page; raises #PF. */
static void fetch_bytes(struct interp *in, u64 lin, u8 *buf, unsigned n, unsigned access)
{
    struct interp_ref ref;
    if (in->ops->translate(in->opaque, lin, n, access, &ref, &in->fault))
        interp_raise_fault(in);
    for (unsigned i = 0; i < n; i++)
        buf[i] = ref.host ? ((volatile u8 *)ref.host)[i]
                          : (u8)in->ops->mmio_read(in->opaque, ref.gpa + i, 1);
}

/*
 * Fetch and decode the slow way: at most `room` bytes (the code segment's limit) may be used, and
 * the next page is touched only when the instruction reaches it.
 */
static void fetch_decode(struct interp *in, struct cache_entry *e, u64 lin, u64 room, unsigned mode,
                         bool real, unsigned access)
{
    u8 buf[X86_INSN_MAX];
    unsigned max = room < X86_INSN_MAX ? (unsigned)room : X86_INSN_MAX;
    unsigned n = (unsigned)(PAGE_SIZE - (lin & ~PAGE_MASK));
    if (n > max)
        n = max;
    fetch_bytes(in, lin, buf, n, access);
    in->ops->fpu_sync(in->opaque); /* the decoder is no code of ours: it may use vector registers */
    enum x86_decode_result r = x86_decode(&e->insn, buf, n, mode, real);
    if (r == X86_DECODE_MORE && n < max) {
        u64 next = mode == 64 ? lin + n : (u32)(lin + n);
        fetch_bytes(in, next, buf + n, max - n, access);
        r = x86_decode(&e->insn, buf, max, mode, real);
    }
    switch (r) {
    case X86_DECODE_OK:
        return;
    case X86_DECODE_MORE: /* ran into the limit */
    case X86_DECODE_TOOLONG:
        e->key = 0;
        interp_raise_err(in, X86_GP, 0);
    case X86_DECODE_INVALID:
    default:
        e->key = 0;
        interp_raise(in, X86_UD);
    }
}

static inline __attribute__((always_inline)) struct cache_entry *fetch(struct interp *in)
{
    struct x86_vcpu_state *s = in->s;
    const struct x86_seg *cs = &s->seg[X86_CS];
    u64 rip = s->rip, lin, room = X86_INSN_MAX;
    unsigned mode;
    bool real = !x86_protected(s);
    if (x86_64bit(s)) {
        mode = 64;
        lin = rip;
        if (unlikely(!im_canonical(in, lin)))
            interp_raise_err(in, X86_GP, 0);
    } else {
        mode = cs->attr & X86_SEG_DB ? 32 : 16;
        lin = (u32)(cs->base + rip);
        if (unlikely(rip > cs->limit))
            interp_raise_err(in, X86_GP, 0);
        if (cs->limit - rip < X86_INSN_MAX)
            room = cs->limit - rip + 1;
    }
    if (unlikely(s->dr7 & DR7_ENABLED) && !(s->rflags & RFLAGS_RF))
        idebug_fetch(in, lin);
    unsigned access = X86_ACC_EXEC | (s->cpl == 3 ? X86_ACC_USER : 0);
    u8 key = (u8)(mode | (unsigned)real << 7);
    struct cache_entry *e = &in->cache->entry[(lin ^ (lin >> 13)) % CACHE_ENTRIES];
    if (unlikely((lin & ~PAGE_MASK) > PAGE_SIZE - 16 || room < X86_INSN_MAX)) {
        e = &in->cache->scratch;
        fetch_decode(in, e, lin, room, mode, real, access);
        e->handler = resolve(&e->insn);
        return e;
    }
    struct interp_ref ref;
    if (in->ops->translate(in->opaque, lin, 1, access, &ref, &in->fault))
        interp_raise_fault(in);
    if (likely(ref.host != NULL)) {
        u64 b0 = load64(ref.host), b1 = load64((const u8 *)ref.host + 8);
        if (likely(e->lin == lin && e->key == key &&
                   !(((b0 ^ e->bytes[0]) & e->mask[0]) | ((b1 ^ e->bytes[1]) & e->mask[1]))))
            return e;
    }
    e->key = 0;
    fetch_decode(in, e, lin, room, mode, real, access);
    fill_entry(e, lin, ref.host ? key : 0);
    return e;
}

/* Apart from the setjmp, in whose function no variable may live in a register. */
static __attribute__((noinline)) enum interp_result step_inner(struct interp *in)
{
    struct cache_entry *e = fetch(in);
    return run(in, &e->insn, e->handler);
}

enum interp_result interp_step(struct interp *in)
{
    if (unlikely(in->s->db_pending && in->s->int_shadow != 2))
        return deliver_db(in);
    struct interp *volatile self = in; /* as in interp_exec */
    if (__builtin_setjmp(in->fault_jmp))
        return take_fault(self);
    return keep_frame(step_inner(in));
}
