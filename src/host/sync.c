/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks, events and clocks on futexes. Built for general registers only and without libc: engines
 * take them while guest vector state is live in the registers.
 */
#include <linux/futex.h>
#include <linux/time.h>
#include <sys/syscall.h>

#include "base/bits.h"
#include "core/host.h"

#define NS_PER_S 1000000000ull

static long futex(u32 *word, int op, u32 val, const struct timespec *timeout)
{
    register const void *r10 __asm__("r10") = timeout;
    register u64 r8 __asm__("r8") = 0;
    register u64 r9 __asm__("r9") = 0;
    long ret;

    __asm__ volatile("syscall"
                     : "=a"(ret)
                     : "0"((long)SYS_futex), "D"(word), "S"((long)op), "d"((u64)val), "r"(r10),
                       "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return ret;
}

/* --- mutex: 0 free, 1 held, 2 held and somebody may sleep (Drepper, "Futexes are tricky", mutex 3)
 */

static u32 *mutex_word(struct host_mutex *m)
{
    return (u32 *)&m->opaque[0];
}

void host_mutex_init(struct host_mutex *m)
{
    for (unsigned i = 0; i < ARRAY_SIZE(m->opaque); i++)
        m->opaque[i] = 0;
}

void host_mutex_lock(struct host_mutex *m)
{
    u32 *word = mutex_word(m);
    u32 seen = 0;

    if (likely(
            __atomic_compare_exchange_n(word, &seen, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)))
        return;
    /* Sections are short: a little patience costs less than two system calls. */
    for (unsigned spin = 0; spin < 100; spin++) {
        __builtin_ia32_pause();
        seen = 0;
        if (__atomic_load_n(word, __ATOMIC_RELAXED) == 0 &&
            __atomic_compare_exchange_n(word, &seen, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            return;
    }
    while (__atomic_exchange_n(word, 2, __ATOMIC_ACQUIRE) != 0)
        futex(word, FUTEX_WAIT_PRIVATE, 2, NULL);
}

void host_mutex_unlock(struct host_mutex *m)
{
    u32 *word = mutex_word(m);

    if (__atomic_exchange_n(word, 0, __ATOMIC_RELEASE) == 2)
        futex(word, FUTEX_WAKE_PRIVATE, 1, NULL);
}

/* --- event: 0 clear, 1 set, 2 somebody sleeps on a clear one; one waiter ------------------------
 */

bool host_event_wait(struct host_event *e, u64 timeout_ns)
{
    u64 deadline = UINT64_MAX, now;

    if (timeout_ns != UINT64_MAX && !add_ok(host_monotonic_ns(), timeout_ns, &deadline))
        deadline = UINT64_MAX;
    for (;;) {
        u32 seen = 1;
        struct timespec ts, *tsp = NULL;

        if (__atomic_compare_exchange_n(&e->state, &seen, 0, false, __ATOMIC_ACQUIRE,
                                        __ATOMIC_RELAXED))
            return true;
        if (deadline != UINT64_MAX) {
            now = host_monotonic_ns();
            if (now >= deadline) {
                /* A set that came in between is not to be lost, nor a stale 2 to be left. */
                return __atomic_exchange_n(&e->state, 0, __ATOMIC_ACQUIRE) == 1;
            }
            ts.tv_sec = (long)((deadline - now) / NS_PER_S);
            ts.tv_nsec = (long)((deadline - now) % NS_PER_S);
            tsp = &ts;
        }
        seen = 0;
        if (!__atomic_compare_exchange_n(&e->state, &seen, 2, false, __ATOMIC_ACQUIRE,
                                         __ATOMIC_ACQUIRE) &&
            seen == 1)
            continue;
        futex(&e->state, FUTEX_WAIT_PRIVATE, 2, tsp);
    }
}

void host_event_set(struct host_event *e)
{
    if (__atomic_exchange_n(&e->state, 1, __ATOMIC_RELEASE) == 2)
        futex(&e->state, FUTEX_WAKE_PRIVATE, 1, NULL);
}
