/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/block/qcow2.h"

/* Clusters one step of a write allocates: this many bytes of them, or one. */
#define STEP_BYTES (2u << 20)
/* A write and what is copied around it go out as one, if they are no longer than this. */
#define MERGE_BYTES (256u << 10)
/* Pieces handed to a backing file at a time. */
#define BACKING_BATCH 64

/* The rest of a request: len bytes at off of the disk, skip bytes into the pieces. */
struct part {
    const struct host_iov *iov;
    unsigned n;
    size_t skip;
    u64 off, len;
};

static void advance(struct part *p, u64 n)
{
    p->skip += n;
    p->off += n;
    p->len -= n;
}

/* --- reading
 * --------------------------------------------------------------------------------------
 */

static int read_backing(struct qcow2 *q, struct part p, u64 len)
{
    struct host_iov v[BACKING_BATCH];

    p.len = len;
    if (p.off + p.len > q->backing->size) {
        u64 inside = p.off < q->backing->size ? q->backing->size - p.off : 0;

        iov_clear(p.iov, p.n, p.skip + inside, p.len - inside);
        p.len = inside;
    }
    while (p.len) {
        size_t total;
        unsigned k = iov_cut(p.iov, p.n, p.skip, p.len, v, BACKING_BATCH, &total);
        int r = q->backing->ops->readv(q->backing, v, k, p.off);

        if (r)
            return r;
        advance(&p, total);
    }
    return 0;
}

/* Within begin and end; lock held, dropped for I/O. */
static int read_part(struct qcow2 *q, struct part p)
{
    while (p.len) {
        struct qmap m;
        int r = qcow2_map(q, p.off, p.len, &m);

        if (r)
            return r;
        pthread_mutex_unlock(&q->lock);
        switch (m.kind) {
        case Q_DATA:
            r = block_file_readv(&q->f, p.iov, p.n, p.skip, m.len, m.host);
            break;
        case Q_COMPRESSED:
            r = qcow2_read_compressed(q, &m, p.off & (q->cluster_size - 1), p.iov, p.n, p.skip,
                                      m.len);
            break;
        case Q_HOLE:
            if (q->backing) {
                r = read_backing(q, p, m.len);
                break;
            }
            iov_clear(p.iov, p.n, p.skip, m.len);
            break;
        case Q_ZERO:
            iov_clear(p.iov, p.n, p.skip, m.len);
            break;
        }
        pthread_mutex_lock(&q->lock);
        if (r)
            return r;
        advance(&p, m.len);
    }
    return 0;
}

int qcow2_readv(struct blockdev *b, const struct host_iov *iov, unsigned n, u64 off)
{
    struct qcow2 *q = qcow2_of(b);
    struct part p = {iov, n, 0, off, iov_total(iov, n)};
    unsigned epoch;
    int r = qcow2_begin(q, false, &epoch);

    if (r)
        return r;
    r = read_part(q, p);
    qcow2_end(q, epoch);
    return r;
}

bool qcow2_reads_zero(struct qcow2 *q, u64 off, u64 len)
{
    while (len) {
        struct qmap m;

        if (qcow2_map(q, off, len, &m))
            return false;
        if (m.kind != Q_ZERO && (m.kind != Q_HOLE || (q->backing && off < q->backing->size)))
            return false;
        off += m.len;
        len -= m.len;
    }
    return true;
}

/* --- writing
 * ---------------------------------------------------------------------------------------
 */

bool qcow2_busy(const struct qcow2 *q, u64 first, u64 n, u64 *before)
{
    bool busy = false;

    for (const struct qalloc *a = q->allocs; a; a = a->next)
        if (a->first < first + n && first < a->first + a->n) {
            n = a->first > first ? a->first - first : 0;
            busy = true;
            if (!n)
                break;
        }
    if (before)
        *before = n;
    return busy;
}

/* A step of a write. */
struct step {
    u64 off, len; /* of the disk */
    u64 host;     /* where byte off goes */
    bool in_place;
    /* else: */
    struct qalloc alloc; /* guest clusters whose entries change */
    u64 first;           /* the host cluster of the first one */
    bool taken;          /* the host clusters were allocated for this */
    bool fresh;          /* and read as zeroes */
    u64 from, to;        /* of the disk: what must be written; [from,off) and the end are copied */
};

static u32 sub_bits_of(const struct qcow2 *q, u64 cluster, u64 from, u64 to)
{
    u64 base = cluster << q->cluster_bits;
    u64 lo = from > base ? from - base : 0;
    u64 hi = to - base < q->cluster_size ? to - base : q->cluster_size;

    if (q->nsub == 1)
        return 1;
    lo >>= q->sub_bits;
    hi = (hi + BIT64(q->sub_bits) - 1) >> q->sub_bits;
    return (u32)MASK64((unsigned)hi - 1, (unsigned)lo);
}

/* The cluster is ours alone and can be written to where it is. */
static bool is_ours(const struct ql2 *e)
{
    return e->copied && e->host && !e->compressed;
}

/* Writes to [off, end) of the cluster need no change of its entry. */
static bool needs_nothing(const struct qcow2 *q, const struct ql2 *e, u64 cluster, u64 off, u64 end)
{
    u32 bits = sub_bits_of(q, cluster, off, end);

    return is_ours(e) && (e->alloc & bits) == bits;
}

/* What the old cluster has must move with the write: it cannot be the one written to. */
static bool carries(const struct ql2 *e)
{
    return !is_ours(e) && (e->compressed || e->alloc);
}

static u64 smaller(u64 a, u64 b)
{
    return a < b ? a : b;
}

/* 1: s writes in place; 0: it cannot; -errno. */
static int plan_in_place(struct qcow2 *q, const struct part *p, struct step *s)
{
    u64 cluster = p->off >> q->cluster_bits, i = ql2_index(q, p->off), end = p->off + p->len;
    u64 entries = BIT64(q->l2_bits), at;
    struct qtable *t;
    struct ql2 e;
    int r = qcow2_l2(q, p->off, &t);

    if (r || !t)
        return r;
    r = ql2_decode(q, t, i, &e);
    if (r)
        return r;
    if (!needs_nothing(q, &e, cluster, p->off, end))
        return 0;
    s->in_place = true;
    s->off = p->off;
    s->host = e.host + (p->off & (q->cluster_size - 1));
    for (at = (cluster + 1) << q->cluster_bits; at < end && ++i < entries; at += q->cluster_size)
        if (ql2_decode(q, t, i, &e) || e.host != s->host + (at - p->off) ||
            !needs_nothing(q, &e, ++cluster, at, end))
            break;
    s->len = smaller(at, end) - p->off;
    return 1;
}

/* 1: another request must end first; 0: s is ready, its clusters are marked busy; -errno. */
static int plan_alloc(struct qcow2 *q, const struct part *p, struct step *s)
{
    u64 cluster = p->off >> q->cluster_bits, i = ql2_index(q, p->off), end = p->off + p->len;
    u64 last = (end - 1) >> q->cluster_bits, n, max;
    u64 sub = BIT64(q->sub_bits);
    struct qtable *t;
    struct ql2 first, e;
    int r;

    if (qcow2_busy(q, cluster, 1, NULL))
        return 1;
    r = qcow2_l2_for_write(q, p->off, &t);
    if (!r)
        r = ql2_decode(q, t, i, &first);
    if (r)
        return r;
    n = 1;
    e = first;
    if (is_ours(&first)) {
        s->first = first.host >> q->cluster_bits;
        s->taken = s->fresh = false;
    } else {
        u64 fresh_from = q->fresh_from;

        max = smaller(last - cluster + 1, BIT64(q->l2_bits) - i);
        max = smaller(max, STEP_BYTES > q->cluster_size ? STEP_BYTES >> q->cluster_bits : 1);
        qcow2_busy(q, cluster, max, &max);
        while (n < max && !ql2_decode(q, t, i + n, &e) && !is_ours(&e))
            n++;
        r = qcow2_alloc(q, n, &s->first, &n);
        if (r)
            return r;
        s->taken = true;
        s->fresh = s->first >= fresh_from;
        r = ql2_decode(q, t, i + n - 1, &e);
        if (r) {
            qcow2_unalloc(q, s->first, n);
            return r;
        }
    }
    s->in_place = false;
    s->off = p->off;
    s->len = smaller(end, (cluster + n) << q->cluster_bits) - p->off;
    s->host = (s->first << q->cluster_bits) + (p->off & (q->cluster_size - 1));
    s->from = carries(&first) ? cluster << q->cluster_bits : align_down(s->off, sub);
    s->to = carries(&e) ? (cluster + n) << q->cluster_bits : align_up(s->off + s->len, sub);
    /* Subclusters that are there already are written in place, by others too meanwhile. */
    if (!s->taken && needs_nothing(q, &first, cluster, s->off, s->off + 1))
        s->from = s->off;
    if (!s->taken && needs_nothing(q, &first, cluster, s->off + s->len - 1, s->off + s->len))
        s->to = s->off + s->len;
    s->alloc = (struct qalloc){cluster, n, q->allocs};
    q->allocs = &s->alloc;
    return 0;
}

/* --- the parts of a cluster around a write: no lock held, the clusters are busy
 * -------------------- */

/* Reads [off, off+len) as it was; what is behind the end of the disk is zeroes. */
static int read_old(struct qcow2 *q, u64 off, u64 len, u8 *buf)
{
    u64 inside = off < q->b.size ? smaller(len, q->b.size - off) : 0;
    struct host_iov v = {buf, inside};
    struct part p = {&v, 1, 0, off, inside};
    int r;

    memset(buf + inside, 0, len - inside);
    pthread_mutex_lock(&q->lock);
    r = read_part(q, p);
    pthread_mutex_unlock(&q->lock);
    return r;
}

static bool old_is_zero(struct qcow2 *q, u64 off, u64 len)
{
    u64 inside = off < q->b.size ? smaller(len, q->b.size - off) : 0;
    bool zero;

    pthread_mutex_lock(&q->lock);
    zero = qcow2_reads_zero(q, off, inside);
    pthread_mutex_unlock(&q->lock);
    return zero;
}

/* Copies [off, off+len) as it was to the host's byte `to`. */
static int copy_old(struct qcow2 *q, const struct step *s, u64 off, u64 len, u64 to, bool zero)
{
    u8 *buf;
    int r = 0;

    if (!len || (zero && s->fresh))
        return 0;
    if (zero) {
        r = block_file_zero_range(&q->f, to, len);
        return r == -EOPNOTSUPP || r == -EINVAL ? block_file_write_zero_bytes(&q->f, len, to) : r;
    }
    buf = malloc(smaller(len, MERGE_BYTES));
    if (!buf)
        return -ENOMEM;
    while (len && !r) {
        u64 n = smaller(len, MERGE_BYTES);

        r = read_old(q, off, n, buf);
        if (!r)
            r = block_file_write(&q->f, buf, n, to);
        off += n;
        to += n;
        len -= n;
    }
    free(buf);
    return r;
}

static int write_merged(struct qcow2 *q, const struct part *p, const struct step *s)
{
    u64 head = s->off - s->from, tail = s->to - (s->off + s->len);
    u8 *buf = malloc(s->to - s->from);
    int r = buf ? 0 : -ENOMEM;

    if (!r && head)
        r = read_old(q, s->from, head, buf);
    if (!r && tail)
        r = read_old(q, s->off + s->len, tail, buf + head + s->len);
    if (!r) {
        iov_get(p->iov, p->n, p->skip, buf + head, s->len);
        r = block_file_write(&q->f, buf, s->to - s->from, s->host - head);
    }
    free(buf);
    return r;
}

static int write_data(struct qcow2 *q, const struct part *p, const struct step *s)
{
    u64 head, tail, end = s->off + s->len;
    bool zero_head, zero_tail;
    int r;

    if (s->in_place || (s->from == s->off && s->to == end))
        return block_file_writev(&q->f, p->iov, p->n, p->skip, s->len, s->host);
    head = s->off - s->from;
    tail = s->to - end;
    zero_head = !head || old_is_zero(q, s->from, head);
    zero_tail = !tail || old_is_zero(q, end, tail);
    if (!(zero_head && zero_tail && s->fresh) && s->to - s->from <= MERGE_BYTES)
        return write_merged(q, p, s);
    r = copy_old(q, s, s->from, head, s->host - head, zero_head);
    if (!r)
        r = block_file_writev(&q->f, p->iov, p->n, p->skip, s->len, s->host);
    if (!r)
        r = copy_old(q, s, end, tail, s->host + s->len, zero_tail);
    return r;
}

/* The data is there: the entries may name it. Lock held. On failure clusters leak. */
static int link_clusters(struct qcow2 *q, const struct step *s)
{
    u64 i = ql2_index(q, s->off);
    struct qtable *t;
    int r = qcow2_l2_for_write(q, s->off, &t); /* it is ours since plan_alloc */

    if (r)
        return r;
    /* New clusters may be behind what was the end. */
    if (q->end < (s->first + s->alloc.n) << q->cluster_bits)
        q->end = (s->first + s->alloc.n) << q->cluster_bits;
    for (u64 k = 0; k < s->alloc.n; k++) {
        u32 bits = sub_bits_of(q, s->alloc.first + k, s->from, s->to);
        struct ql2 old, e;

        r = ql2_decode(q, t, i + k, &old);
        if (r)
            return r;
        e = old;
        if (s->taken) {
            e.host = (s->first + k) << q->cluster_bits;
            e.alloc = 0;
            ql2_unref(q, &old);
        }
        if (e.compressed)
            e.zero = 0;
        e.compressed = false;
        e.copied = true;
        e.alloc |= bits;
        e.zero &= ~bits;
        ql2_encode(q, t, i + k, &e);
    }
    return 0;
}

static void end_alloc(struct qcow2 *q, const struct step *s)
{
    struct qalloc **a = &q->allocs;

    while (*a != &s->alloc)
        a = &(*a)->next;
    *a = s->alloc.next;
    qcow2_wake(q);
}

static int write_step(struct qcow2 *q, const struct part *p, u64 *done)
{
    struct step s;
    unsigned epoch;
    int r;

    for (;;) {
        r = qcow2_begin(q, true, &epoch);
        if (r)
            return r;
        do {
            r = plan_in_place(q, p, &s);
            if (r == 0) {
                r = plan_alloc(q, p, &s);
                if (r == 1)
                    qcow2_wait(q);
            } else if (r == 1) {
                r = 0;
            }
        } while (r == 1);
        if (!r)
            break;
        qcow2_end(q, epoch);
        if (r == -EAGAIN)
            r = qcow2_grow_reftable(q);
        if (r)
            return r;
    }
    pthread_mutex_unlock(&q->lock);
    r = write_data(q, p, &s);
    pthread_mutex_lock(&q->lock);
    if (!s.in_place) {
        if (!r)
            r = link_clusters(q, &s);
        else if (s.taken)
            qcow2_unalloc(q, s.first, s.alloc.n);
        end_alloc(q, &s);
    }
    qcow2_end(q, epoch);
    *done = s.len;
    return r;
}

int qcow2_writev(struct blockdev *b, const struct host_iov *iov, unsigned n, u64 off)
{
    struct qcow2 *q = qcow2_of(b);
    struct part p = {iov, n, 0, off, iov_total(iov, n)};

    while (p.len) {
        u64 done;
        int r = write_step(q, &p, &done);

        if (r)
            return r;
        advance(&p, done);
    }
    return 0;
}
