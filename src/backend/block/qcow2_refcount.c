/* SPDX-License-Identifier: Apache-2.0 */
/* Reference counts of host clusters, and finding free ones. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/block/qcow2.h"

/* Host offsets in tables have 56 bits. */
#define CLUSTER_LIMIT(q) (BIT64(56) >> (q)->cluster_bits)

static u64 refblock_entries(const struct qcow2 *q)
{
    return BIT64(q->refblock_bits);
}

/* Entries narrower than a byte: the first one is in the least significant bits. */
static u64 entry_get(const struct qcow2 *q, const u8 *block, u64 i)
{
    unsigned order = q->refcount_order, per_byte_bits = 3 - order;

    switch (order) {
    case 3:
        return block[i];
    case 4:
        return be16_at(block + 2 * i);
    case 5:
        return be32_at(block + 4 * i);
    case 6:
        return be64_at(block + 8 * i);
    default:
        return block[i >> per_byte_bits] >> ((i & (BIT32(per_byte_bits) - 1)) << order) &
               (BIT32(1u << order) - 1);
    }
}

void qcow2_refblock_set(const struct qcow2 *q, u8 *block, u64 i, u64 v)
{
    unsigned order = q->refcount_order, per_byte_bits = 3 - order, shift;
    u32 mask;

    switch (order) {
    case 3:
        block[i] = (u8)v;
        return;
    case 4:
        put_be16(block + 2 * i, (u16)v);
        return;
    case 5:
        put_be32(block + 4 * i, (u32)v);
        return;
    case 6:
        put_be64(block + 8 * i, v);
        return;
    default:
        shift = (unsigned)((i & (BIT32(per_byte_bits) - 1)) << order);
        mask = (BIT32(1u << order) - 1) << shift;
        block[i >> per_byte_bits] = (u8)((block[i >> per_byte_bits] & ~mask) | (u32)v << shift);
    }
}

static void set_count(struct qcow2 *q, struct qtable *t, u64 i, u64 v)
{
    qcow2_refblock_set(q, t->data, i, v);
    qcache_mark(q, &q->refblock_cache, t, (i << q->refcount_order) >> 3,
                q->refcount_order > 3 ? BIT64(q->refcount_order - 3) : 1);
}

int qcow2_refcount(struct qcow2 *q, u64 cluster, u64 *count)
{
    u64 block = cluster >> q->refblock_bits;
    struct qtable *t;
    int r;

    *count = 0;
    if (block >= q->reftable.n || !q->reftable.e[block])
        return 0;
    r = qcache_get(q, &q->refblock_cache, q->reftable.e[block], &t);
    if (!r)
        *count = entry_get(q, t->data, cluster & (refblock_entries(q) - 1));
    return r;
}

/* A cluster the refcounts say is free. */
static int check_free(struct qcow2 *q, u64 cluster)
{
    if (qset_has(&q->meta, cluster))
        return qcow2_corrupt(q, "cluster %llu holds metadata and has refcount 0",
                             (unsigned long long)cluster);
    if (cluster >= CLUSTER_LIMIT(q))
        return -ENOSPC;
    return !q->f.device || (cluster + 1) << q->cluster_bits <= q->f.size ? 0 : -ENOSPC;
}

/* What is allocated up to `end` will have been written. */
static void used_up_to(struct qcow2 *q, u64 end)
{
    if (q->fresh_from < end)
        q->fresh_from = end;
}

/*
 * The refcount block for clusters from block << refblock_bits on. It is put into the first of them:
 * as there is no block, all of them are free, and it counts itself.
 */
static int new_refblock(struct qcow2 *q, u64 block)
{
    u64 cluster = block << q->refblock_bits;
    struct qtable *t;
    int r = check_free(q, cluster);

    if (!r)
        r = qset_add(&q->meta, cluster);
    if (r)
        return r;
    r = qcache_new(q, &q->refblock_cache, cluster << q->cluster_bits, &t);
    if (r) {
        qset_remove(&q->meta, cluster);
        return r;
    }
    set_count(q, t, 0, 1);
    qarray_set(&q->reftable, (u32)block, cluster << q->cluster_bits);
    used_up_to(q, cluster + 1);
    return 0;
}

int qcow2_alloc(struct qcow2 *q, u64 want, u64 *first, u64 *got)
{
    u64 at = q->free_hint, entries = refblock_entries(q);

    for (;;) {
        u64 block = at >> q->refblock_bits, i = at & (entries - 1), n = 0;
        struct qtable *t;
        int r;

        if (block >= q->reftable.n) {
            q->free_hint = at;
            return -EAGAIN;
        }
        if (!q->reftable.e[block]) {
            r = new_refblock(q, block);
            if (r)
                return r;
        }
        r = qcache_get(q, &q->refblock_cache, q->reftable.e[block], &t);
        if (r)
            return r;
        while (i < entries && entry_get(q, t->data, i))
            i++;
        at = (block << q->refblock_bits) + i;
        if (i == entries)
            continue;
        for (; n < want && i + n < entries && !entry_get(q, t->data, i + n); n++) {
            r = check_free(q, at + n);
            if (r && (!n || r != -ENOSPC))
                return r;
            if (r)
                break;
        }
        for (u64 k = 0; k < n; k++)
            set_count(q, t, i + k, 1);
        used_up_to(q, at + n);
        q->free_hint = at + n;
        *first = at;
        *got = n;
        return 0;
    }
}

/* Lowers the counts by one. */
static int lower(struct qcow2 *q, u64 first, u64 n)
{
    for (u64 c = first; c < first + n; c++) {
        u64 block = c >> q->refblock_bits, i = c & (refblock_entries(q) - 1), count;
        struct qtable *t;
        int r;

        if (block >= q->reftable.n || !q->reftable.e[block])
            return qcow2_corrupt(q, "cluster %llu is used and has refcount 0",
                                 (unsigned long long)c);
        r = qcache_get(q, &q->refblock_cache, q->reftable.e[block], &t);
        if (r)
            return r;
        count = entry_get(q, t->data, i);
        if (!count)
            return qcow2_corrupt(q, "cluster %llu is used and has refcount 0",
                                 (unsigned long long)c);
        set_count(q, t, i, count - 1);
        if (count > 1)
            continue;
        /* It may have been an L2 table. */
        qcache_drop(&q->l2_cache, c << q->cluster_bits);
        if (c < q->free_hint)
            q->free_hint = c;
    }
    return 0;
}

void qcow2_unalloc(struct qcow2 *q, u64 first, u64 n)
{
    lower(q, first, n); /* on an error they stay allocated: a leak */
}

int qcow2_release(struct qcow2 *q, u64 first, u64 n)
{
    return lower(q, first, n);
}

/* --- a larger refcount table
 * -----------------------------------------------------------------------
 */

/*
 * Called with both locks. The new table goes behind everything the old one covers, with the blocks
 * that count it; all of it is written and synced before the header names it. The old table's
 * clusters are freed as any other ones are.
 */
static int grow(struct qcow2 *q)
{
    u64 entries = refblock_entries(q), base = (u64)q->reftable.n << q->refblock_bits;
    u64 per_cluster = q->cluster_size / 8, want, size, blocks = 1;
    u64 old_off = q->reftable.off, old_n = q->reftable.n / per_cluster;
    struct qarray bigger;
    struct qtable *t;
    u8 *raw, header[12];
    bool named = false;
    int r;

    want = q->reftable.n + q->reftable.n / 2 + 64; /* entries */
    size = align_up(want, per_cluster) / per_cluster;
    while (blocks * entries < blocks + size)
        blocks++;
    if (q->reftable.n + blocks > size * per_cluster)
        size = align_up(q->reftable.n + blocks, per_cluster) / per_cluster + 1;
    if (size * q->cluster_size > QCOW2_REFTABLE_BYTES_MAX)
        return -ENOSPC;
    while (blocks * entries < blocks + size)
        blocks++;
    if (q->reftable.n + blocks > size * per_cluster)
        return -ENOSPC;
    for (u64 c = base; c < base + blocks + size; c++) {
        r = check_free(q, c);
        if (r)
            return r;
    }

    used_up_to(q, base + blocks + size);
    r = qarray_init(&bigger, (base + blocks) << q->cluster_bits, (u32)(size * per_cluster));
    if (r)
        return r;
    memcpy(bigger.e, q->reftable.e, q->reftable.n * sizeof(u64));
    raw = calloc(size, q->cluster_size);
    r = raw ? 0 : -ENOMEM;
    for (u64 i = 0; i < blocks && !r; i++) {
        r = qcache_new(q, &q->refblock_cache, (base + i) << q->cluster_bits, &t);
        if (r)
            break;
        for (u64 k = 0; k < entries && i * entries + k < blocks + size; k++)
            set_count(q, t, k, 1);
        bigger.e[q->reftable.n + i] = (base + i) << q->cluster_bits;
    }
    /* Blocks may always be written: counts go up before and down after the references do. */
    for (t = q->refblock_cache.dirty; t && !r; t = t->dirty_next)
        r = block_file_write(&q->f, t->data, q->cluster_size, t->off);
    for (u64 i = 0; i < bigger.n && !r; i++)
        put_be64(raw + 8 * i, bigger.e[i]);
    if (!r)
        r = block_file_write(&q->f, raw, size * q->cluster_size, bigger.off);
    free(raw);
    if (!r)
        r = block_file_sync(&q->f);
    if (!r) {
        put_be64(header, bigger.off);
        put_be32(header + 8, (u32)size);
        r = block_file_write(&q->f, header, sizeof(header), QH_REFTABLE_OFFSET);
        named = true;
    }
    if (!r)
        r = block_file_sync(&q->f);
    if (r) {
        /* The blocks in the cache are nobody's: when they are written, it is behind all that is
         * used. A header that may name the new table, or not, is the end of writing. */
        qarray_free(&bigger);
        q->corrupt |= named;
        return r;
    }
    qarray_free(&q->reftable);
    q->reftable = bigger;
    for (u64 i = 0; i < blocks + size; i++)
        if (qset_add(&q->meta, base + i) == -ENOMEM)
            q->corrupt = true; /* unguarded metadata: no more writes */
    for (u64 i = 0; i < old_n; i++)
        qset_remove(&q->meta, (old_off >> q->cluster_bits) + i);
    /* Else they leak. */
    qranges_add(&q->frees, old_off >> q->cluster_bits, old_n);
    return 0;
}

int qcow2_grow_reftable(struct qcow2 *q)
{
    int r = 0;

    pthread_mutex_lock(&q->flush_lock);
    pthread_mutex_lock(&q->lock);
    /* Others may have been here meanwhile, or clusters were freed. */
    if (q->free_hint >> q->refblock_bits >= q->reftable.n)
        r = q->corrupt ? -EIO : grow(q);
    pthread_mutex_unlock(&q->lock);
    pthread_mutex_unlock(&q->flush_lock);
    return r;
}
