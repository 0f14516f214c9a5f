/* SPDX-License-Identifier: Apache-2.0 */
/* The local APIC's timer (SDM 3A 10.5.4): one count is a nanosecond times the divider. */
#include "dev/chipset/lapic_priv.h"

/* A periodic timer that would fire faster than this is slowed down: the host has other work. */
#define MIN_PERIOD_NS 20000u

/* Deadlines further away than this are as good as never. */
#define MAX_DELTA_TSC BIT64(60)

/* Divide configuration (SDM 3A figure 10-10). */
static u32 divider(u32 divide)
{
    u32 n = (divide & 3) | (divide >> 1 & 4);
    return n == 7 ? 1 : 2u << n;
}

u64 lapic_timer_count_ns(const struct lapic *l)
{
    return divider(l->timer_divide);
}

void lapic_timer_set_period(struct lapic *l)
{
    l->timer_period = l->timer_init * lapic_timer_count_ns(l);
}

static void fired(void *opaque)
{
    struct lapic *l = opaque;
    u32 lvt = apic_get(&l->lvt[LVT_TIMER]);

    if (LVT_TIMER_MODE(lvt) == TIMER_TSC_DEADLINE) {
        l->tsc_deadline = 0;
    } else if (LVT_TIMER_MODE(lvt) == TIMER_PERIODIC && l->timer_period) {
        u64 now = vm_clock_ns(l->set->vm), next;
        u64 period = l->timer_period < MIN_PERIOD_NS ? MIN_PERIOD_NS : l->timer_period;
        next = l->timer.deadline + period;
        if (next <= now) /* ticks were missed: keep the phase, drop them */
            next = now + period - (now - l->timer.deadline) % period;
        vtimer_set(&l->timer, next);
    }
    lapic_lvt_fire(l, LVT_TIMER);
}

void lapic_timer_setup(struct lapic *l)
{
    vtimer_init(&l->timer, l->set->vm, fired, l);
}

void lapic_timer_reset(struct lapic *l)
{
    vm_lock(l->set->vm);
    vtimer_cancel(&l->timer);
    l->timer_init = l->timer_divide = 0;
    l->timer_period = l->tsc_deadline = 0;
    vm_unlock(l->set->vm);
}

void lapic_timer_write_init(struct lapic *l, u32 val)
{
    if (LVT_TIMER_MODE(l->lvt[LVT_TIMER]) == TIMER_TSC_DEADLINE)
        return; /* SDM 3A 10.5.4.1: ignored in this mode */
    vm_lock(l->set->vm);
    l->timer_init = val;
    lapic_timer_set_period(l);
    if (val)
        vtimer_set(&l->timer, vm_clock_ns(l->set->vm) + l->timer_period);
    else
        vtimer_cancel(&l->timer);
    vm_unlock(l->set->vm);
}

static u64 remaining_ns(struct lapic *l)
{
    u64 now = vm_clock_ns(l->set->vm);
    return l->timer.armed && l->timer.deadline > now ? l->timer.deadline - now : 0;
}

void lapic_timer_write_divide(struct lapic *l, u32 val)
{
    vm_lock(l->set->vm);
    if (LVT_TIMER_MODE(l->lvt[LVT_TIMER]) != TIMER_TSC_DEADLINE && l->timer.armed) {
        /* The count goes on from where it is, at the new rate. */
        u64 count = remaining_ns(l) / divider(l->timer_divide);
        l->timer_divide = val;
        vtimer_set(&l->timer, vm_clock_ns(l->set->vm) + count * divider(val));
    }
    l->timer_divide = val;
    lapic_timer_set_period(l);
    vm_unlock(l->set->vm);
}

void lapic_timer_mode_changed(struct lapic *l, u32 old)
{
    u32 lvt = l->lvt[LVT_TIMER];

    if ((LVT_TIMER_MODE(lvt) == TIMER_TSC_DEADLINE) == (LVT_TIMER_MODE(old) == TIMER_TSC_DEADLINE))
        return;
    vm_lock(l->set->vm);
    vtimer_cancel(&l->timer);
    l->tsc_deadline = 0;
    l->timer_init = 0;
    l->timer_period = 0;
    vm_unlock(l->set->vm);
}

u32 lapic_timer_current(struct lapic *l)
{
    u64 count = 0;

    if (LVT_TIMER_MODE(l->lvt[LVT_TIMER]) == TIMER_TSC_DEADLINE)
        return 0;
    vm_lock(l->set->vm);
    if (l->timer.armed)
        count = remaining_ns(l) / divider(l->timer_divide);
    vm_unlock(l->set->vm);
    return (u32)count;
}

u64 lapic_timer_read_deadline(struct lapic *l)
{
    u64 val;

    vm_lock(l->set->vm);
    val = l->tsc_deadline;
    vm_unlock(l->set->vm);
    return val;
}

void lapic_timer_arm_deadline(struct lapic *l, u64 tsc)
{
    struct vm *vm = l->set->vm;
    u64 delta = l->tsc_deadline > tsc ? l->tsc_deadline - tsc : 0;

    if (delta > MAX_DELTA_TSC || !vm->cpu_model.tsc_khz)
        vtimer_cancel(&l->timer);
    else
        vtimer_set(&l->timer,
                   vm_clock_ns(vm) + clock_scale_up(delta, 1000000, vm->cpu_model.tsc_khz));
}

void lapic_timer_write_deadline(struct lapic *l, u64 val)
{
    struct vm *vm = l->set->vm;
    u64 tsc;
    bool now = false;

    if (LVT_TIMER_MODE(l->lvt[LVT_TIMER]) != TIMER_TSC_DEADLINE)
        return;
    tsc = vcpu_tsc(l->v);
    vm_lock(vm);
    if (!val) {
        l->tsc_deadline = 0;
        vtimer_cancel(&l->timer);
    } else if (val <= tsc) {
        l->tsc_deadline = 0;
        vtimer_cancel(&l->timer);
        now = true;
    } else {
        l->tsc_deadline = val;
        lapic_timer_arm_deadline(l, tsc);
    }
    vm_unlock(vm);
    if (now)
        lapic_lvt_fire(l, LVT_TIMER);
}
