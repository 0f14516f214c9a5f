/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The run loop of a vCPU: events, interrupts, finding and chaining blocks, and the interpreter
 * where translated code does not go (16-bit and segmented code, single-step, debug registers,
 * interrupt shadows, page-crossing instructions, faults).
 */
#include "engine/bt/bt_priv.h"
#include "engine/bt/emit.h"

void bt_fpu_save(struct bt_vcpu *c)
{
    static const u32 mxcsr = 0x1f80;
    u64 mask = c->bt->fpu_mask;

    if (!c->env->fpu_live)
        return;
    __asm__ volatile("xsave64 %0"
                     : "=m"(c->env->s.xsave)
                     : "a"((u32)mask), "d"((u32)(mask >> 32))
                     : "memory");
    /* FOP, FIP and FDP are of our code and memory; the guest must not learn where those are. */
    memset(c->env->s.xsave + 6, 0, 18);
    __asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
    c->env->fpu_live = 0;
}

void bt_fpu_load(struct bt_vcpu *c)
{
    u64 mask = c->bt->fpu_mask;

    if (c->env->fpu_live)
        return;
    __asm__ volatile("xrstor64 %0"
                     :
                     : "m"(c->env->s.xsave), "a"((u32)mask), "d"((u32)(mask >> 32))
                     : "memory");
    c->env->fpu_live = 1;
}

/* A present, writable, grown-up data segment over all 4 GiB. */
static bool whole(const struct x86_seg *seg)
{
    return (seg->attr & (X86_SEG_P | X86_SEG_S | X86_SEG_CODE | X86_SEG_DC | X86_SEG_RW)) ==
               (X86_SEG_P | X86_SEG_S | X86_SEG_RW) &&
           seg->limit == 0xffffffff;
}

static bool flat(const struct x86_seg *seg)
{
    return whole(seg) && !seg->base;
}

/* Mode bits of protected-mode code that is not 64-bit code: 0 when segments matter. */
static u32 flat_mode(const struct x86_vcpu_state *s)
{
    const struct x86_seg *cs = &s->seg[X86_CS];

    if (!(cs->attr & X86_SEG_DB) || cs->base || cs->limit != 0xffffffff || !flat(&s->seg[X86_SS]) ||
        !(s->seg[X86_SS].attr & X86_SEG_DB) || !flat(&s->seg[X86_DS]) || !flat(&s->seg[X86_ES]))
        return 0;
    return BT_MODE_32;
}

static void ibl_for_mode(struct bt_vcpu *c, unsigned cls)
{
    struct bt_env *win = bt_window_env(c, cls, c->slot);
    struct bt_window_priv *p = bt_priv(win);

    if (unlikely(p->ibl_mode != c->mode)) {
        bt_ibl_clear(c, win);
        p->ibl_mode = c->mode;
    }
}

void bt_update_mode(struct bt_vcpu *c)
{
    struct x86_vcpu_state *s = &c->env->s;
    u32 mode = 0;

    if (s->cpl == 3)
        c->env->cls = BT_USER;
    else
        c->env->cls = (s->cr4 & CR4_SMAP) && (s->rflags & RFLAGS_AC) ? BT_KERNEL_AC : BT_KERNEL;
    if (x86_64bit(s) && (s->cr0 & CR0_PG))
        mode = BT_MODE_64;
    else if (x86_protected(s) && !x86_64bit(s))
        mode = flat_mode(s);
    if (mode == BT_MODE_32)
        for (unsigned i = 0; i < 2; i++)
            c->env->no_seg[i] = whole(&s->seg[X86_FS + i]) ? 0 : BT_NO_ADDRESS;
    if (!(s->cr0 & (CR0_EM | CR0_TS)) && (s->cr4 & CR4_OSFXSR)) {
        mode |= BT_MODE_FPU;
        if ((s->cr4 & CR4_OSXSAVE) && s->xcr0 == c->bt->vm->cpu_model.xcr0_valid)
            mode |= BT_MODE_AVX;
    }
    if (s->cpl == 0)
        mode |= BT_MODE_CPL0;
    if (s->cpl == 0 || !(s->cr4 & CR4_TSD))
        mode |= BT_MODE_RDTSC;
    if (s->cr4 & CR4_SMAP)
        mode |= BT_MODE_SMAP;
    c->mode = mode;
    if (unlikely(!(c->ready & BIT32(c->slot))))
        bt_slot_ready(c);
    /* Blocks check their address when entered through the table, not their mode. */
    if (c->env->cls == BT_USER) {
        ibl_for_mode(c, BT_USER);
    } else {
        /* STAC and CLAC go between the kernel's two classes without coming here. */
        ibl_for_mode(c, BT_KERNEL);
        ibl_for_mode(c, BT_KERNEL_AC);
    }
    for (unsigned i = 0; i < BT_NCLASS; i++)
        c->env->win[i] = (u64)(uintptr_t)bt_window_env(c, i, c->slot);
    c->env->window = c->env->win[c->env->cls];
}

/* The same code may be known at another address: libraries are, in every process. */
static struct bt_block *clone(struct bt_vcpu *c, u64 lin, u64 gpa, bool *full)
{
    struct bt_block *sibling;

    /* A block ends before a breakpoint, and those are addresses. */
    if (c->debugging || !bt_clonable(lin))
        return NULL;
    sibling = bt_cache_sibling(c->bt, gpa, bt_block_mode(c));
    return sibling ? bt_clone_block(c->bt, sibling, lin, full, &c->stats.clones) : NULL;
}

static void flush(struct bt_vcpu *c, bool clones_only)
{
    bt_exclusive_begin(c->bt, c);
    if (clones_only) {
        bt_cache_flush_clones(c->bt);
        c->stats.clone_flushes++;
    } else {
        bt_cache_flush(c->bt);
        c->stats.flushes++;
    }
    bt_exclusive_end(c->bt, c);
}

/*
 * Takes the lock and marks the page as being translated, without stopping anybody: for that nobody
 * may have a write entry for it, nor be about to use one. false: that may be so, and nothing is
 * taken.
 */
static bool lock_page(struct bt_vm *bt, u64 gpa, struct bt_page **page)
{
    host_mutex_lock(&bt->lock);
    *page = bt_page_of(bt, gpa, true);
    if (*page) {
        __atomic_store_n(&(*page)->translating, 1, __ATOMIC_SEQ_CST);
        /* Who makes a write entry says so first and looks at `translating` then (tlb.c). */
        if ((*page)->lines || !bt_tlb_wrote(bt, gpa))
            return true;
        __atomic_store_n(&(*page)->translating, 0, __ATOMIC_SEQ_CST);
    }
    host_mutex_unlock(&bt->lock);
    return false;
}

static struct bt_block *translate(struct bt_vcpu *c, u64 lin)
{
    struct bt_vm *bt = c->bt;

    for (;;) {
        struct bt_block *b;
        struct bt_page *page;
        bool full = false, clones_full = false, stop, straddle;
        u64 gpa;
        u8 *host;

        if (!bt_fetch(c, lin, &gpa, &host))
            return NULL;
        straddle = (gpa & (PAGE_SIZE - 1)) > PAGE_SIZE - X86_INSN_MAX;
        stop = straddle || !lock_page(bt, gpa, &page);
        if (stop) {
            u8 *host2;
            u64 gpa2;

            __atomic_fetch_add(&bt->first_translations, 1, __ATOMIC_SEQ_CST);
            bt_exclusive_begin(bt, c);
            bt_tlb_drop_writes(bt, gpa, host - (gpa & (PAGE_SIZE - 1)));
            if (straddle && bt_fetch(c, (lin & PAGE_MASK) + PAGE_SIZE, &gpa2, &host2))
                bt_tlb_drop_writes(bt, gpa2, host2);
        }
        b = bt_cache_lookup(c, lin, gpa, bt_block_mode(c));
        if (!b)
            b = clone(c, lin, gpa, &clones_full);
        if (!b && !clones_full) {
            bt_fpu_save(c); /* the decoder is a library */
            b = bt_translate_block(c, lin, gpa, host, &full);
        }
        if (stop) {
            __atomic_fetch_sub(&bt->first_translations, 1, __ATOMIC_SEQ_CST);
            bt_exclusive_end(bt, c);
        } else {
            __atomic_store_n(&page->translating, 0, __ATOMIC_SEQ_CST);
            host_mutex_unlock(&bt->lock);
        }
        if (!full && !clones_full)
            return b;
        flush(c, clones_full);
    }
}

struct bt_block *bt_find_block(struct bt_vcpu *c)
{
    u64 lin = c->env->s.rip, gpa;
    struct bt_block *b;
    u8 *host;

    if ((c->debugging && bt_is_break(c->bt, lin)) || !bt_fetch(c, lin, &gpa, &host)) {
        c->nogroup = false;
        return NULL;
    }
    b = bt_cache_lookup(c, lin, gpa, bt_block_mode(c));
    if (!b)
        b = translate(c, lin);
    c->nogroup = false;
    return b;
}

/* Makes the jump of an exit lead straight to its target. */
static void chain(struct bt_vcpu *c, struct bt_link *l, u64 epoch, struct bt_block *to)
{
    struct bt_block *from = bt_link_block(l);

    host_mutex_lock(&c->bt->lock);
    if (c->bt->epoch != epoch || l->chained || from->dead || to->dead ||
        ((from->mode ^ to->mode) & ~BT_MODE_NOGROUP)) {
        /* not now */
    } else if (l->far && !bt_far_chain(c, l, to)) {
        u8 *entry = bt_rw(c->bt, from->entry);

        emit_patch32(entry + l->jmp, entry + l->cold_start);
    } else if (l->far || (from->gpa & PAGE_MASK) == (to->gpa & PAGE_MASK)) {
        bt_cache_chain(c->bt, l, to);
        c->stats.chained++;
    }
    host_mutex_unlock(&c->bt->lock);
}

/* Out of the guest for calls that may take locks or clobber vector state. */
static int irq_call(struct bt_vcpu *c, int (*fn)(void *opaque))
{
    int r;

    bt_fpu_save(c);
    bt_leave_guest(c);
    r = fn(c->v->irq_opaque);
    bt_enter_guest(c);
    return r;
}

/* Looks at events and interrupts. true: leave run with *exit filled. */
static bool events(struct bt_vcpu *c, struct engine_exit *exit)
{
    const u32 ours = VCPU_EV_NMIS | VCPU_EV_IRQ | VCPU_EV_WORK;
    struct x86_vcpu_state *s = &c->env->s;
    u32 ev;

    if (__atomic_load_n(&c->env->pending, __ATOMIC_RELAXED)) {
        __atomic_store_n(&c->env->pending, 0, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&c->bt->excl, __ATOMIC_SEQ_CST)) {
            bt_leave_guest(c);
            bt_enter_guest(c);
        }
    }
    ev = __atomic_load_n(&c->v->events, __ATOMIC_SEQ_CST);
    if (ev & (VCPU_EV_STOP | VCPU_EV_INIT | VCPU_EV_SIPI)) {
        exit->kind = ENGINE_EXIT_KICKED;
        return true;
    }
    if (ev & ours) {
        ev = __atomic_fetch_and(&c->v->events, ~ours, __ATOMIC_SEQ_CST);
        x86_state_nmis(s, vcpu_nmis(ev));
        if (ev & VCPU_EV_IRQ)
            bt_set_irq_maybe(c->env, true);
    }
    if (unlikely(s->ev_kind != X86_EV_NONE)) {
        c->delivered = true;
        c->result = (u8)interp_event_again(&c->interp);
        bt_code_written(c);
        return false;
    }
    if (s->int_shadow || s->activity == X86_SHUTDOWN || s->activity == X86_WAIT_SIPI)
        return false;
    if (unlikely(c->debugging && c->v->debug.no_irq) && s->activity != X86_HALTED)
        return false;
    if (s->nmi_pending && !s->nmi_blocked) {
        s->nmi_pending--;
        c->delivered = true;
        c->result = (u8)interp_interrupt(&c->interp, X86_NMI, true);
    } else if (c->env->irq_maybe && (s->rflags & RFLAGS_IF)) {
        int vector = irq_call(c, c->v->irq->pending);

        if (vector < 0) {
            bt_set_irq_maybe(c->env, false);
        } else if ((vector = irq_call(c, c->v->irq->ack)) >= 0) {
            c->stats.interrupts++;
            c->delivered = true;
            c->result = (u8)interp_interrupt(&c->interp, (u8)vector, false);
        }
    }
    bt_code_written(c);
    return false;
}

/* The interpreter's answer that ends run; false: go on. */
static bool ended(struct bt_vcpu *c, struct engine_exit *exit)
{
    struct x86_vcpu_state *s = &c->env->s;

    if (c->result == INTERP_UNSUPPORTED) {
        exit->kind = ENGINE_EXIT_UNSUPPORTED;
        memcpy(exit->text, c->interp.why, sizeof(c->interp.why));
        return true;
    }
    if (s->activity == X86_SHUTDOWN) {
        exit->kind = ENGINE_EXIT_SHUTDOWN;
        memcpy(exit->text, c->interp.why, sizeof(c->interp.why));
        return true;
    }
    if (s->activity == X86_HALTED) {
        exit->kind = ENGINE_EXIT_HLT;
        return true;
    }
    return false;
}

static bool must_step(const struct bt_vcpu *c)
{
    const struct x86_vcpu_state *s = &c->env->s;

    return !(c->mode & BT_MODE_CODE) || (s->rflags & RFLAGS_TF) || s->int_shadow || s->db_pending ||
           (s->dr7 & DR7_ENABLED) || c->bt->interp_only || c->v->debug.step ||
           (s->cpl == 3 && (s->rflags & RFLAGS_AC) && (s->cr0 & CR0_AM));
}

static void step(struct bt_vcpu *c)
{
    c->stats.interp_steps++;
    c->result = (u8)interp_step(&c->interp);
    bt_code_written(c);
    bt_update_mode(c);
}

/*
 * An indirect branch to a non-canonical address faults at the branch with nothing changed but what
 * it pushed (SDM 3A 6.15, #GP). pc: host address in the block that ends in it.
 */
static bool undo_branch(struct bt_vcpu *c, u64 pc)
{
    struct bt_block *b = bt_cache_find_pc(c->bt, pc);
    struct x86_vcpu_state *s = &c->env->s;
    struct x86_insn in;
    u8 bytes[X86_INSN_MAX];
    u64 gpa, va, room;
    u8 *host;

    if (!b || !b->nmap)
        return false;
    va = b->va + b->map[b->nmap - 1].goff;
    if (!bt_fetch(c, va, &gpa, &host))
        return false;
    room = PAGE_SIZE - (va & (PAGE_SIZE - 1));
    if (room > sizeof(bytes))
        room = sizeof(bytes);
    memcpy(bytes, host, room);
    if (room < sizeof(bytes) && bt_fetch(c, va + room, &gpa, &host)) {
        memcpy(bytes + room, host, sizeof(bytes) - room);
        room = sizeof(bytes);
    }
    bt_fpu_save(c);
    if (x86_decode(&in, bytes, room, 64, false) != X86_DECODE_OK)
        return false;
    if (in.mnemonic == ZYDIS_MNEMONIC_RET)
        s->gpr[X86_RSP] -= 8 + (in.nops && in.op[0].kind == X86_OP_IMM ? in.imm[0] & 0xffff : 0);
    else if (in.mnemonic == ZYDIS_MNEMONIC_CALL)
        s->gpr[X86_RSP] += 8;
    s->rip = va;
    return true;
}

/* What the run loop does after such exits, for one block. */
static void after_lockstep(struct bt_vcpu *c)
{
    if (c->env->exit_reason == BT_EXIT_STEP ||
        (!bt_canonical(c, c->env->s.rip) && undo_branch(c, c->env->exit_arg)))
        step(c);
}

static void run_code(struct bt_vcpu *c)
{
    struct bt_env *env = c->env;
    struct bt_block *b = bt_find_block(c);
    u64 epoch;

    if (b && c->lockstep) {
        if (!bt_lockstep_run(c, b)) {
            static const char why[] =
                "lockstep: translated code and interpreter differ (see above)";

            memcpy(c->interp.why, why, sizeof(why));
            c->result = INTERP_UNSUPPORTED;
        } else if (c->env->exit_reason == BT_EXIT_STEP || c->env->exit_reason == BT_EXIT_IBL) {
            after_lockstep(c);
        }
        return;
    }
    while (b) {
        struct bt_link *link = NULL;

        bt_fpu_load(c);
        bt_flags_out(env);
        bt_clip_rsp(c);
        c->stats.enters++;
        c->bt->enter(env->window, b->entry);
        bt_flags_in(env);
        switch (env->exit_reason) {
        case BT_EXIT_LINK:
            link = (struct bt_link *)(uintptr_t)env->exit_arg;
            env->s.rip = link->target;
            epoch = c->bt->epoch;
            c->nogroup = link->nogroup;
            b = bt_find_block(c);
            if (b)
                chain(c, link, epoch, b);
            break;
        case BT_EXIT_IBL:
            if (!bt_canonical(c, env->s.rip) && undo_branch(c, env->exit_arg)) {
                step(c);
                return;
            }
            b = bt_find_block(c);
            if (b)
                bt_ibl_set(c, env->s.rip, bt_ibl_entry(b), bt_fetch_global(c, env->s.rip));
            break;
        case BT_EXIT_STEP:
            step(c);
            return;
        case BT_EXIT_KICK:
            env->s.rip = bt_guest_rip(c, env->exit_arg, (u32)env->exit_info >> 16);
            return;
        default:
            return;
        }
        if (__atomic_load_n(&env->pending, __ATOMIC_RELAXED))
            return;
    }
    if (unlikely(c->debugging) && bt_at_break(c))
        return;
    step(c);
}

void bt_run(struct vcpu *v, struct engine_exit *exit)
{
    struct bt_vcpu *c = v->engine_vcpu;

    exit->text[0] = 0;
    if (!c->thread) {
        int err = host_vcpu_attach(bt_signal, c);

        if (err) {
            static const char why[] = "no signal stack for the vCPU thread";

            exit->kind = ENGINE_EXIT_UNSUPPORTED;
            memcpy(exit->text, why, sizeof(why));
            return;
        }
        c->thread = host_thread_self();
    }
    __atomic_store_n(&c->running, 1, __ATOMIC_SEQ_CST);
    bt_enter_guest(c);
    c->result = INTERP_OK;
    c->debugging = c->bt->nbreaks || c->bt->nwatches || v->debug.step;
    c->delivered = c->watch_hit = false;
    c->interp.watched = c->bt->nwatches != 0;
    bt_update_mode(c);
    for (;;) {
        if (events(c, exit) || ended(c, exit))
            break;
        bt_update_mode(c);
        if (unlikely(c->debugging) && bt_debug_before(c, exit))
            break;
        if (must_step(c))
            step(c);
        else
            run_code(c);
        if (unlikely(c->debugging) && bt_debug_after(c, exit))
            break;
    }
    bt_fpu_save(c);
    bt_leave_guest(c);
    __atomic_store_n(&c->running, 0, __ATOMIC_SEQ_CST);
}
