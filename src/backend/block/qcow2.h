/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2 images.
 *
 * Locks. q->lock guards the metadata in memory; it is dropped for all data I/O. q->flush_lock is
 * held by the one thread that writes metadata (a checkpoint, or growing the refcount table) and is
 * taken before q->lock.
 *
 * What is written when. Requests change metadata in memory only. A checkpoint copies all that is
 * dirty and writes it in this order, with a sync before each step that depends on what came before:
 * refcount blocks; refcount table; L2 tables; L1 table. So nothing on disk ever points at something
 * that is not there or not counted. References go away in the other order: a cluster that lost one
 * waits in q->frees until the checkpoint that wrote the loss has been synced, and until every
 * request that may still use the cluster has ended; only then its refcount goes down and it can be
 * allocated again. A crash at any point leaves an image whose only fault is leaked clusters.
 *
 * Requests that allocate write their data first and link it afterwards; meanwhile the guest
 * clusters are in q->allocs, and others that want to change their mapping wait.
 */
#ifndef TRIVISOR_BACKEND_BLOCK_QCOW2_H
#define TRIVISOR_BACKEND_BLOCK_QCOW2_H

#include <pthread.h>

#include "backend/block/image.h"
#include "backend/block/qcow2_format.h"

/* --- cached tables: L2 tables and refcount blocks, a cluster each
 * ---------------------------------
 */

struct qtable {
    u64 off;
    u8 *data;
    u64 dirty;   /* a bit for every page of 1 << q->page_bits bytes */
    u64 writing; /* likewise: in the copy of the running checkpoint, not in the file yet */
    struct qtable *hash_next;
    struct qtable *newer, *older; /* by last use */
    struct qtable *dirty_next;    /* valid while dirty */
    struct qtable *writing_next;  /* valid while writing */
};

struct qcache {
    struct qtable **bucket;
    unsigned bucket_bits;
    unsigned n, cap; /* cap may be exceeded while all are dirty */
    unsigned ndirty;
    struct qtable *newest, *oldest;
    struct qtable *dirty; /* list */
};

/* --- tables that are in memory as a whole: L1 table, refcount table
 * -------------------------------
 */

#define QARRAY_SECTOR 64 /* entries written at a time: 512 bytes */
#define QARRAY_DIRTY 1
#define QARRAY_WRITING 2

struct qarray {
    u64 *e;
    u32 n;
    u64 off;
    u8 *state;  /* a byte for every QARRAY_SECTOR entries */
    u32 ndirty; /* of these */
};

/* --- sets of clusters
 * ------------------------------------------------------------------------------
 */

/* Clusters that hold metadata: guest data is never read from or written to them. */
struct qset {
    u64 *slot; /* cluster + 1, or 0 */
    u32 bits;
    u32 n;
};

struct qrange {
    u64 first, n; /* clusters */
};

struct qranges {
    struct qrange *r;
    u32 n, cap;
    u64 clusters;
};

/* Guest clusters whose mapping a request is about to change. On the request's stack. */
struct qalloc {
    u64 first, n;
    struct qalloc *next;
};

/* Decompressed clusters, for reads smaller than a cluster. */
#define QINFLATED_MAX 16
struct qinflated {
    pthread_mutex_t lock;
    struct {
        u64 off; /* 0: empty */
        u8 *data;
    } slot[QINFLATED_MAX];
    unsigned n, next;
};

struct qcow2 {
    struct blockdev b; /* first */
    struct block_file f;
    struct blockdev *backing; /* or NULL */

    /* geometry; does not change */
    unsigned version;
    unsigned cluster_bits, l2_bits; /* l2_bits: entries in an L2 table */
    unsigned refcount_order, refblock_bits;
    unsigned page_bits; /* of a table: what is written at a time */
    u64 cluster_size;
    unsigned nsub, sub_bits; /* subclusters in a cluster (1 without extended L2), bytes in one */
    bool extended_l2, zstd;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* q->allocs or q->active */
    struct qarray l1, reftable;
    struct qcache l2_cache, refblock_cache;
    struct qset meta;
    u64 end;        /* the file's size as far as it matters: what is behind it was never written */
    u64 fresh_from; /* clusters from here on were never written, so they read as zeroes */
    u64 free_hint;  /* no free cluster before it */
    struct qranges frees;
    struct qalloc *allocs;
    unsigned waiters;
    unsigned epoch;     /* requests count in active[epoch & 1] */
    unsigned active[2]; /* requests that may use clusters they looked up */
    bool corrupt;       /* something impossible was found: no more writes */
    u32 complained;     /* atomic */

    pthread_mutex_t flush_lock;
    u64 started, done; /* number of the last checkpoint that began, that ended well; lock */

    struct qinflated inflated;
};

static inline struct qcow2 *qcow2_of(struct blockdev *b)
{
    return container_of(b, struct qcow2, b);
}

/* Logs what is wrong with the image; one such message an image. */
void qcow2_complain(struct qcow2 *q, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Something in the image cannot be: logs it, stops further writes. Lock held. Always -EIO. */
int qcow2_corrupt(struct qcow2 *q, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* --- qcow2_cache.c: all with q->lock held --------------------------------------------------------
 */

int qcache_init(struct qcow2 *q, struct qcache *c, u64 bytes);
void qcache_free(struct qcache *c);
/* The table at off, read if need be; valid until the next call for the same cache. */
int qcache_get(struct qcow2 *q, struct qcache *c, u64 off, struct qtable **t);
/* A table that begins its life at off: all zeroes, all dirty. */
int qcache_new(struct qcow2 *q, struct qcache *c, u64 off, struct qtable **t);
/* Forgets the table at off, which is not dirty. */
void qcache_drop(struct qcache *c, u64 off);
void qcache_mark(struct qcow2 *q, struct qcache *c, struct qtable *t, u64 at, u64 len);

int qarray_init(struct qarray *a, u64 off, u32 n);
void qarray_free(struct qarray *a);
void qarray_set(struct qarray *a, u32 i, u64 v);

bool qset_has(const struct qset *s, u64 cluster);
/* 0, -EEXIST, -ENOMEM. */
int qset_add(struct qset *s, u64 cluster);
void qset_remove(struct qset *s, u64 cluster);

int qranges_add(struct qranges *r, u64 first, u64 n);

/* --- qcow2_flush.c
 * --------------------------------------------------------------------------------
 */

/* Writes the metadata. sync: and makes it and all data stable. No lock held, not within
 * begin/end. */
int qcow2_checkpoint(struct qcow2 *q, bool sync);
/* Begins a request that may use clusters: takes q->lock; *epoch is for qcow2_end. May checkpoint
 * when memory is full of dirty tables. write: the request changes the disk. */
int qcow2_begin(struct qcow2 *q, bool write, unsigned *epoch);
/* Ends it; q->lock held, and released. */
void qcow2_end(struct qcow2 *q, unsigned epoch);
/* Waits for a change of q->allocs; q->lock held, released meanwhile. */
void qcow2_wait(struct qcow2 *q);
void qcow2_wake(struct qcow2 *q);

/* --- qcow2_refcount.c: with q->lock held
 * ------------------------------------------------------------
 */

/* Up to `want` free clusters in a row get refcount 1; *got of them, from *first on. -ENOSPC;
 * -EAGAIN: the refcount table must be grown first. */
int qcow2_alloc(struct qcow2 *q, u64 want, u64 *first, u64 *got);
/* Takes back what qcow2_alloc gave: nothing ever pointed at it. */
void qcow2_unalloc(struct qcow2 *q, u64 first, u64 n);
int qcow2_refcount(struct qcow2 *q, u64 cluster, u64 *count);
/* The clusters lost a reference that is not on disk any more; at 0 they are free. */
int qcow2_release(struct qcow2 *q, u64 first, u64 n);
/* No lock held, not within begin/end: makes room in the refcount table for clusters behind all it
 * covers. */
int qcow2_grow_reftable(struct qcow2 *q);
/* Entry i of a refcount block becomes v, which fits. */
void qcow2_refblock_set(const struct qcow2 *q, u8 *block, u64 i, u64 v);

/* --- qcow2_repair.c
 * -------------------------------------------------------------------------------
 */

/* Makes the refcounts of an image that is being opened, and the flags that depend on them, what the
 * tables say, and stable. snapshot_l1: the bytes of the file that are snapshots' L1 tables. Else
 * -EINVAL, *why tells why. */
int qcow2_rebuild_refcounts(struct qcow2 *q, const struct qranges *snapshot_l1, const char **why);

/* --- qcow2_l2.c: with q->lock held
 * ------------------------------------------------------------------
 */

/* An L2 entry, decoded. Without extended L2 entries a cluster is one subcluster. */
struct ql2 {
    bool compressed, copied;
    u64 host;        /* offset of the cluster (compressed: of its data), 0: none */
    u32 csize;       /* compressed: bytes that may belong to the data */
    u32 alloc, zero; /* bits of the subclusters that have data at host, that read as zeroes */
};

enum qkind { Q_HOLE, Q_ZERO, Q_DATA, Q_COMPRESSED };

/* What a piece of the disk is. */
struct qmap {
    enum qkind kind; /* Q_HOLE: as the backing file has it */
    u64 host;        /* Q_DATA: of the piece's first byte; Q_COMPRESSED: of the compressed data */
    u64 len;
    u32 csize;
};

static inline u32 ql2_all(const struct qcow2 *q)
{
    return q->nsub == 1 ? 1 : ~(u32)0;
}

/* Entry i of table t; -EIO when it cannot be. */
int ql2_decode(struct qcow2 *q, const struct qtable *t, u64 i, struct ql2 *e);
/* Writes e, which is not compressed, to entry i. */
void ql2_encode(struct qcow2 *q, struct qtable *t, u64 i, const struct ql2 *e);
/* What is at [off, off+len), as far as one piece goes. */
int qcow2_map(struct qcow2 *q, u64 off, u64 len, struct qmap *m);
/* The L2 table for off, or NULL in *t. */
int qcow2_l2(struct qcow2 *q, u64 off, struct qtable **t);
/* The L2 table for off, to be changed: allocated or unshared if need be. -EAGAIN as
 * qcow2_alloc. */
int qcow2_l2_for_write(struct qcow2 *q, u64 off, struct qtable **t);
/* The clusters lost a reference in memory; the next checkpoint that ends well sees to the rest. */
void qcow2_unref(struct qcow2 *q, u64 first, u64 n);
/* Likewise what the entry referred to. */
void ql2_unref(struct qcow2 *q, const struct ql2 *e);
static inline u64 ql2_index(const struct qcow2 *q, u64 off)
{
    return (off >> q->cluster_bits) & (BIT64(q->l2_bits) - 1);
}

/* --- qcow2_compressed.c: no lock held
 * ----------------------------------------------------------------
 */

/* Copies len bytes from byte `at` of the compressed cluster m into the pieces. */
int qcow2_read_compressed(struct qcow2 *q, const struct qmap *m, u64 at, const struct host_iov *iov,
                          unsigned n, size_t skip, size_t len);
void qcow2_inflated_init(struct qcow2 *q);
void qcow2_inflated_free(struct qcow2 *q);

/* --- qcow2_io.c, qcow2_zero.c: struct blockdev_ops
 * --------------------------------------------------
 */

int qcow2_readv(struct blockdev *b, const struct host_iov *iov, unsigned n, u64 off);
int qcow2_writev(struct blockdev *b, const struct host_iov *iov, unsigned n, u64 off);
int qcow2_discard(struct blockdev *b, u64 off, u64 len);
int qcow2_write_zeroes(struct blockdev *b, u64 off, u64 len, bool unmap);

/* Whether a request in flight is changing the mapping of one of n guest clusters from first on;
 * *before: how many of them come before that one. Lock held. */
bool qcow2_busy(const struct qcow2 *q, u64 first, u64 n, u64 *before);
/* Whether [off, off+len) reads as zeroes without looking at data. Lock held. */
bool qcow2_reads_zero(struct qcow2 *q, u64 off, u64 len);

#endif
