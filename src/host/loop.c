/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop: one a process, on epoll. Other threads reach it through an eventfd (posts, stop)
 * and by arming its timerfd.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "core/host.h"

#define NS_PER_S 1000000000ull
#define EVENTS_AT_ONCE 16

/* A watched descriptor. A dead one stays until no dispatch can hold a pointer to it. */
struct watch {
    struct watch *next;
    int fd;
    u32 events;
    host_fd_fn *fn;
    void *opaque;
    /* A regular file or /dev/null: epoll refuses it because it is ready all the time. */
    bool always_ready;
    bool dead;
};

struct post {
    struct post *next;
    void (*fn)(void *opaque);
    void *opaque;
};

static struct {
    pthread_mutex_t lock; /* guards everything below but what only the loop's thread uses */
    int ep, wake, timer;
    struct watch *watches;
    unsigned always_ready; /* live watches epoll refused, with interest in something */
    struct post *first, **last;
    struct host_bh *bh_first, **bh_last;
    unsigned nbhs;
    bool stop;
    bool at_once; /* the loop's own thread stopped it; only that thread's */
    pthread_t thread;
    u64 deadline;
    void (*timer_fn)(void *opaque);
    void *timer_opaque;
} loop = {.lock = PTHREAD_MUTEX_INITIALIZER, .ep = -1, .wake = -1, .timer = -1};

static pthread_once_t loop_once = PTHREAD_ONCE_INIT;
static int loop_error;

static void loop_init(void)
{
    struct epoll_event ev = {.events = EPOLLIN};

    loop.last = &loop.first;
    loop.bh_last = &loop.bh_first;
    loop.deadline = UINT64_MAX;
    loop.ep = epoll_create1(EPOLL_CLOEXEC);
    loop.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    loop.timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (loop.ep < 0 || loop.wake < 0 || loop.timer < 0) {
        loop_error = -errno;
        return;
    }
    ev.data.ptr = &loop.wake;
    if (epoll_ctl(loop.ep, EPOLL_CTL_ADD, loop.wake, &ev))
        loop_error = -errno;
    ev.data.ptr = &loop.timer;
    if (epoll_ctl(loop.ep, EPOLL_CTL_ADD, loop.timer, &ev))
        loop_error = -errno;
}

static int loop_ready(void)
{
    pthread_once(&loop_once, loop_init);
    return loop_error;
}

static void wake_loop(void)
{
    u64 one = 1;

    /* It fails only when the counter is full, and then the loop wakes anyway. */
    if (write(loop.wake, &one, sizeof(one)) < 0)
        return;
}

static struct watch *find_watch(int fd)
{
    for (struct watch *w = loop.watches; w; w = w->next)
        if (w->fd == fd && !w->dead)
            return w;
    return NULL;
}

int host_loop_add_fd(int fd, u32 events, host_fd_fn *fn, void *opaque)
{
    struct epoll_event ev = {.events = events};
    struct watch *w;
    int err = loop_ready();

    if (err)
        return err;
    w = calloc(1, sizeof(*w));
    if (!w)
        return -ENOMEM;
    w->fd = fd;
    w->events = events;
    w->fn = fn;
    w->opaque = opaque;
    ev.data.ptr = w;
    pthread_mutex_lock(&loop.lock);
    if (epoll_ctl(loop.ep, EPOLL_CTL_ADD, fd, &ev)) {
        if (errno != EPERM) {
            err = -errno;
            pthread_mutex_unlock(&loop.lock);
            free(w);
            return err;
        }
        w->always_ready = true;
        loop.always_ready += events != 0;
    }
    w->next = loop.watches;
    loop.watches = w;
    pthread_mutex_unlock(&loop.lock);
    if (w->always_ready)
        wake_loop();
    return 0;
}

int host_loop_mod_fd(int fd, u32 events)
{
    struct epoll_event ev = {.events = events};
    struct watch *w;
    int err = 0;

    pthread_mutex_lock(&loop.lock);
    w = find_watch(fd);
    if (!w) {
        err = -ENOENT;
    } else if (w->always_ready) {
        loop.always_ready -= w->events != 0;
        loop.always_ready += events != 0;
        w->events = events;
        wake_loop();
    } else {
        w->events = events;
        ev.data.ptr = w;
        if (epoll_ctl(loop.ep, EPOLL_CTL_MOD, fd, &ev))
            err = -errno;
    }
    pthread_mutex_unlock(&loop.lock);
    return err;
}

void host_loop_del_fd(int fd)
{
    struct watch *w;

    pthread_mutex_lock(&loop.lock);
    w = find_watch(fd);
    if (w) {
        if (w->always_ready)
            loop.always_ready -= w->events != 0;
        else
            epoll_ctl(loop.ep, EPOLL_CTL_DEL, fd, NULL);
        w->dead = true;
    }
    pthread_mutex_unlock(&loop.lock);
}

static void free_dead_watches(void)
{
    struct watch **at = &loop.watches, *w;

    pthread_mutex_lock(&loop.lock);
    while ((w = *at) != NULL) {
        if (w->dead) {
            *at = w->next;
            free(w);
        } else {
            at = &w->next;
        }
    }
    pthread_mutex_unlock(&loop.lock);
}

void host_loop_post(void (*fn)(void *opaque), void *opaque)
{
    struct post *p;

    if (loop_ready())
        return;
    p = calloc(1, sizeof(*p));
    if (!p)
        return;
    p->fn = fn;
    p->opaque = opaque;
    pthread_mutex_lock(&loop.lock);
    *loop.last = p;
    loop.last = &p->next;
    pthread_mutex_unlock(&loop.lock);
    wake_loop();
}

static void run_posts(void)
{
    struct post *p;

    pthread_mutex_lock(&loop.lock);
    p = loop.first;
    loop.first = NULL;
    loop.last = &loop.first;
    pthread_mutex_unlock(&loop.lock);
    while (p) {
        struct post *next = p->next;

        p->fn(p->opaque);
        free(p);
        p = next;
    }
}

void host_bh_init(struct host_bh *bh, void (*fn)(void *opaque), void *opaque)
{
    *bh = (struct host_bh){.fn = fn, .opaque = opaque};
}

void host_bh_schedule(struct host_bh *bh)
{
    bool first;

    if (__atomic_exchange_n(&bh->scheduled, 1, __ATOMIC_ACQ_REL) || loop_ready())
        return;
    pthread_mutex_lock(&loop.lock);
    first = !loop.bh_first;
    bh->next = NULL;
    *loop.bh_last = bh;
    loop.bh_last = &bh->next;
    loop.nbhs++;
    pthread_mutex_unlock(&loop.lock);
    if (first)
        wake_loop();
}

/* Takes the link at *at off the list; loop.lock held. */
static struct host_bh *unlink_bh(struct host_bh **at)
{
    struct host_bh *bh = *at;

    *at = bh->next;
    if (!bh->next)
        loop.bh_last = at;
    loop.nbhs--;
    __atomic_store_n(&bh->scheduled, 0, __ATOMIC_RELEASE);
    return bh;
}

void host_bh_cancel(struct host_bh *bh)
{
    pthread_mutex_lock(&loop.lock);
    for (struct host_bh **at = &loop.bh_first; *at; at = &(*at)->next)
        if (*at == bh) {
            unlink_bh(at);
            break;
        }
    pthread_mutex_unlock(&loop.lock);
}

/* Those that were waiting when it began: one that schedules itself does not keep the loop here. */
static void run_bhs(void)
{
    unsigned n;

    pthread_mutex_lock(&loop.lock);
    n = loop.nbhs;
    while (n-- && loop.bh_first && !loop.at_once) {
        struct host_bh *bh = unlink_bh(&loop.bh_first);

        pthread_mutex_unlock(&loop.lock);
        bh->fn(bh->opaque);
        pthread_mutex_lock(&loop.lock);
    }
    n = loop.nbhs;
    pthread_mutex_unlock(&loop.lock);
    if (n)
        wake_loop();
}

void host_loop_timer(u64 monotonic_ns, void (*fn)(void *opaque), void *opaque)
{
    struct itimerspec its = {0};

    if (loop_ready())
        return;
    pthread_mutex_lock(&loop.lock);
    loop.timer_fn = fn;
    loop.timer_opaque = opaque;
    if (loop.deadline != monotonic_ns) {
        loop.deadline = monotonic_ns;
        if (monotonic_ns != UINT64_MAX) {
            /* Zero would disarm: the first nanosecond since boot is as far in the past. */
            u64 at = monotonic_ns ? monotonic_ns : 1;

            its.it_value.tv_sec = (time_t)(at / NS_PER_S);
            its.it_value.tv_nsec = (long)(at % NS_PER_S);
        }
        timerfd_settime(loop.timer, TFD_TIMER_ABSTIME, &its, NULL);
    }
    pthread_mutex_unlock(&loop.lock);
}

static void run_timer(void)
{
    void (*fn)(void *) = NULL;
    void *opaque = NULL;
    u64 expirations;

    pthread_mutex_lock(&loop.lock);
    /* Nothing to read: somebody moved the deadline after the timer had fired. */
    if (read(loop.timer, &expirations, sizeof(expirations)) == sizeof(expirations)) {
        fn = loop.timer_fn;
        opaque = loop.timer_opaque;
        loop.deadline = UINT64_MAX;
    }
    pthread_mutex_unlock(&loop.lock);
    if (fn)
        fn(opaque);
}

static void run_always_ready(void)
{
    for (struct watch *w = loop.watches; w && !loop.at_once; w = w->next)
        if (w->always_ready && !w->dead && w->events)
            w->fn(w->opaque, w->events);
}

int host_loop_run(void)
{
    struct epoll_event ev[EVENTS_AT_ONCE];
    int err = loop_ready();

    if (err)
        return err;
    loop.thread = pthread_self();
    loop.at_once = false;
    while (!__atomic_load_n(&loop.stop, __ATOMIC_ACQUIRE)) {
        int n = epoll_wait(loop.ep, ev, EVENTS_AT_ONCE, loop.always_ready ? 0 : -1);

        if (n < 0 && errno != EINTR)
            return -errno;
        for (int i = 0; i < n && !loop.at_once; i++) {
            if (ev[i].data.ptr == &loop.wake) {
                u64 count;

                if (read(loop.wake, &count, sizeof(count)) < 0 && errno != EAGAIN)
                    return -errno;
                run_posts();
                run_bhs();
            } else if (ev[i].data.ptr == &loop.timer) {
                run_timer();
            } else {
                struct watch *w = ev[i].data.ptr;

                if (!w->dead)
                    w->fn(w->opaque, ev[i].events);
            }
        }
        run_always_ready();
        free_dead_watches();
    }
    run_posts();
    __atomic_store_n(&loop.stop, false, __ATOMIC_RELEASE);
    return 0;
}

void host_loop_stop(void)
{
    if (pthread_equal(pthread_self(), loop.thread))
        loop.at_once = true;
    __atomic_store_n(&loop.stop, true, __ATOMIC_RELEASE);
    if (!loop_ready())
        wake_loop();
}
