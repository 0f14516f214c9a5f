/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads that wait for kicks: in epoll, on an eventfd that nobody reads. As it is watched
 * edge-triggered, each write to it wakes one of those that wait, or the next one to wait
 * (epoll(7)); the write may be the kernel's.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/host.h"

struct host_workers {
    int event, ep;
    u32 pending, stop, idle; /* atomic */
    unsigned n;
    void (*fn)(void *opaque);
    void *opaque;
    struct host_thread *thread[];
};

void host_eventfd_add(int fd)
{
    u64 one = 1;

    /* It fails only when the counter is full, after centuries. */
    if (write(fd, &one, sizeof(one)) < 0)
        return;
}

/* Whoever kicks says so first and looks for idle ones then, a thread here does it the other way
 * round: one of them sees the other. */
static void wait_for_kick(struct host_workers *w)
{
    struct epoll_event ev;

    __atomic_fetch_add(&w->idle, 1, __ATOMIC_SEQ_CST);
    while (!__atomic_exchange_n(&w->pending, 0, __ATOMIC_SEQ_CST) &&
           !__atomic_load_n(&w->stop, __ATOMIC_SEQ_CST))
        if (epoll_wait(w->ep, &ev, 1, -1) > 0) {
            __atomic_exchange_n(&w->pending, 0, __ATOMIC_SEQ_CST);
            break;
        }
    __atomic_fetch_sub(&w->idle, 1, __ATOMIC_SEQ_CST);
}

static void work(void *opaque)
{
    struct host_workers *w = opaque;

    for (;;) {
        wait_for_kick(w);
        if (__atomic_load_n(&w->stop, __ATOMIC_SEQ_CST))
            break;
        w->fn(w->opaque);
    }
    host_eventfd_add(w->event); /* for the next one to end */
}

static int open_event(struct host_workers *w)
{
    struct epoll_event ev = {.events = EPOLLIN | EPOLLET};

    w->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    w->ep = epoll_create1(EPOLL_CLOEXEC);
    if (w->event < 0 || w->ep < 0 || epoll_ctl(w->ep, EPOLL_CTL_ADD, w->event, &ev))
        return -errno;
    return 0;
}

int host_workers_create(struct host_workers **out, const char *name, unsigned threads,
                        void (*fn)(void *opaque), void *opaque)
{
    struct host_workers *w = calloc(1, sizeof(*w) + threads * sizeof(w->thread[0]));
    int err;

    if (!w)
        return -ENOMEM;
    w->event = w->ep = -1;
    w->fn = fn;
    w->opaque = opaque;
    err = open_event(w);
    while (w->n < threads && !err) {
        err = host_thread_create(&w->thread[w->n], name, work, w);
        w->n += !err;
    }
    if (err) {
        host_workers_destroy(w);
        return err;
    }
    *out = w;
    return 0;
}

void host_workers_kick(struct host_workers *w)
{
    if (!__atomic_exchange_n(&w->pending, 1, __ATOMIC_SEQ_CST) &&
        __atomic_load_n(&w->idle, __ATOMIC_SEQ_CST))
        host_eventfd_add(w->event);
}

int host_workers_event(const struct host_workers *w)
{
    return w->event;
}

void host_workers_destroy(struct host_workers *w)
{
    if (!w)
        return;
    __atomic_store_n(&w->stop, 1, __ATOMIC_SEQ_CST);
    if (w->n)
        host_eventfd_add(w->event);
    for (unsigned i = 0; i < w->n; i++)
        host_thread_join(w->thread[i]);
    if (w->ep >= 0)
        close(w->ep);
    if (w->event >= 0)
        close(w->event);
    free(w);
}
