/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rebuilding the refcounts of an image whose last user crashed while it kept them in memory only
 * ("Dirty bit"; QEMU's lazy_refcounts). What counts is what refers: L1 tables of the disk and of
 * the snapshots, the L2 tables they name, and the metadata itself. Blocks of refcounts are written
 * where they are; the image stays marked until all of it is on disk, so a crash meanwhile only
 * makes the next opening do it again.
 *
 * Work and memory are bounded by the file: each L2 table is read once however many refer to it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/block/qcow2.h"

/* Of a file that is repaired: its counters take 128 MiB. */
#define CLUSTERS_MAX (1u << 25)
#define L1_BATCH 512

struct repair {
    struct qcow2 *q;
    u32 *count;     /* references to each cluster */
    u64 n;          /* clusters */
    u32 max;        /* what a refcount can say */
    struct qset l2; /* all L2 tables; subset of q->meta */
    u8 *buf;        /* a cluster */
    const char *why;
};

static int fail(struct repair *r, const char *why)
{
    r->why = why;
    return -EINVAL;
}

static int count_up(struct repair *r, u64 cluster, u32 by)
{
    if (cluster >= r->n)
        return fail(r, "a table refers to what is behind the end of the file");
    if (by > r->max - r->count[cluster])
        return fail(r, "a cluster has more references than its refcount can say");
    r->count[cluster] += by;
    return 0;
}

/* An entry of a snapshot's L1 table. */
static int count_l2(struct repair *r, u64 entry)
{
    struct qcow2 *q = r->q;
    u64 off = entry & QE_OFFSET, cluster = off >> q->cluster_bits;
    int err;

    if (!entry)
        return 0;
    if (entry & QL1_RESERVED || !off || off & (q->cluster_size - 1) || off >= q->end)
        return fail(r, "a snapshot's L1 table is damaged");
    if (!qset_has(&r->l2, cluster)) {
        err = qset_add(&q->meta, cluster);
        if (err == -EEXIST)
            return fail(r, "a snapshot's L2 table overlaps other tables");
        if (err || qset_add(&r->l2, cluster))
            return fail(r, "out of memory");
    }
    return count_up(r, cluster, 1);
}

static int count_snapshot_l1(struct repair *r, u64 off, u64 len)
{
    u8 entries[L1_BATCH * 8];

    while (len) {
        size_t part = len < sizeof(entries) ? (size_t)len : sizeof(entries);

        if (block_file_read(&r->q->f, entries, part, off))
            return fail(r, "a snapshot's L1 table cannot be read");
        for (size_t i = 0; i < part; i += 8) {
            int err = count_l2(r, be64_at(entries + i));

            if (err)
                return err;
        }
        off += part;
        len -= part;
    }
    return 0;
}

/* Every cluster of metadata has one reference; L2 tables have as many as L1 entries name them. */
static int count_tables(struct repair *r, const struct qranges *snapshot_l1)
{
    struct qcow2 *q = r->q;
    int err = 0;

    for (u64 i = 0; i < BIT64(q->meta.bits) && !err; i++)
        if (q->meta.slot[i])
            err = count_up(r, q->meta.slot[i] - 1, 1);
    for (u32 i = 0; i < q->l1.n && !err; i++)
        if (q->l1.e[i] && qset_add(&r->l2, (q->l1.e[i] & QE_OFFSET) >> q->cluster_bits))
            err = fail(r, "out of memory");
    for (u32 i = 0; i < snapshot_l1->n && !err; i++)
        err = count_snapshot_l1(r, snapshot_l1->r[i].first, snapshot_l1->r[i].n);
    return err;
}

static int read_l2(struct repair *r, u64 off, struct qtable *t)
{
    *t = (struct qtable){.off = off, .data = r->buf};
    return block_file_read(&r->q->f, r->buf, r->q->cluster_size, off)
               ? fail(r, "an L2 table cannot be read")
               : 0;
}

/* What the entries of an L2 table refer to. */
static int count_data(struct repair *r, u64 table)
{
    struct qcow2 *q = r->q;
    struct qtable t;
    int err = read_l2(r, table << q->cluster_bits, &t);

    for (u64 i = 0; i < BIT64(q->l2_bits) && !err; i++) {
        struct ql2 e;
        u64 last;

        if (ql2_decode(q, &t, i, &e))
            return fail(r, "an L2 table is damaged");
        last = e.host + (e.compressed ? e.csize - 1 : 0);
        for (u64 c = e.host >> q->cluster_bits; e.host && c <= last >> q->cluster_bits && !err; c++)
            err = count_up(r, c, r->count[table]);
    }
    return err;
}

static int count_all(struct repair *r, const struct qranges *snapshot_l1)
{
    int err = count_tables(r, snapshot_l1);

    for (u64 i = 0; r->l2.slot && i < BIT64(r->l2.bits) && !err; i++)
        if (r->l2.slot[i])
            err = count_data(r, r->l2.slot[i] - 1);
    return err;
}

/* --- writing -------------------------------------------------------------------------------------
 */

/* The refcount block for clusters from `first` on. */
static int write_block(struct repair *r, u64 off, u64 first)
{
    struct qcow2 *q = r->q;

    memset(r->buf, 0, q->cluster_size);
    for (u64 i = 0; i < BIT64(q->refblock_bits) && first + i < r->n; i++)
        qcow2_refblock_set(q, r->buf, i, r->count[first + i]);
    return block_file_write(&q->f, r->buf, q->cluster_size, off) ? fail(r, "it cannot be written")
                                                                 : 0;
}

static int write_counts(struct repair *r)
{
    struct qcow2 *q = r->q;
    int err = 0;

    /* Whoever kept counts in memory has written the table and made the blocks before using what
     * they count. */
    for (u64 c = 0; c < r->n; c++) {
        u64 block = c >> q->refblock_bits;

        if (r->count[c] && (block >= q->reftable.n || !q->reftable.e[block]))
            return fail(r, "the refcount table does not cover all clusters in use");
    }
    for (u32 b = 0; b < q->reftable.n && !err; b++)
        if (q->reftable.e[b])
            err = write_block(r, q->reftable.e[b], (u64)b << q->refblock_bits);
    return err;
}

/* "COPIED": the refcount is exactly one. v, the entry at off, is not compressed and refers to
 * cluster. *changed is set when it was wrong. */
static u64 with_copied(const struct repair *r, u64 v, u64 cluster, bool *changed)
{
    u64 right = (v & ~QE_COPIED) | (r->count[cluster] == 1 ? QE_COPIED : 0);

    *changed |= right != v;
    return right;
}

static int correct_l2(struct repair *r, u64 off)
{
    struct qcow2 *q = r->q;
    u64 entry_size = q->cluster_size >> q->l2_bits;
    bool changed = false;
    struct qtable t;
    int err = read_l2(r, off, &t);

    for (u64 i = 0; i < BIT64(q->l2_bits) && !err; i++) {
        u8 *p = r->buf + i * entry_size;
        struct ql2 e;

        if (ql2_decode(q, &t, i, &e))
            return fail(r, "an L2 table changed");
        if (e.host && !e.compressed)
            put_be64(p, with_copied(r, be64_at(p), e.host >> q->cluster_bits, &changed));
    }
    if (!err && changed && block_file_write(&q->f, r->buf, q->cluster_size, off))
        err = fail(r, "it cannot be written");
    return err;
}

/* The flags in the tables of the disk itself; nobody looks at those of snapshots. */
static int correct_flags(struct repair *r)
{
    struct qcow2 *q = r->q;

    for (u32 i = 0; i < q->l1.n; i++) {
        u64 off = q->l1.e[i] & QE_OFFSET;
        bool changed = false;
        u8 entry[8];
        int err;

        if (!off)
            continue;
        err = correct_l2(r, off);
        if (err)
            return err;
        q->l1.e[i] = with_copied(r, q->l1.e[i], off >> q->cluster_bits, &changed);
        put_be64(entry, q->l1.e[i]);
        if (changed && block_file_write(&q->f, entry, sizeof(entry), q->l1.off + 8 * (u64)i))
            return fail(r, "it cannot be written");
    }
    return 0;
}

int qcow2_rebuild_refcounts(struct qcow2 *q, const struct qranges *snapshot_l1, const char **why)
{
    /* Compressed data may end a cluster behind the end of the file. */
    struct repair r = {.q = q, .n = (q->end >> q->cluster_bits) + 2};
    u32 complained = q->complained;
    int err = 0;

    r.max = q->refcount_order >= 5 ? UINT32_MAX : (u32)MASK64((1u << q->refcount_order) - 1, 0);
    if (r.n > CLUSTERS_MAX) {
        err = fail(&r, "it is too large for that");
    } else {
        r.count = calloc(r.n, sizeof(*r.count));
        r.buf = malloc(q->cluster_size);
        if (!r.count || !r.buf)
            err = fail(&r, "out of memory");
    }
    q->complained = 1; /* whoever opens it says what is wrong */
    if (!err)
        err = count_all(&r, snapshot_l1);
    if (!err)
        err = write_counts(&r);
    if (!err)
        err = correct_flags(&r);
    if (!err && block_file_sync(&q->f))
        err = fail(&r, "it cannot be written");
    q->complained = complained;
    *why = r.why;
    free(r.count);
    free(r.buf);
    free(r.l2.slot);
    return err;
}
