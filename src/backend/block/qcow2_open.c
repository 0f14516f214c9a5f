/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a qcow2 image: nothing of it is believed before it was checked here. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/block/qcow2.h"
#include "base/log.h"

#define L2_CACHE_BYTES (32u << 20)
#define REFBLOCK_CACHE_BYTES (8u << 20)
/* Of the header extensions and names in the first cluster. */
#define HEAD_BYTES_MAX (1u << 20)
/* Clusters of metadata that are kept in mind. */
#define META_MAX (1u << 24)

/* Odd, so that no image's part of a stamp is lost. */
#define STAMP_MIX 0x9e3779b97f4a7c15ull

struct opening {
    struct qcow2 *q;
    struct image_how *how;
    char *err;
    size_t err_size;
    u8 *head; /* the beginning of the first cluster */
    size_t head_size, header_length;
    u64 incompatible, autoclear;
    u32 nsnapshots;
    u64 snapshots_offset;
    struct qranges snapshot_l1; /* in bytes */
    enum block_format backing_format;
};

void qcow2_complain(struct qcow2 *q, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    if (__atomic_exchange_n(&q->complained, 1, __ATOMIC_RELAXED))
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    log_error("disk %s: the image is damaged: %s (qemu-img check tells more)", q->f.path, text);
}

int qcow2_corrupt(struct qcow2 *q, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    qcow2_complain(q, "%s", text);
    q->corrupt = true;
    return -EIO;
}

static int refuse(struct opening *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static int refuse(struct opening *o, const char *fmt, ...)
{
    int n = snprintf(o->err, o->err_size, "disk %s: ", o->q->f.path);
    va_list ap;

    va_start(ap, fmt);
    if (n > 0 && (size_t)n < o->err_size)
        vsnprintf(o->err + n, o->err_size - (size_t)n, fmt, ap);
    va_end(ap);
    return -EINVAL;
}

/* --- header
 * ----------------------------------------------------------------------------------------
 */

static int read_head(struct opening *o)
{
    struct qcow2 *q = o->q;
    u8 fixed[QH_V3_LENGTH];
    u64 size;

    if (q->f.size < QH_V2_LENGTH || block_file_read(&q->f, fixed, sizeof(fixed), 0) ||
        be32_at(fixed + QH_MAGIC) != QCOW2_MAGIC)
        return refuse(o, "no qcow2 image");
    q->version = be32_at(fixed + QH_VERSION);
    if (q->version != 2 && q->version != 3)
        return refuse(o, "qcow2 version %u is not built", q->version);
    q->cluster_bits = be32_at(fixed + QH_CLUSTER_BITS);
    if (q->cluster_bits < QCOW2_CLUSTER_BITS_MIN || q->cluster_bits > QCOW2_CLUSTER_BITS_MAX)
        return refuse(o, "clusters of 2^%u bytes: they have 512 bytes to 2 MiB", q->cluster_bits);
    q->cluster_size = BIT64(q->cluster_bits);
    size = q->cluster_size < q->f.size ? q->cluster_size : q->f.size;
    o->head_size = size < HEAD_BYTES_MAX ? size : HEAD_BYTES_MAX;
    if (o->head_size < QH_V3_LENGTH && q->version == 3)
        return refuse(o, "cut off in the header");
    o->head = malloc(o->head_size);
    if (!o->head)
        return refuse(o, "out of memory");
    return block_file_read(&q->f, o->head, o->head_size, 0) ? refuse(o, "cannot be read") : 0;
}

static int check_features(struct opening *o)
{
    struct qcow2 *q = o->q;
    const u8 *h = o->head;
    u8 compression = 0;

    o->header_length = QH_V2_LENGTH;
    q->refcount_order = 4;
    if (q->version >= 3) {
        o->header_length = be32_at(h + QH_HEADER_LENGTH);
        q->refcount_order = be32_at(h + QH_REFCOUNT_ORDER);
        o->incompatible = be64_at(h + QH_INCOMPATIBLE);
        o->autoclear = be64_at(h + QH_AUTOCLEAR);
        if (o->header_length < QH_V3_LENGTH || o->header_length > o->head_size)
            return refuse(o, "a header of %zu bytes", o->header_length);
        if (o->header_length > QH_COMPRESSION)
            compression = h[QH_COMPRESSION];
    }
    if (q->refcount_order > 6)
        return refuse(o, "refcounts of 2^%u bits", q->refcount_order);
    if (be32_at(h + QH_CRYPT))
        return refuse(o, "encrypted images are not built");
    if (o->incompatible & QI_DATA_FILE)
        return refuse(o, "external data files are not built");
    if (o->incompatible & ~QI_KNOWN)
        return refuse(o, "it uses features that are not built (incompatible bits 0x%llx)",
                      (unsigned long long)(o->incompatible & ~QI_KNOWN));
    if (!(o->incompatible & QI_COMPRESSION) != !compression)
        return refuse(o, "compression type %u does not match the feature bits", compression);
    if (compression > 1)
        return refuse(o, "compression type %u is not built", compression);
    q->zstd = compression == 1;
    q->extended_l2 = o->incompatible & QI_EXTENDED_L2;
    if (q->extended_l2 && q->cluster_bits < 14)
        return refuse(o, "extended L2 entries with clusters of less than 16 KiB");
    if (!q->b.readonly && o->incompatible & QI_CORRUPT)
        return refuse(o, "it is marked corrupt: repair it with qemu-img check -r all, or open it "
                         "with ,ro");
    return 0;
}

static void set_geometry(struct qcow2 *q)
{
    unsigned small = q->cluster_bits < 12 ? q->cluster_bits : 12;

    q->nsub = q->extended_l2 ? 32 : 1;
    q->sub_bits = q->cluster_bits - (q->extended_l2 ? 5 : 0);
    q->l2_bits = q->cluster_bits - (q->extended_l2 ? 4 : 3);
    q->refblock_bits = q->cluster_bits + 3 - q->refcount_order;
    /* 64 pages a table at most, and pages of the host's if there may be so many. */
    q->page_bits = q->cluster_bits - 6 > small ? q->cluster_bits - 6 : small;
    q->end = q->f.size;
    q->fresh_from =
        q->f.device ? UINT64_MAX : align_up(q->f.size, q->cluster_size) >> q->cluster_bits;
}

/* --- tables
 * ----------------------------------------------------------------------------------------
 */

static bool aligned(const struct qcow2 *q, u64 off)
{
    return !(off & (q->cluster_size - 1));
}

static bool in_file(const struct qcow2 *q, u64 off, u64 len)
{
    return off <= q->f.size && len <= q->f.size - off;
}

/* The clusters of [off, off+len) hold metadata. */
static int add_meta(struct opening *o, u64 off, u64 len, const char *what)
{
    struct qcow2 *q = o->q;

    for (u64 c = off >> q->cluster_bits; c <= (off + len - 1) >> q->cluster_bits && len; c++) {
        int r = q->meta.n < META_MAX ? qset_add(&q->meta, c) : -ENOMEM;

        if (r == -ENOMEM)
            return refuse(o, "out of memory for its tables");
        if (r && !q->b.readonly)
            return refuse(o, "%s at 0x%llx overlaps other tables (qemu-img check tells more)", what,
                          (unsigned long long)off);
    }
    return 0;
}

static int read_array(struct opening *o, struct qarray *a, u64 off, u64 n, const char *what)
{
    struct qcow2 *q = o->q;

    if (!off || !aligned(q, off) || !in_file(q, off, n * 8))
        return refuse(o, "the %s at 0x%llx is not in the file", what, (unsigned long long)off);
    if (qarray_init(a, off, (u32)n))
        return refuse(o, "out of memory");
    if (block_file_read(&q->f, a->e, n * 8, off))
        return refuse(o, "the %s cannot be read", what);
    for (u64 i = 0; i < n; i++)
        a->e[i] = be64_at((const u8 *)&a->e[i]);
    return add_meta(o, off, n * 8, what);
}

static int load_l1(struct opening *o)
{
    struct qcow2 *q = o->q;
    u64 size = be64_at(o->head + QH_SIZE), off = be64_at(o->head + QH_L1_OFFSET);
    u64 l1_size = be32_at(o->head + QH_L1_SIZE), span = BIT64(q->cluster_bits + q->l2_bits);
    int r;

    if (size % 512 || size > BIT64(62))
        return refuse(o, "a disk of %llu bytes: it is not made of sectors",
                      (unsigned long long)size);
    q->b.size = size;
    if (l1_size > QCOW2_L1_BYTES_MAX / 8 || l1_size * span < size)
        return refuse(o, "an L1 table of %llu entries for a disk of %llu bytes",
                      (unsigned long long)l1_size, (unsigned long long)size);
    if (!l1_size)
        return qarray_init(&q->l1, 0, 0) ? refuse(o, "out of memory") : 0;
    r = read_array(o, &q->l1, off, l1_size, "L1 table");
    if (r)
        return r;
    for (u32 i = 0; i < q->l1.n; i++) {
        u64 e = q->l1.e[i], l2 = e & QE_OFFSET;

        if (e & QL1_RESERVED || !aligned(q, l2) || !in_file(q, l2, l2 ? q->cluster_size : 0) ||
            (e && !l2))
            return refuse(o, "entry %u of the L1 table is 0x%llx (qemu-img check tells more)", i,
                          (unsigned long long)e);
        r = l2 ? add_meta(o, l2, q->cluster_size, "an L2 table") : 0;
        if (r)
            return r;
    }
    return 0;
}

static int load_reftable(struct opening *o)
{
    struct qcow2 *q = o->q;
    u64 off = be64_at(o->head + QH_REFTABLE_OFFSET);
    u64 clusters = be32_at(o->head + QH_REFTABLE_CLUSTERS);
    u64 bytes = clusters << q->cluster_bits;
    int r;

    if (!clusters || bytes > QCOW2_REFTABLE_BYTES_MAX)
        return refuse(o, "a refcount table of %llu clusters", (unsigned long long)clusters);
    r = read_array(o, &q->reftable, off, bytes / 8, "refcount table");
    for (u32 i = 0; i < q->reftable.n && !r; i++) {
        u64 e = q->reftable.e[i];

        if (e & ~QR_OFFSET || !aligned(q, e) || !in_file(q, e, e ? q->cluster_size : 0))
            return refuse(o, "entry %u of the refcount table is 0x%llx (qemu-img check tells more)",
                          i, (unsigned long long)e);
        if (e)
            r = add_meta(o, e, q->cluster_size, "a refcount block");
    }
    return r;
}

/* "Snapshots": where they and their L1 tables are. */
static int load_snapshots(struct opening *o)
{
    struct qcow2 *q = o->q;
    u64 at = o->snapshots_offset;

    if (!o->nsnapshots)
        return 0;
    if (o->nsnapshots > QCOW2_SNAPSHOTS_MAX || !at || !aligned(q, at))
        return refuse(o, "%u snapshots at 0x%llx", o->nsnapshots, (unsigned long long)at);
    for (u32 i = 0; i < o->nsnapshots; i++) {
        u8 e[QS_FIXED_LENGTH];
        u64 l1, bytes;
        u32 extra;
        int r;

        if (!in_file(q, at, sizeof(e)) || block_file_read(&q->f, e, sizeof(e), at))
            return refuse(o, "snapshot %u is not in the file", i);
        l1 = be64_at(e + QS_L1_OFFSET);
        bytes = 8 * (u64)be32_at(e + QS_L1_SIZE);
        extra = be32_at(e + QS_EXTRA_SIZE);
        if (extra > QCOW2_SNAPSHOT_EXTRA_MAX || bytes > QCOW2_L1_BYTES_MAX || !aligned(q, l1) ||
            !in_file(q, l1, bytes))
            return refuse(o, "snapshot %u is damaged (qemu-img check tells more)", i);
        r = add_meta(o, l1, bytes, "a snapshot's L1 table");
        if (r)
            return r;
        if (qranges_add(&o->snapshot_l1, l1, bytes))
            return refuse(o, "out of memory");
        at = align_up(at + sizeof(e) + extra + be16_at(e + QS_ID_SIZE) + be16_at(e + QS_NAME_SIZE),
                      8);
    }
    return add_meta(o, o->snapshots_offset, at - o->snapshots_offset, "the snapshot table");
}

/* --- backing file
 * ----------------------------------------------------------------------------------
 */

/* "Header extensions" */
static int read_extensions(struct opening *o)
{
    size_t at = o->header_length;

    while (at + 8 <= o->head_size) {
        u32 type = be32_at(o->head + at), len = be32_at(o->head + at + 4);
        const char *data = (const char *)o->head + at + 8;

        if (type == QX_END)
            return 0;
        if (len > o->head_size - at - 8)
            return refuse(o, "a header extension of %u bytes", len);
        if (type == QX_BACKING_FORMAT) {
            if (len == 3 && !memcmp(data, "raw", 3))
                o->backing_format = BLOCK_FORMAT_RAW;
            else if (len == 5 && !memcmp(data, "qcow2", 5))
                o->backing_format = BLOCK_FORMAT_QCOW2;
            else
                return refuse(o, "a backing file of format '%.*s' is not built",
                              (int)(len < 32 ? len : 32), data);
        }
        at += 8 + align_up(len, 8);
    }
    return 0;
}

/* The name as the image has it into its place in the file system: beside the image. */
static int backing_path(struct opening *o, const char *name, char *path, size_t size)
{
    const char *image = o->q->f.path, *slash = strrchr(image, '/');
    size_t colon = strcspn(name, ":/");
    int n;

    if (!strncmp(name, "file:", 5)) {
        name += 5;
        colon = strcspn(name, "/");
    }
    for (const char *s = name; *s; s++)
        if (*s > 0 && *s < ' ')
            return refuse(o, "the name of its backing file has control characters");
    if (name[colon] == ':')
        return refuse(o, "backing file '%s' is not a plain file, which is not built", name);
    if (name[0] == '/' || !slash)
        n = snprintf(path, size, "%s", name);
    else
        n = snprintf(path, size, "%.*s/%s", (int)(slash - image), image, name);
    return n < 0 || (size_t)n >= size ? refuse(o, "the name of its backing file is too long") : 0;
}

/* 1: it has one, in path and o->backing_format; 0: it has none; -errno. */
static int find_backing(struct opening *o, char *path, size_t size)
{
    u64 off = be64_at(o->head + QH_BACKING_OFFSET);
    u32 len = be32_at(o->head + QH_BACKING_SIZE);
    char name[QCOW2_BACKING_NAME_MAX + 1];
    int r = read_extensions(o);

    if (r || !off || !len)
        return r;
    if (len > QCOW2_BACKING_NAME_MAX || off > o->head_size || len > o->head_size - off)
        return refuse(o, "the name of its backing file is not in the header");
    memcpy(name, o->head + off, len);
    name[len] = 0;
    r = backing_path(o, name, path, size);
    return r ? r : 1;
}

static int open_backing(struct opening *o)
{
    char path[BLOCK_PATH_MAX];
    struct image_how how = {.readonly = true,
                            .overlay = o->how,
                            .depth = o->how->depth + 1,
                            .unsafe = o->q->f.unsafe,
                            .given = o->how->given};
    int r = find_backing(o, path, sizeof(path));

    if (r <= 0)
        return r;
    o->how->file = &o->q->f;
    o->q->backing = image_open(path, o->backing_format, &how, o->err, o->err_size);
    if (!o->q->backing)
        return -EINVAL;
    log_debug("disk %s: backing file %s", o->q->f.path, path);
    return 0;
}

int qcow2_backing(const struct block_file *f, char *path, size_t size, enum block_format *format,
                  char *err, size_t err_size)
{
    struct qcow2 *q = calloc(1, sizeof(*q));
    struct opening o = {.q = q, .err = err, .err_size = err_size};
    int r;

    if (!q) {
        snprintf(err, err_size, "disk %s: out of memory", f->path);
        return -ENOMEM;
    }
    q->f = *f;
    q->b.readonly = true;
    r = read_head(&o);
    if (!r)
        r = check_features(&o);
    if (!r)
        r = find_backing(&o, path, size);
    *format = o.backing_format;
    free(o.head);
    free(q);
    return r;
}

/* --- life
 * ------------------------------------------------------------------------------------------
 */

static int qcow2_flush(struct blockdev *b)
{
    return b->readonly ? 0 : qcow2_checkpoint(qcow2_of(b), true);
}

/* The guest sees what is in backing files, too: whoever made the image chose them, and whoever
 * restores a machine is to have no other ones than it had. */
static int qcow2_stamp(struct blockdev *b, struct block_stamp *s)
{
    struct blockdev *backing = qcow2_of(b)->backing;
    struct block_stamp below;
    int r = block_file_stamp(&qcow2_of(b)->f, s);

    if (r || !backing)
        return r;
    r = backing->ops->stamp(backing, &below);
    if (r)
        return r;
    s->size = s->size * STAMP_MIX + below.size;
    s->changed_ns = s->changed_ns * STAMP_MIX + below.changed_ns;
    s->device |= below.device;
    return 0;
}

static void destroy(struct qcow2 *q)
{
    if (q->backing)
        q->backing->ops->close(q->backing);
    qcache_free(&q->l2_cache);
    qcache_free(&q->refblock_cache);
    qarray_free(&q->l1);
    qarray_free(&q->reftable);
    free(q->meta.slot);
    free(q->frees.r);
    qcow2_inflated_free(q);
    pthread_cond_destroy(&q->changed);
    pthread_mutex_destroy(&q->lock);
    pthread_mutex_destroy(&q->flush_lock);
    block_file_close(&q->f);
    free(q);
}

static void qcow2_close(struct blockdev *b)
{
    struct qcow2 *q = qcow2_of(b);

    /* The second one writes the refcounts of what the first one found free. */
    if (!b->readonly && !qcow2_checkpoint(q, true))
        qcow2_checkpoint(q, true);
    destroy(q);
}

static const struct blockdev_ops qcow2_ops = {
    .readv = qcow2_readv,
    .writev = qcow2_writev,
    .flush = qcow2_flush,
    .discard = qcow2_discard,
    .write_zeroes = qcow2_write_zeroes,
    .stamp = qcow2_stamp,
    .close = qcow2_close,
};

/* The header says no more what is not true any more: that the refcounts are stale, and that what is
 * not kept up to date here can be believed ("autoclear_features"). One write, for the second of
 * them lets what the new refcounts say is free be reused. */
static int clear_features(struct opening *o)
{
    u8 features[QH_REFCOUNT_ORDER - QH_INCOMPATIBLE];

    if (!o->autoclear && !(o->incompatible & QI_DIRTY))
        return 0;
    memcpy(features, o->head + QH_INCOMPATIBLE, sizeof(features));
    put_be64(features, o->incompatible & ~QI_DIRTY);
    put_be64(features + (QH_AUTOCLEAR - QH_INCOMPATIBLE), 0);
    if (block_file_write(&o->q->f, features, sizeof(features), QH_INCOMPATIBLE) ||
        block_file_sync(&o->q->f))
        return refuse(o, "its header cannot be written");
    return 0;
}

static int repair(struct opening *o)
{
    const char *why;

    if (!(o->incompatible & QI_DIRTY))
        return 0;
    if (qcow2_rebuild_refcounts(o->q, &o->snapshot_l1, &why))
        return refuse(o,
                      "it was in use when its user crashed, and its refcounts cannot be rebuilt: "
                      "%s: try qemu-img check -r all, or open it with ,ro",
                      why);
    log_warn("disk %s: it was in use when its user crashed: its refcounts are rebuilt",
             o->q->f.path);
    return 0;
}

static int load(struct opening *o)
{
    struct qcow2 *q = o->q;
    int r = read_head(o);

    if (!r)
        r = check_features(o);
    if (r)
        return r;
    set_geometry(q);
    o->nsnapshots = be32_at(o->head + QH_NSNAPSHOTS);
    o->snapshots_offset = be64_at(o->head + QH_SNAPSHOTS_OFFSET);
    if (qcache_init(q, &q->l2_cache, L2_CACHE_BYTES) ||
        qcache_init(q, &q->refblock_cache, REFBLOCK_CACHE_BYTES))
        return refuse(o, "out of memory");
    r = add_meta(o, 0, 1, "the header");
    if (!r)
        r = load_l1(o);
    if (!r && !q->b.readonly)
        r = load_reftable(o);
    if (!r && !q->b.readonly)
        r = load_snapshots(o);
    if (!r)
        r = open_backing(o);
    if (!r && !q->b.readonly)
        r = repair(o);
    if (!r && !q->b.readonly)
        r = clear_features(o);
    return r;
}

struct blockdev *qcow2_open(struct block_file *f, struct image_how *how, char *err, size_t err_size)
{
    struct qcow2 *q = calloc(1, sizeof(*q));
    struct opening o = {.q = q, .how = how, .err = err, .err_size = err_size};
    int r;

    if (!q) {
        snprintf(err, err_size, "disk %s: out of memory", f->path);
        block_file_close(f);
        return NULL;
    }
    q->f = *f;
    q->b.ops = &qcow2_ops;
    q->b.readonly = how->readonly;
    q->b.can_discard = !how->readonly && !how->no_discard;
    pthread_mutex_init(&q->lock, NULL);
    pthread_mutex_init(&q->flush_lock, NULL);
    pthread_cond_init(&q->changed, NULL);
    qcow2_inflated_init(q);
    r = load(&o);
    free(o.head);
    free(o.snapshot_l1.r);
    if (!r)
        return &q->b;
    destroy(q);
    return NULL;
}
