/* SPDX-License-Identifier: Apache-2.0 */
/* Discarding, and zeroes without data. */
#include <errno.h>
#include <string.h>

#include "backend/block/qcow2.h"

/* Zeroes written as data go out in pieces of this. */
#define ZERO_BYTES 65536

enum change {
    CHANGE_NONE, /* as it should be already */
    CHANGE_MADE,
    CHANGE_WRITE, /* zeroes must be written as data */
};

/* What becomes of the part [off, end) of a cluster, within one subcluster or of whole ones. */
struct zeroing {
    bool discard; /* else: must read as zeroes */
    bool unmap;   /* host clusters may go */
};

static u32 mask_of(const struct qcow2 *q, u64 off, u64 end)
{
    u64 in = off & (q->cluster_size - 1);

    return q->nsub == 1 ? 1
                        : (u32)MASK64((unsigned)((in + (end - off) - 1) >> q->sub_bits),
                                      (unsigned)(in >> q->sub_bits));
}

/* Decides what *e, of which the subclusters in mask are meant, becomes. unref: e's host cluster is
 * not referred to any more. */
static enum change change_entry(const struct qcow2 *q, const struct zeroing *z, struct ql2 *e,
                                u32 mask, bool holes_are_zero, bool *unref)
{
    bool whole = mask == ql2_all(q), ours = e->copied && e->host && !e->compressed;
    bool can_zero = q->version >= 3;

    *unref = false;
    if (z->discard && (!whole || !e->host || (!can_zero && !holes_are_zero)))
        return CHANGE_NONE;
    if (!z->discard && !e->compressed && !(e->alloc & mask) &&
        ((e->zero & mask) == mask || holes_are_zero) && !(whole && z->unmap && e->host))
        return CHANGE_NONE;
    if (whole && e->host && (z->discard || z->unmap || !ours)) {
        if (!can_zero && !holes_are_zero)
            return CHANGE_WRITE;
        *unref = true;
        *e = (struct ql2){.zero = holes_are_zero ? 0 : ql2_all(q)};
        return CHANGE_MADE;
    }
    if (!can_zero || e->compressed || (e->host && !ours))
        return CHANGE_WRITE;
    e->alloc &= ~mask;
    e->zero |= mask;
    return CHANGE_MADE;
}

/*
 * Changes entries from off on, to end at most; the range is of whole subclusters, end within the L2
 * table of off. *next: where it stopped; *write: zeroes must be written to [*next, *write).
 */
static int change_some(struct qcow2 *q, const struct zeroing *z, u64 off, u64 end, u64 *next,
                       u64 *write)
{
    bool holes_are_zero;
    struct qtable *t;
    unsigned epoch;
    int r = qcow2_begin(q, true, &epoch);

    *next = *write = off;
    if (r)
        return r;
    holes_are_zero = !q->backing || off >= q->backing->size;
    r = qcow2_l2(q, off, &t);
    if (!r && !t && (z->discard || holes_are_zero)) {
        *next = *write = end;
        qcow2_end(q, epoch);
        return 0;
    }
    while (!r && *next < end) {
        u64 cluster = *next >> q->cluster_bits, i = ql2_index(q, *next);
        u64 stop = (cluster + 1) << q->cluster_bits;
        struct ql2 e = {0}, old;
        enum change what;
        bool unref;

        stop = stop < end ? stop : end;
        if (qcow2_busy(q, cluster, 1, NULL)) {
            qcow2_wait(q);
            r = qcow2_l2(q, off, &t); /* it may have gone from the cache */
            continue;
        }
        if (t)
            r = ql2_decode(q, t, i, &e);
        if (r)
            break;
        old = e;
        what = change_entry(q, z, &e, mask_of(q, *next, stop), holes_are_zero, &unref);
        if (what == CHANGE_WRITE) {
            *write = stop;
            break;
        }
        if (what == CHANGE_MADE) {
            r = qcow2_l2_for_write(q, *next, &t);
            if (r)
                break;
            ql2_encode(q, t, i, &e);
            if (unref)
                ql2_unref(q, &old);
        }
        *next = *write = stop;
    }
    qcow2_end(q, epoch);
    return r == -EAGAIN ? qcow2_grow_reftable(q) : r;
}

static int write_zero_data(struct qcow2 *q, u64 off, u64 end)
{
    static u8 zeroes[ZERO_BYTES]; /* never written to */
    int r = 0;

    while (off < end && !r) {
        struct host_iov v = {zeroes, end - off < ZERO_BYTES ? end - off : ZERO_BYTES};

        r = qcow2_writev(&q->b, &v, 1, off);
        off += v.len;
    }
    return r;
}

/* [off, end): whole subclusters. */
static int change_all(struct qcow2 *q, const struct zeroing *z, u64 off, u64 end)
{
    u64 span = BIT64(q->cluster_bits + q->l2_bits), write;

    while (off < end) {
        u64 stop = (off | (span - 1)) + 1;
        int r = change_some(q, z, off, stop < end ? stop : end, &off, &write);

        if (!r && write > off) {
            u64 inside = write < q->b.size ? write : q->b.size;

            r = write_zero_data(q, off, inside);
            off = write;
        }
        if (r)
            return r;
    }
    return 0;
}

/* A piece smaller than a subcluster. */
static int zero_piece(struct qcow2 *q, u64 off, u64 end)
{
    unsigned epoch;
    bool zero;
    int r;

    if (off >= end)
        return 0;
    r = qcow2_begin(q, true, &epoch);
    if (r)
        return r;
    zero = !qcow2_busy(q, off >> q->cluster_bits, 1, NULL) && qcow2_reads_zero(q, off, end - off);
    qcow2_end(q, epoch);
    return zero ? 0 : write_zero_data(q, off, end);
}

int qcow2_discard(struct blockdev *b, u64 off, u64 len)
{
    struct qcow2 *q = qcow2_of(b);
    struct zeroing z = {.discard = true, .unmap = true};
    u64 first = align_up(off, q->cluster_size), end = off + len;

    if (!b->can_discard)
        return 0;
    end = end == b->size ? align_up(end, q->cluster_size) : align_down(end, q->cluster_size);
    return first < end ? change_all(q, &z, first, end) : 0;
}

int qcow2_write_zeroes(struct blockdev *b, u64 off, u64 len, bool unmap)
{
    struct qcow2 *q = qcow2_of(b);
    struct zeroing z = {.unmap = unmap && b->can_discard};
    u64 sub = BIT64(q->sub_bits), end = off + len, first = align_up(off, sub);
    u64 last = end == b->size ? align_up(end, sub) : align_down(end, sub);
    int r;

    if (first >= last)
        return zero_piece(q, off, end);
    r = zero_piece(q, off, first);
    if (!r)
        r = change_all(q, &z, first, last);
    if (!r && last < end)
        r = zero_piece(q, last, end);
    return r;
}
