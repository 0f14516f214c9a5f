/* SPDX-License-Identifier: Apache-2.0 */
/* The debugger's hold on a machine. */
#include <errno.h>
#include <string.h>

#include "core/debug.h"

#include "core/vcpu_priv.h"

struct vm_debug {
    struct vm *vm;
    struct vm_debugger by;
    struct debug_points points;
    bool changed; /* the engine does not have `points` yet */
    bool running; /* our vm_pause is not in force */
    enum debug_action action[VM_VCPUS_MAX];
    struct host_bh stopped;
};

/* --- on the vCPU's thread -------------------------------------------------------------------- */

void vcpu_debug_stopped(struct vcpu *v, const struct debug_stop *stop)
{
    struct vm_debug *d = v->vm->debug;

    if (!d) {
        vm_stop(v->vm, VM_CRASH, VM_EXIT_FAILURE, "debug event and no debugger");
        return;
    }
    v->stop = *stop;
    v->debug.step = false;
    __atomic_store_n(&v->held, 1, __ATOMIC_SEQ_CST); /* until the VM is paused */
    __atomic_store_n(&v->stopped, 1, __ATOMIC_RELEASE);
    host_bh_schedule(&d->stopped);
}

bool vcpu_debug_dead(struct vcpu *v)
{
    static const struct debug_stop dead = {.reason = DEBUG_STOP_DEAD};

    if (!v->vm->debug || v->dead_told)
        return false;
    v->dead_told = true;
    vcpu_debug_stopped(v, &dead);
    return true;
}

/* --- on the event loop ----------------------------------------------------------------------- */

static int find_break(const struct debug_points *p, u64 lin, unsigned *at)
{
    unsigned i = 0;

    while (i < p->nbreaks && p->breaks[i] < lin)
        i++;
    *at = i;
    return i < p->nbreaks && p->breaks[i] == lin ? 0 : -ENOENT;
}

static int find_watch(const struct debug_points *p, const struct debug_watch *w, unsigned *at)
{
    for (unsigned i = 0; i < p->nwatches; i++)
        if (p->watch[i].lin == w->lin && p->watch[i].len == w->len && p->watch[i].kind == w->kind) {
            *at = i;
            return 0;
        }
    return -ENOENT;
}

/* What happened is still what the debugger asks for. */
static bool still_wanted(const struct vm_debug *d, const struct vcpu *v, enum debug_action action)
{
    switch (v->stop.reason) {
    case DEBUG_STOP_BREAK:
        /* Nothing was executed: should it be wanted, it happens again. */
        return false;
    case DEBUG_STOP_WATCH:
        for (unsigned i = 0; i < d->points.nwatches; i++)
            if (d->points.watch[i].lin == v->stop.addr && d->points.watch[i].kind == v->stop.kind)
                return true;
        return false;
    case DEBUG_STOP_STEP:
        return action == DEBUG_STEP;
    case DEBUG_STOP_DEAD:
        return true;
    }
    return false;
}

/* Tells the first thing that happened to a vCPU that is not held, if any. The VM is paused. */
static bool tell(struct vm_debug *d)
{
    for (unsigned i = 0; i < d->vm->nvcpus; i++) {
        struct vcpu *v = d->vm->vcpu[i];

        if (d->action[i] == DEBUG_HOLD || !__atomic_load_n(&v->stopped, __ATOMIC_ACQUIRE))
            continue;
        v->stopped = 0;
        d->by.stopped(d->by.opaque, v);
        return true;
    }
    return false;
}

static void on_stopped(void *opaque)
{
    struct vm_debug *d = opaque;

    if (!d->running) /* too late: the VM was stopped for something else; vm_debug_go comes back */
        return;
    vm_debug_interrupt(d->vm);
    tell(d);
}

int vm_debug_attach(struct vm *vm, const struct vm_debugger *by)
{
    struct vm_debug *d;

    if (vm->debug)
        return -EBUSY;
    if (!vm->engine->set_debug)
        return -ENOTSUP;
    d = host_zalloc(sizeof(*d));
    if (!d)
        return -ENOMEM;
    d->vm = vm;
    d->by = *by;
    host_bh_init(&d->stopped, on_stopped, d);
    vm_pause(vm);
    vm->debug = d;
    return 0;
}

void vm_debug_detach(struct vm *vm)
{
    struct vm_debug *d = vm->debug;

    vm_debug_interrupt(vm);
    host_bh_cancel(&d->stopped);
    memset(&d->points, 0, sizeof(d->points));
    vm->engine->set_debug(vm, &d->points);
    for (unsigned i = 0; i < vm->nvcpus; i++) {
        struct vcpu *v = vm->vcpu[i];

        v->debug = (struct debug_step){0};
        v->stopped = 0;
        v->held = 0;
    }
    vm->debug = NULL;
    host_free(d);
    vm_resume(vm);
}

bool vm_debug_running(const struct vm *vm)
{
    return vm->debug->running;
}

void vm_debug_interrupt(struct vm *vm)
{
    struct vm_debug *d = vm->debug;

    if (!d->running)
        return;
    d->running = false;
    vm_pause(vm);
    for (unsigned i = 0; i < vm->nvcpus; i++) {
        vm->vcpu[i]->debug = (struct debug_step){0};
        __atomic_store_n(&vm->vcpu[i]->held, 0, __ATOMIC_SEQ_CST);
    }
}

int vm_debug_insert(struct vm *vm, enum debug_point_kind kind, u64 lin, u64 len)
{
    struct debug_points *p = &vm->debug->points;
    struct debug_watch w = {.lin = lin, .len = len, .kind = kind};
    unsigned at;

    if (kind == DEBUG_BREAK) {
        if (!find_break(p, lin, &at))
            return -EEXIST;
        if (p->nbreaks == DEBUG_BREAKS_MAX)
            return -ENOSPC;
        memmove(&p->breaks[at + 1], &p->breaks[at], (p->nbreaks - at) * sizeof(p->breaks[0]));
        p->breaks[at] = lin;
        p->nbreaks++;
    } else {
        u64 end;

        if (!len || !add_ok(lin, len - 1, &end))
            return -EINVAL;
        if (!find_watch(p, &w, &at))
            return -EEXIST;
        if (p->nwatches == DEBUG_WATCHES_MAX)
            return -ENOSPC;
        p->watch[p->nwatches++] = w;
    }
    vm->debug->changed = true;
    return 0;
}

int vm_debug_remove(struct vm *vm, enum debug_point_kind kind, u64 lin, u64 len)
{
    struct debug_points *p = &vm->debug->points;
    struct debug_watch w = {.lin = lin, .len = len, .kind = kind};
    unsigned at;

    if (kind == DEBUG_BREAK) {
        if (find_break(p, lin, &at))
            return -ENOENT;
        p->nbreaks--;
        memmove(&p->breaks[at], &p->breaks[at + 1], (p->nbreaks - at) * sizeof(p->breaks[0]));
    } else {
        if (find_watch(p, &w, &at))
            return -ENOENT;
        p->watch[at] = p->watch[--p->nwatches];
    }
    vm->debug->changed = true;
    return 0;
}

int vm_debug_go(struct vm *vm, const struct debug_order *order)
{
    struct vm_debug *d = vm->debug;

    for (unsigned i = 0; i < vm->nvcpus; i++) {
        struct vcpu *v = vm->vcpu[i];

        d->action[i] = order[i].action;
        if (d->action[i] != DEBUG_HOLD && v->stopped && !still_wanted(d, v, d->action[i]))
            v->stopped = 0;
    }
    if (tell(d))
        return 0;
    if (d->changed) {
        int err = vm->engine->set_debug(vm, &d->points);

        if (err)
            return err;
        d->changed = false;
    }
    for (unsigned i = 0; i < vm->nvcpus; i++) {
        struct vcpu *v = vm->vcpu[i];

        v->debug = d->action[i] == DEBUG_STEP ? order[i].step : (struct debug_step){0};
        v->debug.step = d->action[i] == DEBUG_STEP;
        __atomic_store_n(&v->held, d->action[i] == DEBUG_HOLD, __ATOMIC_SEQ_CST);
    }
    d->running = true;
    vm_resume(vm);
    return 0;
}
