/* SPDX-License-Identifier: Apache-2.0 */
/* Writing metadata in an order that a crash cannot hurt (qcow2.h), and who has to wait for it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/block/qcow2.h"

/* Pending frees that make a request checkpoint first. */
#define FREE_RANGES_MAX 16384
#define FREE_CLUSTERS_MAX (1u << 20)

/* A copy of dirty pages, in the order they are written. */
struct page {
    u64 off;
    size_t at, len; /* in bytes */
};

struct stage {
    u8 *bytes;
    size_t nbytes, cap_bytes;
    struct page *page;
    size_t npages, cap_pages;
};

struct checkpoint {
    struct stage refblocks, reftable, l2, l1;
    struct qranges frees;
    struct qtable *refblock_list, *l2_list;
};

static int stage_init(struct stage *s, size_t pages, size_t bytes)
{
    *s = (struct stage){.cap_pages = pages, .cap_bytes = bytes};
    s->page = malloc((pages ? pages : 1) * sizeof(*s->page));
    s->bytes = malloc(bytes ? bytes : 1);
    return s->page && s->bytes ? 0 : -ENOMEM;
}

static u8 *stage_add(struct stage *s, u64 off, size_t len)
{
    u8 *p = s->bytes + s->nbytes;

    if (s->npages && s->page[s->npages - 1].off + s->page[s->npages - 1].len == off)
        s->page[s->npages - 1].len += len;
    else
        s->page[s->npages++] = (struct page){off, s->nbytes, len};
    s->nbytes += len;
    return p;
}

static void stage_free(struct stage *s)
{
    free(s->page);
    free(s->bytes);
}

static int stage_write(struct qcow2 *q, const struct stage *s)
{
    for (size_t i = 0; i < s->npages; i++) {
        int r = block_file_write(&q->f, s->bytes + s->page[i].at, s->page[i].len, s->page[i].off);

        if (r)
            return r;
    }
    return 0;
}

/* --- taking the copy; lock held
 * --------------------------------------------------------------------
 */

static int size_cache(struct qcow2 *q, struct qcache *c, struct stage *s)
{
    size_t pages = 0;

    for (struct qtable *t = c->dirty; t; t = t->dirty_next)
        pages += (size_t)__builtin_popcountll(t->dirty);
    return stage_init(s, pages, pages << q->page_bits);
}

static struct qtable *copy_cache(struct qcow2 *q, struct qcache *c, struct stage *s)
{
    struct qtable *list = c->dirty;

    for (struct qtable *t = list; t; t = t->dirty_next) {
        for (u64 left = t->dirty; left; left &= left - 1) {
            u64 at = (u64)__builtin_ctzll(left) << q->page_bits;

            memcpy(stage_add(s, t->off + at, BIT32(q->page_bits)), t->data + at,
                   BIT32(q->page_bits));
        }
        t->writing = t->dirty;
        t->dirty = 0;
        t->writing_next = t->dirty_next;
    }
    c->dirty = NULL;
    c->ndirty = 0;
    return list;
}

static int size_array(struct qarray *a, struct stage *s)
{
    return stage_init(s, a->ndirty, (size_t)a->ndirty * QARRAY_SECTOR * 8);
}

static void copy_array(struct qarray *a, struct stage *s)
{
    for (u32 k = 0; a->ndirty && k * QARRAY_SECTOR < a->n; k++) {
        u32 first = k * QARRAY_SECTOR;
        u32 n = a->n - first < QARRAY_SECTOR ? a->n - first : QARRAY_SECTOR;
        u8 *p;

        if (!(a->state[k] & QARRAY_DIRTY))
            continue;
        p = stage_add(s, a->off + 8 * (u64)first, 8 * (size_t)n);
        for (u32 i = 0; i < n; i++)
            put_be64(p + 8 * i, a->e[first + i]);
        a->state[k] = QARRAY_WRITING;
        a->ndirty--;
    }
}

/* What is dirty becomes what is being written. -ENOMEM: nothing happened. */
static int take(struct qcow2 *q, struct checkpoint *k)
{
    if (size_cache(q, &q->refblock_cache, &k->refblocks) || size_cache(q, &q->l2_cache, &k->l2) ||
        size_array(&q->reftable, &k->reftable) || size_array(&q->l1, &k->l1))
        return -ENOMEM;
    k->refblock_list = copy_cache(q, &q->refblock_cache, &k->refblocks);
    copy_array(&q->reftable, &k->reftable);
    k->l2_list = copy_cache(q, &q->l2_cache, &k->l2);
    copy_array(&q->l1, &k->l1);
    k->frees = q->frees;
    q->frees = (struct qranges){0};
    return 0;
}

/* --- afterwards; lock held
 * --------------------------------------------------------------------------
 */

/* Not written: dirty as before. */
static void redo_cache(struct qcache *c, struct qtable *list)
{
    for (struct qtable *t = list; t; t = t->writing_next) {
        if (!t->dirty) {
            t->dirty_next = c->dirty;
            c->dirty = t;
            c->ndirty++;
        }
        t->dirty |= t->writing;
    }
}

static void end_cache(struct qtable *list)
{
    for (struct qtable *t = list; t; t = t->writing_next)
        t->writing = 0;
}

static void end_array(struct qarray *a, const struct stage *s, bool redo)
{
    for (u32 k = 0; s->npages && k * QARRAY_SECTOR < a->n; k++) {
        if (redo && a->state[k] == QARRAY_WRITING) {
            a->state[k] |= QARRAY_DIRTY;
            a->ndirty++;
        }
        a->state[k] &= (u8)~QARRAY_WRITING;
    }
}

static void settle(struct qcow2 *q, struct checkpoint *k, bool redo)
{
    if (redo) {
        redo_cache(&q->refblock_cache, k->refblock_list);
        redo_cache(&q->l2_cache, k->l2_list);
        /* What cannot be remembered leaks. */
        for (u32 i = 0; i < k->frees.n; i++)
            qranges_add(&q->frees, k->frees.r[i].first, k->frees.r[i].n);
    }
    end_cache(k->refblock_list);
    end_cache(k->l2_list);
    end_array(&q->reftable, &k->reftable, redo);
    end_array(&q->l1, &k->l1, redo);
}

/* --- the order; no lock held
 * ------------------------------------------------------------------------
 */

static int write_all(struct qcow2 *q, const struct checkpoint *k, bool sync)
{
    int r = stage_write(q, &k->refblocks);

    if (!r && k->reftable.npages) {
        r = block_file_sync(&q->f);
        if (!r)
            r = stage_write(q, &k->reftable);
    }
    /* L2 entries name clusters with data, and both the data and the counts come first. */
    if (!r && (k->l2.npages || k->l1.npages))
        r = block_file_sync(&q->f);
    if (!r)
        r = stage_write(q, &k->l2);
    if (!r && k->l1.npages) {
        r = block_file_sync(&q->f);
        if (!r)
            r = stage_write(q, &k->l1);
    }
    if (!r && (sync || k->frees.n))
        r = block_file_sync(&q->f);
    return r;
}

/* Lock held: of [first, first+n), how many from the front are about to be free (*free), or not. */
static u64 about_to_be(struct qcow2 *q, u64 first, u64 n, bool *free_run)
{
    u64 count, i;

    for (i = 0; i < n; i++) {
        if (qcow2_refcount(q, first + i, &count))
            count = 0;
        if (i && *free_run != (count == 1))
            break;
        *free_run = count == 1;
    }
    return i;
}

/* The loss of these references is on disk. Lock held, dropped while the host gets space back. */
static void release(struct qcow2 *q, const struct qranges *frees)
{
    q->epoch++;
    while (q->active[(q->epoch - 1) & 1])
        qcow2_wait(q);
    for (u32 i = 0; i < frees->n; i++) {
        u64 first = frees->r[i].first, n = frees->r[i].n, part;

        for (; n; first += part, n -= part) {
            bool unused = false;

            /* Nobody else lowers counts, and nobody raises one that is not 0: the answer stays
             * true without the lock. */
            part = about_to_be(q, first, n, &unused);
            if (unused && q->b.can_discard) {
                pthread_mutex_unlock(&q->lock);
                block_file_punch(&q->f, first << q->cluster_bits, part << q->cluster_bits);
                pthread_mutex_lock(&q->lock);
            }
            qcow2_release(q, first, part);
        }
    }
}

int qcow2_checkpoint(struct qcow2 *q, bool sync)
{
    struct checkpoint k = {0};
    u64 ticket, number;
    int r;

    pthread_mutex_lock(&q->lock);
    ticket = q->started;
    pthread_mutex_unlock(&q->lock);
    pthread_mutex_lock(&q->flush_lock);
    pthread_mutex_lock(&q->lock);
    if (q->done > ticket) {
        /* One that began after we came has done our work. */
        pthread_mutex_unlock(&q->lock);
        pthread_mutex_unlock(&q->flush_lock);
        return 0;
    }
    number = ++q->started;
    r = q->corrupt ? -EIO : take(q, &k);
    pthread_mutex_unlock(&q->lock);
    if (!r) {
        r = write_all(q, &k, sync);
        pthread_mutex_lock(&q->lock);
        settle(q, &k, r != 0);
        if (!r && sync)
            q->done = number;
        if (!r && k.frees.n)
            release(q, &k.frees);
        pthread_mutex_unlock(&q->lock);
    }
    pthread_mutex_unlock(&q->flush_lock);
    stage_free(&k.refblocks);
    stage_free(&k.reftable);
    stage_free(&k.l2);
    stage_free(&k.l1);
    free(k.frees.r);
    return r;
}

/* --- requests
 * ---------------------------------------------------------------------------------------
 */

static bool pressed(const struct qcow2 *q)
{
    return q->l2_cache.ndirty > q->l2_cache.cap / 2 ||
           q->refblock_cache.ndirty > q->refblock_cache.cap / 2 || q->frees.n > FREE_RANGES_MAX ||
           q->frees.clusters > FREE_CLUSTERS_MAX;
}

int qcow2_begin(struct qcow2 *q, bool write, unsigned *epoch)
{
    int r;

    pthread_mutex_lock(&q->lock);
    while (write && pressed(q) && !q->corrupt) {
        pthread_mutex_unlock(&q->lock);
        r = qcow2_checkpoint(q, false);
        if (r)
            return r;
        pthread_mutex_lock(&q->lock);
    }
    if (write && q->corrupt) {
        pthread_mutex_unlock(&q->lock);
        return -EIO;
    }
    *epoch = q->epoch & 1;
    q->active[*epoch]++;
    return 0;
}

void qcow2_end(struct qcow2 *q, unsigned epoch)
{
    if (!--q->active[epoch])
        qcow2_wake(q);
    pthread_mutex_unlock(&q->lock);
}

void qcow2_wait(struct qcow2 *q)
{
    q->waiters++;
    pthread_cond_wait(&q->changed, &q->lock);
    q->waiters--;
}

void qcow2_wake(struct qcow2 *q)
{
    if (q->waiters)
        pthread_cond_broadcast(&q->changed);
}
