/* SPDX-License-Identifier: Apache-2.0 */
/* Virtual time: a binary heap of timers and the one host timer behind it. */
#include "base/check.h"
#include "core/stream.h"
#include "core/vm.h"

u64 vm_clock_ns(struct vm *vm)
{
    u64 base, stopped, now;

    do {
        base = __atomic_load_n(&vm->clock_base, __ATOMIC_ACQUIRE);
        now = host_monotonic_ns();
        stopped = __atomic_load_n(&vm->clock_stopped, __ATOMIC_ACQUIRE);
        if (unlikely(stopped != VM_CLOCK_RUNS))
            return stopped;
        /* A whole pause went by between the two readings. */
    } while (unlikely(base != __atomic_load_n(&vm->clock_base, __ATOMIC_ACQUIRE)));
    return now - base;
}

/* --- the heap: parent at (i - 1) / 2 ------------------------------------------------------ */

static void place(struct vm *vm, unsigned i, struct vtimer *t)
{
    vm->timer_heap[i] = t;
    t->heap_index = i;
    if (i == 0)
        __atomic_store_n(&vm->next_timer, t->deadline, __ATOMIC_RELAXED);
}

static void sift_up(struct vm *vm, unsigned i, struct vtimer *t)
{
    while (i && vm->timer_heap[(i - 1) / 2]->deadline > t->deadline) {
        place(vm, i, vm->timer_heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    place(vm, i, t);
}

static void sift_down(struct vm *vm, unsigned i, struct vtimer *t)
{
    for (;;) {
        unsigned c = 2 * i + 1;
        if (c >= vm->ntimers)
            break;
        if (c + 1 < vm->ntimers && vm->timer_heap[c + 1]->deadline < vm->timer_heap[c]->deadline)
            c++;
        if (vm->timer_heap[c]->deadline >= t->deadline)
            break;
        place(vm, i, vm->timer_heap[c]);
        i = c;
    }
    place(vm, i, t);
}

static void heap_remove(struct vm *vm, struct vtimer *t)
{
    unsigned i = t->heap_index;
    struct vtimer *last = vm->timer_heap[--vm->ntimers];

    t->armed = false;
    if (!vm->ntimers)
        __atomic_store_n(&vm->next_timer, UINT64_MAX, __ATOMIC_RELAXED);
    if (last == t)
        return;
    if (i && vm->timer_heap[(i - 1) / 2]->deadline > last->deadline)
        sift_up(vm, i, last);
    else
        sift_down(vm, i, last);
}

/* --- the host's timer ---------------------------------------------------------------------- */

static void host_timer_fired(void *opaque);

static u64 host_time(const struct vm *vm, u64 clock)
{
    u64 base = vm->clock_base, sum;

    if (base >> 63) /* before the host's zero: the machine has run for longer than the host */
        return clock >= -base ? clock + base : 0;
    return add_ok(clock, base, &sum) ? sum : UINT64_MAX;
}

/*
 * The host's timer is moved only to come earlier: one that fires too soon finds nothing due and is
 * set again, which is rarer than a guest that moves its deadline further away.
 */
static void arm_host(struct vm *vm)
{
    u64 next = vm_timers_next(vm);

    if (next >= vm->host_deadline || vm->clock_stopped != VM_CLOCK_RUNS)
        return;
    vm->host_deadline = next;
    host_loop_timer(host_time(vm, next), host_timer_fired, vm);
}

static void host_timer_fired(void *opaque)
{
    struct vm *vm = opaque;

    vm_lock(vm);
    vm->host_deadline = UINT64_MAX;
    if (vm->clock_stopped == VM_CLOCK_RUNS)
        vm_timers_run(vm);
    arm_host(vm);
    vm_unlock(vm);
}

void vm_clock_stop(struct vm *vm)
{
    vm_lock(vm);
    __atomic_store_n(&vm->clock_stopped, vm_clock_ns(vm), __ATOMIC_RELEASE);
    vm->tsc_stopped = vm->read_tsc();
    vm_unlock(vm);
}

u64 vm_clock_start(struct vm *vm)
{
    u64 lost;

    vm_lock(vm);
    lost = vm->read_tsc() - vm->tsc_stopped;
    vm->tsc_lost += lost;
    __atomic_store_n(&vm->clock_base, host_monotonic_ns() - vm->clock_stopped, __ATOMIC_RELEASE);
    __atomic_store_n(&vm->clock_stopped, VM_CLOCK_RUNS, __ATOMIC_RELEASE);
    /* Whatever the host's timer was armed for has passed unseen or comes too early. */
    vm->host_deadline = UINT64_MAX;
    arm_host(vm);
    vm_unlock(vm);
    return lost;
}

void vm_clock_set(struct vm *vm, u64 ns)
{
    CHECK(vm->clock_stopped != VM_CLOCK_RUNS);
    __atomic_store_n(&vm->clock_stopped, ns, __ATOMIC_RELEASE);
}

/* --- timers -------------------------------------------------------------------------------- */

void vtimer_init(struct vtimer *t, struct vm *vm, void (*fn)(void *), void *opaque)
{
    *t = (struct vtimer){.fn = fn, .opaque = opaque, .vm = vm};
}

void vtimer_set(struct vtimer *t, u64 deadline_ns)
{
    struct vm *vm = t->vm;

    if (t->armed) {
        u64 old = t->deadline;
        t->deadline = deadline_ns;
        if (deadline_ns < old)
            sift_up(vm, t->heap_index, t);
        else if (deadline_ns > old)
            sift_down(vm, t->heap_index, t);
    } else {
        /* Timers belong to devices, whose number is the board's, not the guest's. */
        CHECK(vm->ntimers < VTIMERS_MAX);
        t->deadline = deadline_ns;
        t->armed = true;
        sift_up(vm, vm->ntimers++, t);
    }
    arm_host(vm);
}

void vtimer_cancel(struct vtimer *t)
{
    if (t->armed)
        heap_remove(t->vm, t);
}

void vtimer_save(const struct vtimer *t, struct stream *out)
{
    stream_put_u8(out, t->armed);
    stream_put_u64(out, t->armed ? t->deadline : 0);
}

void vtimer_load(struct vtimer *t, struct stream *in)
{
    bool armed = stream_get_u8(in);
    u64 deadline = stream_get_u64(in);

    if (armed && !in->error)
        vtimer_set(t, deadline);
    else
        vtimer_cancel(t);
}

u64 vm_timers_next(const struct vm *vm)
{
    return vm->ntimers ? vm->timer_heap[0]->deadline : UINT64_MAX;
}

u64 vm_timers_run(struct vm *vm)
{
    u64 now;

    if (!vm->ntimers)
        return UINT64_MAX;
    now = vm_clock_ns(vm);
    /* One that rearms itself for the past waits for the next turn: the work here is bounded. */
    for (unsigned budget = VTIMERS_MAX; budget && vm->ntimers; budget--) {
        struct vtimer *t = vm->timer_heap[0];
        if (t->deadline > now)
            break;
        heap_remove(vm, t);
        t->fn(t->opaque);
    }
    return vm_timers_next(vm);
}
