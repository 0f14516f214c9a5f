/* SPDX-License-Identifier: Apache-2.0 */
/* Threads. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/host.h"

/*
 * Far more than our threads need (no frame of ours has 64 KiB, and nothing recurses deeply), and
 * less than a large page: in the library's 8 MiB the kernel finds room for one, and may give 2 MiB
 * to a thread that touched one page.
 */
#define STACK_SIZE (1ul << 20)

struct host_thread {
    pthread_t id;
    char name[16];
    void (*fn)(void *);
    void *arg;
};

static void *start(void *opaque)
{
    struct host_thread *t = opaque;

    pthread_setname_np(pthread_self(), t->name);
    t->fn(t->arg);
    return NULL;
}

int host_thread_create(struct host_thread **out, const char *name, void (*fn)(void *), void *arg)
{
    struct host_thread *t = calloc(1, sizeof(*t));
    pthread_attr_t attr;
    int err;

    if (!t)
        return -ENOMEM;
    strncpy(t->name, name, sizeof(t->name) - 1);
    t->fn = fn;
    t->arg = arg;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_SIZE);
    err = pthread_create(&t->id, &attr, start, t);
    pthread_attr_destroy(&attr);
    if (err) {
        free(t);
        return -err;
    }
    *out = t;
    return 0;
}

void host_thread_join(struct host_thread *t)
{
    pthread_join(t->id, NULL);
    free(t);
}
