/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a debugger waits for. No block holds an instruction at a breakpoint, but ends before it, so
 * that every way to it comes to the run loop. Pages with watchpoints have no TLB entries, so that
 * every access to them comes to C, and those that meet a watchpoint to the interpreter. Steps are
 * the interpreter's. With no debugger none of this costs translated code anything.
 */
#include "engine/bt/bt_priv.h"

#define ENOMEM_ 12

bool bt_is_break(const struct bt_vm *bt, u64 lin)
{
    unsigned lo = 0, hi = bt->nbreaks;

    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;

        if (bt->debug->breaks[mid] == lin)
            return true;
        if (bt->debug->breaks[mid] < lin)
            lo = mid + 1;
        else
            hi = mid;
    }
    return false;
}

static u64 linear_rip(const struct bt_vcpu *c)
{
    const struct x86_vcpu_state *s = &c->env->s;

    return x86_64bit(s) ? s->rip : (u32)(s->seg[X86_CS].base + s->rip);
}

bool bt_at_break(const struct bt_vcpu *c)
{
    return bt_is_break(c->bt, linear_rip(c));
}

static bool overlaps(const struct debug_watch *w, u64 first, u64 last)
{
    return first <= w->lin + (w->len - 1) && w->lin <= last;
}

bool bt_page_watched(const struct bt_vm *bt, u64 lin, bool write)
{
    u64 page = lin & PAGE_MASK;

    for (unsigned i = 0; i < bt->nwatches; i++) {
        const struct debug_watch *w = &bt->debug->watch[i];

        /* Through a write entry is read too. */
        if ((write || w->kind != DEBUG_WATCH_WRITE) && overlaps(w, page, page | ~PAGE_MASK))
            return true;
    }
    return false;
}

const struct debug_watch *bt_watched(const struct bt_vm *bt, u64 lin, u64 len, unsigned access)
{
    bool write = (access & 3) == X86_ACC_WRITE;
    bool read = !write || (access & X86_ACC_ALSO_READ);

    for (unsigned i = 0; i < bt->nwatches; i++) {
        const struct debug_watch *w = &bt->debug->watch[i];
        bool wanted =
            w->kind == DEBUG_WATCH_ACCESS || (w->kind == DEBUG_WATCH_WRITE ? write : read);

        if (wanted && overlaps(w, lin, lin + (len - 1)))
            return w;
    }
    return NULL;
}

void bt_watch_access(struct bt_vcpu *c, u64 lin, u64 len, unsigned access)
{
    const struct debug_watch *w = bt_watched(c->bt, lin, len, access);

    if (!w || c->watch_hit)
        return;
    c->watch_hit = true;
    c->hit = *w;
}

static bool same_watches(const struct debug_points *a, const struct debug_points *b)
{
    return a->nwatches == b->nwatches &&
           !memcmp(a->watch, b->watch, a->nwatches * sizeof(a->watch[0]));
}

int bt_set_debug(struct vm *vm, const struct debug_points *p)
{
    struct bt_vm *bt = vm->engine_vm;
    bool flush;

    if (!bt->debug)
        bt->debug = host_zalloc(sizeof(*bt->debug));
    if (!bt->debug)
        return -ENOMEM_;
    /* Blocks that end before a breakpoint that is no more are good blocks. */
    for (unsigned i = 0; i < p->nbreaks; i++)
        if (!bt_is_break(bt, p->breaks[i]))
            bt_cache_invalidate_va(bt, p->breaks[i]);
    flush = !same_watches(bt->debug, p);
    memcpy(bt->debug, p, sizeof(*p));
    bt->nbreaks = p->nbreaks;
    bt->nwatches = p->nwatches;
    for (unsigned i = 0; flush && i < bt->nvcpus; i++)
        bt_flush(bt->vcpu[i], INTERP_FLUSH_ALL, 0);
    return 0;
}

bool bt_debug_before(struct bt_vcpu *c, struct engine_exit *exit)
{
    const struct debug_step *step = &c->v->debug;

    exit->kind = ENGINE_EXIT_DEBUG;
    if (c->watch_hit) /* by the delivery of an event */
        return bt_debug_after(c, exit);
    if (step->step && c->delivered) {
        exit->debug = (struct debug_stop){.reason = DEBUG_STOP_STEP};
        return true;
    }
    if (bt_at_break(c)) {
        exit->debug = (struct debug_stop){.reason = DEBUG_STOP_BREAK, .addr = linear_rip(c)};
        return true;
    }
    return false;
}

bool bt_debug_after(struct bt_vcpu *c, struct engine_exit *exit)
{
    const struct debug_step *step = &c->v->debug;
    u64 rip = c->env->s.rip;

    c->delivered = false;
    exit->kind = ENGINE_EXIT_DEBUG;
    if (c->watch_hit) {
        c->watch_hit = false;
        exit->debug = (struct debug_stop){
            .reason = DEBUG_STOP_WATCH, .addr = c->hit.lin, .kind = c->hit.kind};
        return true;
    }
    if (step->step && c->result != INTERP_UNSUPPORTED && c->env->s.activity != X86_SHUTDOWN &&
        (rip < step->lo || rip >= step->hi)) {
        exit->debug = (struct debug_stop){.reason = DEBUG_STOP_STEP};
        return true;
    }
    return false;
}
