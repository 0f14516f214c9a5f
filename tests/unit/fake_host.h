/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host seam without a host: a clock that stands until told otherwise, no threads, no loop; and
 * an engine that only records. Everything runs on the test's thread.
 */
#ifndef TRIVISOR_TESTS_UNIT_FAKE_HOST_H
#define TRIVISOR_TESTS_UNIT_FAKE_HOST_H

#include "core/vm.h"

#define FAKE_TSC_KHZ 2000000u /* two ticks a nanosecond */
#define FAKE_RAM_SIZE 0x200000u
#define FAKE_EPOCH_NS 1000000000ull * 1700000000ull /* 2023-11-14 22:13:20 UTC */

struct fake_vcpu {
    struct vcpu v;
    struct x86_vcpu_state s;
    unsigned kicks;
};

struct machine {
    struct vm vm;
    struct fake_vcpu cpu[VM_VCPUS_MAX];
    u8 *ram;
    u64 written_gpa, written_len; /* last memory_written */
    u64 watched_gpa;              /* the test's: */
    unsigned watched;             /* ... how often it was among what was written */
    struct debug_points points;   /* last set_debug */
    unsigned debug_sets;
};

extern const struct engine_ops fake_engine_ops;
/* What the fake engine's run does; NULL: HLT. */
extern void (*fake_run)(struct vcpu *v, struct engine_exit *exit);
/* What becomes of a thread that is created; NULL: it runs when the loop does. */
extern void (*fake_thread)(void (*fn)(void *), void *arg);
/* Called instead of blocking in host_event_wait; NULL: a failed test. */
extern void (*fake_block)(void);
extern unsigned fake_loop_stops;

/* RAM at 0 and ncpus vCPUs, no devices. */
struct machine *machine_new(unsigned ncpus);
void machine_free(struct machine *m);

/* Lets ns pass; timers fire when they are due. */
void fake_advance(u64 ns);
u64 fake_now(void);

/* Runs the bottom halves that are scheduled and the workers that were kicked, until there are none:
 * what the event loop and the workers' threads would do meanwhile. How many ran. */
unsigned fake_settle(void);

/* Descriptors that host_workers_event gives, from here on; and adding to one of them. */
#define FAKE_WORKERS_EVENT 1000
void fake_ring(int event);
/* What host_eventfd_add does; NULL: a failed test. */
extern void (*fake_added)(int fd);

/* Calls of host_ram_discard. */
extern unsigned fake_discards;
/* Called once within the next one; NULL: nothing. */
extern void (*fake_in_discard)(void);

/* Events posted to a vCPU since the last call. */
u32 fake_events(struct machine *m, unsigned cpu);

u8 inb(struct machine *m, u16 port);
void outb(struct machine *m, u16 port, u8 val);

/* An irq line that records its level and counts rising edges. */
struct probe {
    bool level;
    unsigned rises;
};
struct irq_line probe_line(struct probe *p);

#endif
