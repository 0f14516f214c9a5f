/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that wait for kicks. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "core/host.h"

struct host_workers {
    pthread_mutex_t lock;
    pthread_cond_t kicked;
    bool pending, stop;
    unsigned idle, n;
    void (*fn)(void *opaque);
    void *opaque;
    struct host_thread *thread[];
};

static void work(void *opaque)
{
    struct host_workers *w = opaque;

    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (!w->pending && !w->stop) {
            w->idle++;
            pthread_cond_wait(&w->kicked, &w->lock);
            w->idle--;
        }
        if (w->stop)
            break;
        w->pending = false;
        pthread_mutex_unlock(&w->lock);
        w->fn(w->opaque);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
}

int host_workers_create(struct host_workers **out, const char *name, unsigned threads,
                        void (*fn)(void *opaque), void *opaque)
{
    struct host_workers *w = calloc(1, sizeof(*w) + threads * sizeof(w->thread[0]));
    int err = 0;

    if (!w)
        return -ENOMEM;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->kicked, NULL);
    w->fn = fn;
    w->opaque = opaque;
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
    bool wake;

    pthread_mutex_lock(&w->lock);
    wake = !w->pending && w->idle;
    w->pending = true;
    pthread_mutex_unlock(&w->lock);
    if (wake)
        pthread_cond_signal(&w->kicked);
}

void host_workers_destroy(struct host_workers *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_mutex_unlock(&w->lock);
    pthread_cond_broadcast(&w->kicked);
    for (unsigned i = 0; i < w->n; i++)
        host_thread_join(w->thread[i]);
    pthread_cond_destroy(&w->kicked);
    pthread_mutex_destroy(&w->lock);
    free(w);
}
