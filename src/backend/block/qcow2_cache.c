/* SPDX-License-Identifier: Apache-2.0 */
/* The containers of the qcow2 code: cached tables, whole tables, sets and lists of clusters. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/block/qcow2.h"
#include "base/check.h"

/* --- cached tables -------------------------------------------------------------------------------
 */

int qcache_init(struct qcow2 *q, struct qcache *c, u64 bytes)
{
    u64 cap = bytes >> q->cluster_bits;

    c->cap = cap < 8 ? 8 : cap > 32768 ? 32768 : (unsigned)cap;
    for (c->bucket_bits = 3; BIT32(c->bucket_bits) < c->cap; c->bucket_bits++)
        ;
    c->bucket = calloc(BIT32(c->bucket_bits), sizeof(*c->bucket));
    return c->bucket ? 0 : -ENOMEM;
}

static unsigned mix(u64 v, unsigned bits)
{
    return (unsigned)(v * 0x9e3779b97f4a7c15ull >> (64 - bits));
}

static struct qtable **bucket_of(struct qcache *c, u64 off)
{
    return &c->bucket[mix(off >> QCOW2_CLUSTER_BITS_MIN, c->bucket_bits)];
}

static void unlink_use(struct qcache *c, struct qtable *t)
{
    *(t->newer ? &t->newer->older : &c->newest) = t->older;
    *(t->older ? &t->older->newer : &c->oldest) = t->newer;
}

static void link_newest(struct qcache *c, struct qtable *t)
{
    t->newer = NULL;
    t->older = c->newest;
    *(t->older ? &t->older->newer : &c->oldest) = t;
    c->newest = t;
}

static void unhash(struct qcache *c, struct qtable *t)
{
    struct qtable **p = bucket_of(c, t->off);

    while (*p != t)
        p = &(*p)->hash_next;
    *p = t->hash_next;
}

static struct qtable *find(struct qcache *c, u64 off)
{
    struct qtable *t = *bucket_of(c, off);

    while (t && t->off != off)
        t = t->hash_next;
    if (t && t != c->newest) {
        unlink_use(c, t);
        link_newest(c, t);
    }
    return t;
}

static void destroy(struct qcache *c, struct qtable *t)
{
    CHECK(!t->dirty && !t->writing);
    unhash(c, t);
    unlink_use(c, t);
    c->n--;
    free(t->data);
    free(t);
}

/* A table without contents for off. When the cache is full, the clean one not used longest goes. */
static struct qtable *make_room(struct qcow2 *q, struct qcache *c, u64 off)
{
    struct qtable *t = NULL;

    for (struct qtable *old = c->oldest; old && c->n >= c->cap; old = old->newer)
        if (!old->dirty && !old->writing && old != c->newest) {
            t = old;
            break;
        }
    if (t) {
        unhash(c, t);
        unlink_use(c, t);
    } else {
        t = calloc(1, sizeof(*t));
        if (!t)
            return NULL;
        t->data = malloc(q->cluster_size);
        if (!t->data) {
            free(t);
            return NULL;
        }
        c->n++;
    }
    t->off = off;
    t->hash_next = *bucket_of(c, off);
    *bucket_of(c, off) = t;
    link_newest(c, t);
    return t;
}

int qcache_get(struct qcow2 *q, struct qcache *c, u64 off, struct qtable **out)
{
    struct qtable *t = find(c, off);
    int r;

    if (!t) {
        t = make_room(q, c, off);
        if (!t)
            return -ENOMEM;
        r = block_file_read(&q->f, t->data, q->cluster_size, off);
        if (r) {
            destroy(c, t);
            return r;
        }
    }
    *out = t;
    return 0;
}

int qcache_new(struct qcow2 *q, struct qcache *c, u64 off, struct qtable **out)
{
    struct qtable *t = find(c, off);

    if (!t)
        t = make_room(q, c, off);
    if (!t)
        return -ENOMEM;
    memset(t->data, 0, q->cluster_size);
    qcache_mark(q, c, t, 0, q->cluster_size);
    *out = t;
    return 0;
}

void qcache_drop(struct qcache *c, u64 off)
{
    struct qtable *t = find(c, off);

    if (t && !t->dirty && !t->writing)
        destroy(c, t);
}

void qcache_mark(struct qcow2 *q, struct qcache *c, struct qtable *t, u64 at, u64 len)
{
    if (!t->dirty) {
        t->dirty_next = c->dirty;
        c->dirty = t;
        c->ndirty++;
    }
    t->dirty |= MASK64((unsigned)((at + len - 1) >> q->page_bits), (unsigned)(at >> q->page_bits));
}

void qcache_free(struct qcache *c)
{
    while (c->newest) {
        c->newest->dirty = 0;
        c->newest->writing = 0;
        destroy(c, c->newest);
    }
    free(c->bucket);
}

/* --- whole tables
 * ---------------------------------------------------------------------------------
 */

int qarray_init(struct qarray *a, u64 off, u32 n)
{
    u32 sectors = (n + QARRAY_SECTOR - 1) / QARRAY_SECTOR;

    *a = (struct qarray){.n = n, .off = off};
    a->e = calloc(n ? n : 1, sizeof(*a->e));
    a->state = calloc(sectors ? sectors : 1, 1);
    if (a->e && a->state)
        return 0;
    qarray_free(a);
    return -ENOMEM;
}

void qarray_free(struct qarray *a)
{
    free(a->e);
    free(a->state);
    *a = (struct qarray){0};
}

void qarray_set(struct qarray *a, u32 i, u64 v)
{
    a->e[i] = v;
    a->ndirty += !(a->state[i / QARRAY_SECTOR] & QARRAY_DIRTY);
    a->state[i / QARRAY_SECTOR] |= QARRAY_DIRTY;
}

/* --- sets
 * -----------------------------------------------------------------------------------------
 */

/* Where cluster is, or the free slot where it would be. */
static u32 probe_slot(const struct qset *s, u64 cluster)
{
    u32 i = mix(cluster, s->bits);

    while (s->slot[i] && s->slot[i] != cluster + 1)
        i = (i + 1) & (BIT32(s->bits) - 1);
    return i;
}

bool qset_has(const struct qset *s, u64 cluster)
{
    return s->slot && s->slot[probe_slot(s, cluster)] != 0;
}

static int grow_set(struct qset *s)
{
    struct qset bigger = {.bits = s->slot ? s->bits + 1 : 6, .n = s->n};

    if (bigger.bits > 26)
        return -ENOMEM;
    bigger.slot = calloc(BIT32(bigger.bits), sizeof(*bigger.slot));
    if (!bigger.slot)
        return -ENOMEM;
    for (u32 i = 0; s->slot && i < BIT32(s->bits); i++)
        if (s->slot[i])
            bigger.slot[probe_slot(&bigger, s->slot[i] - 1)] = s->slot[i];
    free(s->slot);
    *s = bigger;
    return 0;
}

int qset_add(struct qset *s, u64 cluster)
{
    u32 i;

    if (!s->slot || s->n >= BIT32(s->bits) / 2) {
        int r = grow_set(s);

        if (r)
            return r;
    }
    i = probe_slot(s, cluster);
    if (s->slot[i])
        return -EEXIST;
    s->slot[i] = cluster + 1;
    s->n++;
    return 0;
}

void qset_remove(struct qset *s, u64 cluster)
{
    u32 mask = BIT32(s->bits) - 1, hole, i;

    if (!qset_has(s, cluster))
        return;
    hole = probe_slot(s, cluster);
    s->slot[hole] = 0;
    s->n--;
    /* What was put behind it because the slot was taken moves up (Knuth 6.4, algorithm R). */
    for (i = (hole + 1) & mask; s->slot[i]; i = (i + 1) & mask) {
        u32 home = mix(s->slot[i] - 1, s->bits);

        if (((i - home) & mask) >= ((i - hole) & mask)) {
            s->slot[hole] = s->slot[i];
            s->slot[i] = 0;
            hole = i;
        }
    }
}

/* --- ranges
 * ---------------------------------------------------------------------------------------
 */

int qranges_add(struct qranges *r, u64 first, u64 n)
{
    struct qrange *last = r->n ? &r->r[r->n - 1] : NULL;

    if (last && last->first + last->n == first) {
        last->n += n;
    } else {
        if (r->n == r->cap) {
            u32 cap = r->cap ? r->cap * 2 : 64;
            struct qrange *more = realloc(r->r, cap * sizeof(*more));

            if (!more)
                return -ENOMEM;
            r->r = more;
            r->cap = cap;
        }
        r->r[r->n++] = (struct qrange){first, n};
    }
    r->clusters += n;
    return 0;
}
