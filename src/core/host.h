/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host seam: what the layers above need of the machine we run on. src/host implements it on
 * Linux. Negative results are -errno.
 */
#ifndef TRIVISOR_CORE_HOST_H
#define TRIVISOR_CORE_HOST_H

#include "base/types.h"

/* --- memory
 * ------------------------------------------------------------------------------------------- */

struct host_ram {
    void *ptr;
    u64 size;
    int fd; /* memfd behind it */
};

/* Guest RAM: a shared memfd mapping, zeroed, not reserved. */
int host_ram_alloc(struct host_ram *r, u64 size);
void host_ram_free(struct host_ram *r);
/* Physical memory of the host in bytes. */
u64 host_total_memory(void);

/* --- locks (opaque storage big enough for the host's own)
 * ----------------------------------------------- */

struct host_mutex {
    u64 opaque[5];
};
void host_mutex_init(struct host_mutex *m);
void host_mutex_lock(struct host_mutex *m);
void host_mutex_unlock(struct host_mutex *m);

/* --- threads
 * -------------------------------------------------------------------------------------------- */

struct host_thread;
int host_thread_create(struct host_thread **t, const char *name, void (*fn)(void *), void *arg);
void host_thread_join(struct host_thread *t);

/* --- a one-bit event a thread can wait on
 * -------------------------------------------------------------- */

struct host_event {
    u32 state;
};
/* Waits until set or until timeout_ns passed (UINT64_MAX: for ever); clears it. true: it was set.
 */
bool host_event_wait(struct host_event *e, u64 timeout_ns);
void host_event_set(struct host_event *e);

/* --- clocks
 * --------------------------------------------------------------------------------------------- */

u64 host_monotonic_ns(void);
u64 host_realtime_ns(void);
u64 host_tsc_khz(void); /* frequency of the host's TSC, measured or from CPUID */

/* --- event loop: one a process, run by the main thread
 * -------------------------------------------------- */

/* Callbacks run on the loop's thread, without the VM lock. events: EPOLLIN and so on. */
typedef void host_fd_fn(void *opaque, u32 events);
int host_loop_add_fd(int fd, u32 events, host_fd_fn *fn, void *opaque);
int host_loop_mod_fd(int fd, u32 events);
void host_loop_del_fd(int fd);
/* Runs fn on the loop's thread soon; any thread, async-signal-safe not required. */
void host_loop_post(void (*fn)(void *opaque), void *opaque);
/* (Re)arms the loop's one timer: fn(opaque) at absolute monotonic ns; UINT64_MAX disarms. Any
 * thread. */
void host_loop_timer(u64 monotonic_ns, void (*fn)(void *opaque), void *opaque);
/* Runs until host_loop_stop. */
int host_loop_run(void);
void host_loop_stop(void);

#endif
