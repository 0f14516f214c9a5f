/* SPDX-License-Identifier: Apache-2.0 */
/* From guest clusters to host clusters: L1 and L2 tables. */
#include <errno.h>
#include <string.h>

#include "backend/block/qcow2.h"

static unsigned entry_size(const struct qcow2 *q)
{
    return q->extended_l2 ? 16 : 8;
}

static int bad_entry(struct qcow2 *q, const struct qtable *t, u64 i, u64 v)
{
    return qcow2_corrupt(q, "entry %llu of the L2 table at 0x%llx is 0x%llx", (unsigned long long)i,
                         (unsigned long long)t->off, (unsigned long long)v);
}

/* "Compressed Clusters Descriptor" */
static bool decode_compressed(struct qcow2 *q, u64 v, struct ql2 *e)
{
    unsigned x = 62 - (q->cluster_bits - 8);
    u64 sectors = (v & MASK64(61, x)) >> x;

    e->compressed = true;
    e->host = v & MASK64(x - 1, 0);
    e->csize = (u32)((sectors + 1) * 512 - (e->host & 511));
    if (!e->host || e->host >= q->end || e->host >= BIT64(56))
        return false;
    for (u64 c = e->host >> q->cluster_bits; c <= (e->host + e->csize - 1) >> q->cluster_bits; c++)
        if (qset_has(&q->meta, c))
            return false;
    return true;
}

int ql2_decode(struct qcow2 *q, const struct qtable *t, u64 i, struct ql2 *e)
{
    const u8 *p = t->data + i * entry_size(q);
    u64 v = be64_at(p), bitmap;

    *e = (struct ql2){.copied = v & QE_COPIED};
    if (v & QL2_COMPRESSED)
        return !e->copied && decode_compressed(q, v, e) ? 0 : bad_entry(q, t, i, v);
    e->host = v & QE_OFFSET;
    if (q->extended_l2) {
        bitmap = be64_at(p + 8);
        e->alloc = (u32)bitmap;
        e->zero = (u32)(bitmap >> 32);
    } else {
        e->zero = v & QL2_ZERO;
        e->alloc = e->host && !e->zero;
    }
    /* Version 2 knows no zero clusters, extended entries have bits of their own for them. */
    if (v & QL2_RESERVED || (v & QL2_ZERO && (q->extended_l2 || q->version < 3)) ||
        (e->alloc & e->zero) || (!e->host && (e->alloc || e->copied)))
        return bad_entry(q, t, i, v);
    if (e->host & (q->cluster_size - 1) || e->host >= q->end ||
        (e->host && qset_has(&q->meta, e->host >> q->cluster_bits)))
        return bad_entry(q, t, i, v);
    return 0;
}

void ql2_encode(struct qcow2 *q, struct qtable *t, u64 i, const struct ql2 *e)
{
    u8 *p = t->data + i * entry_size(q);
    u64 v = e->host | (e->copied ? QE_COPIED : 0);

    if (q->extended_l2)
        put_be64(p + 8, (u64)e->zero << 32 | e->alloc);
    else if (e->zero)
        v |= QL2_ZERO;
    put_be64(p, v);
    qcache_mark(q, &q->l2_cache, t, i * entry_size(q), entry_size(q));
}

int qcow2_l2(struct qcow2 *q, u64 off, struct qtable **t)
{
    u64 e = q->l1.e[off >> (q->cluster_bits + q->l2_bits)] & QE_OFFSET;

    *t = NULL;
    return e ? qcache_get(q, &q->l2_cache, e, t) : 0;
}

int qcow2_l2_for_write(struct qcow2 *q, u64 off, struct qtable **t)
{
    u32 i = (u32)(off >> (q->cluster_bits + q->l2_bits));
    u64 e = q->l1.e[i], cluster, got;
    struct qtable *old = NULL;
    int r;

    if (e & QE_COPIED)
        return qcache_get(q, &q->l2_cache, e & QE_OFFSET, t);
    /* None yet, or one that a snapshot uses too. */
    r = qcow2_alloc(q, 1, &cluster, &got);
    if (r)
        return r;
    if (e & QE_OFFSET)
        r = qcache_get(q, &q->l2_cache, e & QE_OFFSET, &old);
    if (!r)
        r = qset_add(&q->meta, cluster);
    if (!r) {
        r = qcache_new(q, &q->l2_cache, cluster << q->cluster_bits, t);
        if (r)
            qset_remove(&q->meta, cluster);
    }
    if (r) {
        qcow2_unalloc(q, cluster, 1);
        return r;
    }
    if (old) {
        memcpy((*t)->data, old->data, q->cluster_size);
        qset_remove(&q->meta, (e & QE_OFFSET) >> q->cluster_bits);
        qcow2_unref(q, (e & QE_OFFSET) >> q->cluster_bits, 1);
    }
    qarray_set(&q->l1, i, cluster << q->cluster_bits | QE_COPIED);
    return 0;
}

void qcow2_unref(struct qcow2 *q, u64 first, u64 n)
{
    /* What cannot be remembered leaks. */
    qranges_add(&q->frees, first, n);
}

void ql2_unref(struct qcow2 *q, const struct ql2 *e)
{
    u64 first = e->host >> q->cluster_bits;

    if (e->host)
        qcow2_unref(q, first,
                    e->compressed ? ((e->host + e->csize - 1) >> q->cluster_bits) - first + 1 : 1);
}

/* What subcluster s of e is. */
static enum qkind kind_of(const struct ql2 *e, unsigned s)
{
    if (e->compressed)
        return Q_COMPRESSED;
    if (e->alloc & BIT32(s))
        return Q_DATA;
    return e->zero & BIT32(s) ? Q_ZERO : Q_HOLE;
}

int qcow2_map(struct qcow2 *q, u64 off, u64 len, struct qmap *m)
{
    u64 span = BIT64(q->cluster_bits + q->l2_bits), left = span - (off & (span - 1)), i, got;
    unsigned s = (unsigned)((off & (q->cluster_size - 1)) >> q->sub_bits);
    struct qtable *t;
    struct ql2 e;
    int r;

    len = len < left ? len : left;
    *m = (struct qmap){.kind = Q_HOLE, .len = len};
    r = qcow2_l2(q, off, &t);
    if (r || !t)
        return r;
    i = ql2_index(q, off);
    r = ql2_decode(q, t, i, &e);
    if (r)
        return r;
    m->kind = kind_of(&e, s);
    if (m->kind == Q_COMPRESSED) {
        left = q->cluster_size - (off & (q->cluster_size - 1));
        m->host = e.host;
        m->csize = e.csize;
        m->len = len < left ? len : left;
        return 0;
    }
    if (m->kind == Q_DATA)
        m->host = e.host + (off & (q->cluster_size - 1));
    /* As far as the same goes on. */
    got = BIT64(q->sub_bits) - (off & (BIT64(q->sub_bits) - 1));
    while (got < len) {
        if (++s == q->nsub) {
            s = 0;
            i++;
            if (ql2_decode(q, t, i, &e))
                break;
        }
        if (kind_of(&e, s) != m->kind ||
            (m->kind == Q_DATA && e.host + ((u64)s << q->sub_bits) != m->host + got))
            break;
        got += BIT64(q->sub_bits);
    }
    m->len = got < len ? got : len;
    return 0;
}
