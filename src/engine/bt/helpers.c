/* SPDX-License-Identifier: Apache-2.0 */
/*
 * C called from translated code through the stubs. The guest's general registers are in env->s.gpr,
 * its flags in env->lahf, its vector state still in the registers: nothing here may touch those.
 */
#include "engine/bt/bt_priv.h"

static u64 leave(struct bt_vcpu *c, enum bt_exit reason)
{
    c->env->exit_reason = reason;
    return 0;
}

/* Where to go on at s.rip without leaving translated code, or 0. */
static u64 go_on(struct bt_vcpu *c)
{
    struct bt_env *env = c->env;
    struct bt_block *b;
    u64 gpa;
    u8 *host;

    if (!(c->mode & BT_MODE_CODE) || !bt_fetch(c, env->s.rip, &gpa, &host))
        return leave(c, BT_EXIT_RESUME);
    b = bt_cache_lookup(c, env->s.rip, gpa, bt_block_mode(c));
    if (!b)
        return leave(c, BT_EXIT_RESUME);
    return (u64)(uintptr_t)b->entry;
}

/* A branch target that the window's table does not have. */
u64 bt_help_ibl(struct bt_vcpu *c, u64 branch_pc, u64 target, u64 unused)
{
    struct bt_env *env = c->env;
    const u8 *code;
    u64 gpa;
    u8 *host;

    (void)unused;
    env->s.rip = target;
    env->exit_arg = branch_pc;
    c->stats.ibl_misses++;
    if (c->lockstep || !bt_fetch(c, target, &gpa, &host))
        return leave(c, BT_EXIT_IBL);
    code = bt_cache_lookup_code(c, target, gpa, c->mode);
    if (!code)
        return leave(c, BT_EXIT_IBL);
    bt_ibl_set(c, target, code, bt_fetch_global(c, target));
    return (u64)(uintptr_t)(code + BT_IBL_CHECK_LEN);
}

/* What the interpreter did in the middle of a block begins here. */
struct place {
    u64 epoch, window;
    u32 mode;
};

static struct place place_begin(struct bt_vcpu *c)
{
    c->remapped = false;
    bt_flags_in(c->env);
    return (struct place){c->bt->epoch, c->env->window, c->mode};
}

/* After it: where to go on, `ret` if that is at guest address `next`; 0: leave. */
static u64 place_end(struct bt_vcpu *c, const struct place *p, u64 next, u64 ret)
{
    struct bt_env *env = c->env;

    bt_code_written(c);
    bt_flags_out(env);
    if (c->result != INTERP_OK)
        return leave(c, BT_EXIT_RESUME);
    bt_update_mode(c);
    bt_clip_rsp(c);
    if (env->s.int_shadow || env->s.db_pending || (env->s.rflags & RFLAGS_TF) ||
        (env->s.dr7 & DR7_ENABLED) || (env->s.cpl == 3 && (env->s.rflags & RFLAGS_AC)) ||
        c->bt->epoch != p->epoch || (c->env->irq_maybe && (env->s.rflags & RFLAGS_IF)) ||
        env->s.nmi_pending || c->watch_hit)
        return leave(c, BT_EXIT_RESUME);
    if (!env->fpu_live)
        bt_fpu_load(c);
    if (!c->remapped && env->s.rip == next && c->mode == p->mode && env->window == p->window)
        return ret;
    return go_on(c);
}

u64 bt_help_interp(struct bt_vcpu *c, u64 unused, u64 site_addr, u64 ret)
{
    const struct bt_interp_site *site = (const struct bt_interp_site *)(uintptr_t)site_addr;
    struct place p = place_begin(c);
    struct x86_insn copy;
    u64 next;

    (void)unused;
    c->stats.interp_sites++;
    c->env->s.rip = site->va;
    next = site->va + site->insn->length;
    if (c->bt->nvcpus > 1) {
        /* While the instruction waits for a device another vCPU may flush the cache, and the record
         * with it. */
        copy = *site->insn;
        c->result = (u8)interp_exec(&c->interp, &copy);
    } else {
        c->result = (u8)interp_exec(&c->interp, site->insn);
    }
    return place_end(c, &p, next, ret);
}

/*
 * An access that is not memory's, or not in one page, or faults: the interpreter executes the whole
 * instruction here, and translated code goes on behind it.
 */
u64 bt_help_access(struct bt_vcpu *c, u64 lin, u32 arg, u64 ret)
{
    void *host = bt_tlb_fill(c, lin, arg & 0xff, (arg >> 8) & 1);
    struct place p;
    u64 next, code;

    if (likely(host))
        return (u64)(uintptr_t)host;
    c->stats.tlb_slow++;
    c->env->s.rip = bt_guest_place(c, ret, arg >> 16, &next, &code);
    if (!code || c->lockstep || c->debugging)
        return leave(c, BT_EXIT_STEP);
    p = place_begin(c);
    c->result = (u8)interp_step(&c->interp);
    c->env->exit_arg = place_end(c, &p, next, code);
    return c->env->exit_arg ? leave(c, BT_EXIT_NEXT) : 0;
}

/*
 * A stack group's range is not in the stack cell: point the cell at its page, or, where the range
 * has no one writable page, go on at the same instruction in a block without groups.
 */
u64 bt_help_stack(struct bt_vcpu *c, u64 lin, u64 arg, u64 ret)
{
    struct bt_env *env = c->env;
    struct bt_window_priv *p = bt_priv(bt_cur(c));
    unsigned size = arg & 0x7fff;
    struct bt_tlb_entry *e = &bt_tlb(bt_cur(c), true)[(lin >> PAGE_SHIFT) & (BT_TLB_SIZE - 1)];
    u64 where;

    if ((lin & (PAGE_SIZE - 1)) + size <= PAGE_SIZE &&
        ((c->mode & BT_MODE_64) || lin <= 0xffffffff)) {
        if (bt_tlb_page(e) != (lin & PAGE_MASK) && ((arg & 0x8000) || bt_tlb_dirty(c, lin)))
            bt_tlb_fill(c, lin, size, true);
        if (bt_tlb_page(e) == (lin & PAGE_MASK)) {
            p->stack_tag = lin & PAGE_MASK;
            p->stack_addend = e->delta;
            return ret;
        }
    }
    env->s.rip = bt_guest_rip(c, ret, (u32)arg >> 16);
    if (env->s.int_shadow)
        return leave(c, BT_EXIT_RESUME);
    c->nogroup = true;
    where = go_on(c);
    if (where)
        c->nogroup = false;
    return where;
}

/* Host address for a chunk of a string operation, or NULL. */
static u8 *chunk_addr(struct bt_vcpu *c, u64 lin, unsigned len, bool write)
{
    struct bt_tlb_entry *e = &bt_tlb(bt_cur(c), write)[(lin >> PAGE_SHIFT) & (BT_TLB_SIZE - 1)];

    if (bt_tlb_page(e) == (lin & PAGE_MASK))
        return (u8 *)(uintptr_t)(lin + e->delta);
    return bt_tlb_fill(c, lin, len, write);
}

/* Elements from lin to the page's end in the direction of the operation; 0: the first one crosses.
 */
static u64 elements(u64 lin, unsigned size, bool down)
{
    u64 off = lin & (PAGE_SIZE - 1);

    if (off + size > PAGE_SIZE)
        return 0;
    return down ? off / size + 1 : (PAGE_SIZE - off) / size;
}

static void run_movs(u8 *dst, const u8 *src, u64 n, unsigned size, bool down)
{
    if (down)
        __asm__ volatile("std");
    switch (size) {
    case 1:
        __asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
        break;
    case 2:
        __asm__ volatile("rep movsw" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
        break;
    case 4:
        __asm__ volatile("rep movsl" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
        break;
    default:
        __asm__ volatile("rep movsq" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
        break;
    }
    __asm__ volatile("cld");
}

static void run_stos(u8 *dst, u64 val, u64 n, unsigned size, bool down)
{
    if (down)
        __asm__ volatile("std");
    switch (size) {
    case 1:
        __asm__ volatile("rep stosb" : "+D"(dst), "+c"(n) : "a"(val) : "memory");
        break;
    case 2:
        __asm__ volatile("rep stosw" : "+D"(dst), "+c"(n) : "a"(val) : "memory");
        break;
    case 4:
        __asm__ volatile("rep stosl" : "+D"(dst), "+c"(n) : "a"(val) : "memory");
        break;
    default:
        __asm__ volatile("rep stosq" : "+D"(dst), "+c"(n) : "a"(val) : "memory");
        break;
    }
    __asm__ volatile("cld");
}

/* REP MOVS and REP STOS, a page at a time. Registers are architectural after each chunk. */
u64 bt_help_string(struct bt_vcpu *c, u64 unused, u64 site_addr, u64 ret)
{
    const struct bt_interp_site *site = (const struct bt_interp_site *)(uintptr_t)site_addr;
    struct x86_vcpu_state *s = &c->env->s;
    const struct x86_insn *in = site->insn;
    bool movs = (in->opcode & 0xfe) == 0xa4, down = (s->rflags & RFLAGS_DF) != 0;
    bool segment = movs && (in->mem.seg == X86_FS || in->mem.seg == X86_GS);
    unsigned size = in->opcode & 1 ? in->opsize : 1;
    u64 src_base = segment ? s->seg[in->mem.seg].base : 0;

    u64 mask = in->mode == 64 ? ~(u64)0 : 0xffffffff; /* the address size is the mode's */

    (void)unused;
    s->rip = site->va;
    if (segment && in->mode == 32 && c->env->no_seg[in->mem.seg - X86_FS])
        return leave(c, BT_EXIT_STEP);
    while (s->gpr[X86_RCX] & mask) {
        u64 dst = s->gpr[X86_RDI] & mask, src = ((s->gpr[X86_RSI] & mask) + src_base) & mask;
        u64 n = s->gpr[X86_RCX] & mask, m = elements(dst, size, down), step;
        u8 *d, *from = NULL;

        if (n > m)
            n = m;
        if (movs) {
            m = elements(src, size, down);
            if (n > m)
                n = m;
        }
        if (!n)
            return leave(c, BT_EXIT_STEP);
        step = n * size;
        if (movs) {
            u64 lo = down ? src - (n - 1) * size : src;

            from = chunk_addr(c, lo, (unsigned)step, false);
            if (!from)
                return leave(c, BT_EXIT_STEP);
            from += src - lo;
        }
        {
            u64 lo = down ? dst - (n - 1) * size : dst;

            d = chunk_addr(c, lo, (unsigned)step, true);
            if (!d)
                return leave(c, BT_EXIT_STEP);
            d += dst - lo;
        }
        if (movs)
            run_movs(d, from, n, size, down);
        else
            run_stos(d, s->gpr[X86_RAX], n, size, down);
        if (down)
            step = -step;
        s->gpr[X86_RDI] = (s->gpr[X86_RDI] + step) & mask;
        if (movs)
            s->gpr[X86_RSI] = (s->gpr[X86_RSI] + step) & mask;
        s->gpr[X86_RCX] = (s->gpr[X86_RCX] - n) & mask;
        if (__atomic_load_n(&c->env->pending, __ATOMIC_RELAXED) && (s->gpr[X86_RCX] & mask))
            return leave(c, BT_EXIT_RESUME);
    }
    s->rip = site->va + in->length;
    return ret;
}
