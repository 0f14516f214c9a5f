/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtual time: one clock a VM, in ns since creation, which stops while the VM is paused; and
 * timers on it. All timers of a VM share one host timer (host.h), kept at the earliest deadline.
 */
#ifndef TRIVISOR_CORE_CLOCK_H
#define TRIVISOR_CORE_CLOCK_H

#include "base/types.h"

struct stream;
struct vm;

struct vtimer {
    void (*fn)(
        void *opaque); /* called with the VM lock held, from the event loop or a vCPU thread */
    void *opaque;
    u64 deadline; /* clock ns; valid while armed */
    struct vm *vm;
    bool armed;
    unsigned heap_index; /* private */
};

#define VTIMERS_MAX 256

/* a * mul / div without overflow in between; the result must fit. */
static inline u64 clock_scale(u64 a, u32 mul, u32 div)
{
    return a / div * mul + a % div * mul / div;
}

/* The same, rounded up. */
static inline u64 clock_scale_up(u64 a, u32 mul, u32 div)
{
    return a / div * mul + (a % div * mul + div - 1) / div;
}

/* Now, in clock ns. Any thread, no lock. */
u64 vm_clock_ns(struct vm *vm);

void vtimer_init(struct vtimer *t, struct vm *vm, void (*fn)(void *), void *opaque);
/* Arm for an absolute deadline (one in the past fires soon) or disarm. VM lock held. */
void vtimer_set(struct vtimer *t, u64 deadline_ns);
void vtimer_cancel(struct vtimer *t);
/* Whether it is armed, and for when. VM lock held. */
void vtimer_save(const struct vtimer *t, struct stream *out);
void vtimer_load(struct vtimer *t, struct stream *in);
/* Earliest deadline of all timers, or UINT64_MAX. VM lock held. */
u64 vm_timers_next(const struct vm *vm);

/* Stops the clock and its timers, and starts them again where they stood. Returns how many ticks of
 * the host's TSC went by in between: what the guests' have to be set back by. For vm_pause and
 * vm_resume, with all vCPUs parked. VM lock not held. */
void vm_clock_stop(struct vm *vm);
u64 vm_clock_start(struct vm *vm);
/* Puts a stopped clock to ns; armed timers keep their deadlines. */
void vm_clock_set(struct vm *vm, u64 ns);

/* Runs what is due; returns the next deadline or UINT64_MAX. VM lock held. Called by the host's
 * timer. */
u64 vm_timers_run(struct vm *vm);

#endif
