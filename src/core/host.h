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
    /* the host's */
    struct host_ram *next; /* of those with mapped files */
    u64 *mapped;           /* a bit for every 64 KiB that are a file's; NULL: none are */
    int pagemap;           /* descriptor, or -1 */
};

/* Guest RAM: zeroed, not reserved, in large pages where the host has them. size: whole pages. */
int host_ram_alloc(struct host_ram *r, u64 size);
void host_ram_free(struct host_ram *r);
/* The first offset from off on, in whole pages, where there may be anything but zeroes; r->size:
 * nowhere. Touches nothing: looking at memory the guest has not used would take memory. */
u64 host_ram_next_used(const struct host_ram *r, u64 off);
/*
 * [off, off+len) of r, whole pages, off a multiple of 64 KiB, becomes a private copy of the file fd
 * from `at` on (a multiple of the page size), read where it is first touched; what is written stays
 * here. fd is not needed any more.
 */
int host_ram_map(struct host_ram *r, u64 off, u64 len, int fd, u64 at);
/* Gives the memory behind [ptr, ptr+len) of guest RAM back to the host: it reads as zeroes. Whole
 * pages; may block for a while. */
int host_ram_discard(void *ptr, u64 len);
/* Zeroed, page-aligned, lazily populated memory; NULL: none. */
void *host_zalloc(u64 size);
void host_free(void *p);
/* Populates [p, p+len), whole pages, for writing (or for what else the mapping allows) at once: a
 * tenth of the cost of a fault a page. Failure does not matter. Any thread, also a vCPU's with the
 * guest's vector state in the registers. */
void host_populate(void *p, u64 len, bool write);
/*
 * The same soon, by a thread beside the caller's; whole multiples of 64 KiB, below 128 MiB. false:
 * not, there is no such thread or it has enough to do. Any thread, as host_populate; the memory
 * stays mapped until host_populator_stop.
 */
bool host_populate_later(void *p, u64 len, bool write);
/* Starts that thread, ends it with as many calls as have started it; the event loop's thread. 0 or
 * -errno. */
int host_populator_start(void);
void host_populator_stop(void);
/* Physical memory of the host in bytes. */
u64 host_total_memory(void);
/* What the control group of this process may use at most, in bytes; 0: no limit is known. */
u64 host_memory_limit(void);

/* --- locks (opaque storage big enough for the host's own)
 * ----------------------------------------------- */

struct host_mutex {
    u64 opaque[5];
};
void host_mutex_init(struct host_mutex *m);
void host_mutex_lock(struct host_mutex *m);
void host_mutex_unlock(struct host_mutex *m);

/* --- scatter/gather ------------------------------------------------------------------------------
 */

/* One piece of memory; laid out as struct iovec. */
struct host_iov {
    void *base;
    size_t len;
};
#define HOST_IOV_MAX 1024

/* --- threads
 * -------------------------------------------------------------------------------------------- */

struct host_thread;
int host_thread_create(struct host_thread **t, const char *name, void (*fn)(void *), void *arg);
void host_thread_join(struct host_thread *t);

/*
 * Threads that run fn(opaque) when kicked, for work that may block. Each kick makes at least one
 * call of fn begin after it (kicks that come while nobody has begun yet count as one); with
 * several threads, kicks during a call may start further calls beside it.
 */
struct host_workers;
int host_workers_create(struct host_workers **w, const char *name, unsigned threads,
                        void (*fn)(void *opaque), void *opaque);
/* Any thread, also a vCPU's with the VM lock held; no allocation. */
void host_workers_kick(struct host_workers *w);
/* An eventfd: adding to it (a doorbell's, core/engine.h) is a kick, too. It is w's; -1: there is
 * none. */
int host_workers_event(const struct host_workers *w);
/* Adds 1 to an eventfd: that one, or an irqfd's (core/irq.h). As host_workers_kick. */
void host_eventfd_add(int fd);
/* Calls that have begun are finished, no further one begins; frees w. NULL: nothing. */
void host_workers_destroy(struct host_workers *w);

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
u64 host_thread_cpu_ns(void); /* CPU time of the calling thread; a system call */
u64 host_tsc_khz(void);       /* frequency of the host's TSC, measured or from CPUID */

/* --- random numbers ----------------------------------------------------------------------------
 */

/* Fills buf with unpredictable bytes. Any thread; does not wait once the host has booted. */
int host_random(void *buf, size_t len);

/* --- event loop: one a process, run by the main thread
 * -------------------------------------------------- */

/* Callbacks run on the loop's thread, without the VM lock. events: EPOLLIN and so on. */
typedef void host_fd_fn(void *opaque, u32 events);
int host_loop_add_fd(int fd, u32 events, host_fd_fn *fn, void *opaque);
int host_loop_mod_fd(int fd, u32 events);
void host_loop_del_fd(int fd);
/* Runs fn on the loop's thread soon; any thread, async-signal-safe not required. */
void host_loop_post(void (*fn)(void *opaque), void *opaque);
/*
 * A bottom half: work for the loop's thread that can be asked for from anywhere, also from a vCPU's
 * thread, without allocating. Asking again before it began changes nothing; asking while it runs
 * makes it run once more. Storage is the caller's; zeroed storage plus host_bh_init.
 */
struct host_bh {
    void (*fn)(void *opaque);
    void *opaque;
    u32 scheduled;        /* atomic */
    struct host_bh *next; /* the loop's */
};
void host_bh_init(struct host_bh *bh, void (*fn)(void *opaque), void *opaque);
void host_bh_schedule(struct host_bh *bh);
/* On the loop's thread, or when it does not run: bh will not be called any more unless it is
 * scheduled again. */
void host_bh_cancel(struct host_bh *bh);
/* (Re)arms the loop's one timer: fn(opaque) at absolute monotonic ns; UINT64_MAX disarms. Any
 * thread. */
void host_loop_timer(u64 monotonic_ns, void (*fn)(void *opaque), void *opaque);
/* Runs until host_loop_stop. When that is called by what the loop runs, nothing else is run but
 * posts; when it comes from another thread, what is ready already still is. */
int host_loop_run(void);
void host_loop_stop(void);

/* --- generated code and vCPU threads (engine bt)
 * --------------------------------------------------------- */

/* Memory for generated code: one memfd seen twice, never writable and executable in one mapping. */
struct host_code {
    u8 *rw;
    u8 *rx;
    u64 size;
};
int host_code_alloc(struct host_code *c, u64 size);
void host_code_free(struct host_code *c);

/*
 * `n` windows of `stride` bytes each, one after another. In every window, bytes [shared_off,
 * shared_off + shared_size) are the same memory (shared by all windows); the rest is private,
 * zeroed memory. Returns the first window or NULL.
 */
u8 *host_windows_alloc(unsigned n, u64 stride, u64 shared_off, u64 shared_size);
void host_windows_free(u8 *first, unsigned n, u64 stride);

/* The interrupted thread, as a signal handler sees and changes it. Registers in encoding order. */
struct host_signal {
    u64 *gpr[16];
    u64 *rip, *rflags;
    int kind;   /* enum host_signal_kind */
    int trapno; /* x86 vector for faults */
    u64 addr;   /* faulting address for #PF */
};

enum host_signal_kind { HOST_SIGNAL_KICK, HOST_SIGNAL_FAULT };

/* Runs on an alternate stack, async-signal-safe. For faults: true when handled, false: the process
 * is ended. */
typedef bool host_signal_fn(void *opaque, struct host_signal *sig);

/* Makes the calling thread a vCPU thread: alternate signal stack, kick signal and fault signals to
 * fn. */
int host_vcpu_attach(host_signal_fn *fn, void *opaque);
void host_vcpu_detach(void);
/* The calling thread's id for host_kick. */
int host_thread_self(void);
/* Sends the kick signal to a vCPU thread of this process. Async-signal-safe. */
void host_kick(int thread);
void host_yield(void);

/* --- the end of the process
 * --------------------------------------------------------------------------------------- */

/* Runs fn before the process ends in any way it can notice (exit, a failed CHECK, a fatal signal):
 * to leave a terminal as it was found. fn: async-signal-safe, harmless when called twice. */
void host_at_end(void (*fn)(void));
/* Runs what host_at_end was given. Async-signal-safe. */
void host_end(void);

#endif
