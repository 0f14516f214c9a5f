/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/share/handle.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* A number is a slot and how often it was used: an old number is not a new file. */
struct handle_table {
    pthread_mutex_t lock;
    unsigned max, nfree;
    u32 *free; /* slots */
    struct handle slot[];
};

struct handle_table *handles_create(unsigned max)
{
    struct handle_table *t = calloc(1, sizeof(*t) + max * sizeof(t->slot[0]));

    if (!t)
        return NULL;
    t->free = calloc(max, sizeof(*t->free));
    if (!t->free) {
        free(t);
        return NULL;
    }
    t->max = max;
    for (unsigned i = 0; i < max; i++) {
        t->slot[i].fd = -1;
        pthread_mutex_init(&t->slot[i].seek, NULL);
        t->free[t->nfree++] = max - 1 - i;
    }
    pthread_mutex_init(&t->lock, NULL);
    return t;
}

static void close_slot(struct handle_table *t, struct handle *h)
{
    close(h->fd);
    h->fd = -1;
    h->generation++;
    h->closing = false;
    t->free[t->nfree++] = (u32)(h - t->slot);
}

void handles_clear(struct handle_table *t)
{
    pthread_mutex_lock(&t->lock);
    for (unsigned i = 0; i < t->max; i++)
        if (t->slot[i].fd >= 0)
            close_slot(t, &t->slot[i]);
    pthread_mutex_unlock(&t->lock);
}

void handles_destroy(struct handle_table *t)
{
    if (!t)
        return;
    handles_clear(t);
    pthread_mutex_destroy(&t->lock);
    free(t->free);
    free(t);
}

int handle_add(struct handle_table *t, int fd, enum handle_kind kind, u64 *fh)
{
    struct handle *h = NULL;

    pthread_mutex_lock(&t->lock);
    if (t->nfree) {
        u32 i = t->free[--t->nfree];

        h = &t->slot[i];
        h->fd = fd;
        h->kind = kind;
        *fh = (u64)h->generation << 32 | i;
    }
    pthread_mutex_unlock(&t->lock);
    if (h)
        return 0;
    close(fd);
    return -ENFILE;
}

static struct handle *find(struct handle_table *t, u64 fh, enum handle_kind kind)
{
    struct handle *h = (u32)fh < t->max ? &t->slot[(u32)fh] : NULL;

    if (!h || h->fd < 0 || h->closing || h->kind != kind || h->generation != fh >> 32)
        return NULL;
    return h;
}

struct handle *handle_get(struct handle_table *t, u64 fh, enum handle_kind kind)
{
    struct handle *h;

    pthread_mutex_lock(&t->lock);
    h = find(t, fh, kind);
    if (h)
        h->users++;
    pthread_mutex_unlock(&t->lock);
    return h;
}

void handle_put(struct handle_table *t, struct handle *h)
{
    if (!h)
        return;
    pthread_mutex_lock(&t->lock);
    if (!--h->users && h->closing)
        close_slot(t, h);
    pthread_mutex_unlock(&t->lock);
}

void handle_close(struct handle_table *t, u64 fh, enum handle_kind kind)
{
    struct handle *h;

    pthread_mutex_lock(&t->lock);
    h = find(t, fh, kind);
    if (h && h->users)
        h->closing = true;
    else if (h)
        close_slot(t, h);
    pthread_mutex_unlock(&t->lock);
}
