/* SPDX-License-Identifier: Apache-2.0 */
/* Raw images: the file's bytes are the disk's. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/block/image.h"
#include "base/bits.h"

struct raw {
    struct blockdev b; /* first */
    struct block_file f;
    /* atomic: the host cannot do it here, do not ask again */
    u32 no_punch, no_zero_range;
};

static struct raw *raw_of(struct blockdev *b)
{
    return container_of(b, struct raw, b);
}

static int raw_readv(struct blockdev *b, const struct host_iov *iov, unsigned n, u64 off)
{
    return block_file_readv(&raw_of(b)->f, iov, n, 0, iov_total(iov, n), off);
}

static int raw_writev(struct blockdev *b, const struct host_iov *iov, unsigned n, u64 off)
{
    return block_file_writev(&raw_of(b)->f, iov, n, 0, iov_total(iov, n), off);
}

static int raw_flush(struct blockdev *b)
{
    return block_file_sync(&raw_of(b)->f);
}

static int raw_discard(struct blockdev *b, u64 off, u64 len)
{
    struct raw *r = raw_of(b);
    int err;

    if (!b->can_discard || !len || __atomic_load_n(&r->no_punch, __ATOMIC_RELAXED))
        return 0;
    err = block_file_punch(&r->f, off, len);
    if (err == -EOPNOTSUPP)
        __atomic_store_n(&r->no_punch, 1, __ATOMIC_RELAXED);
    return err == -EOPNOTSUPP || err == -EINVAL ? 0 : err;
}

static int raw_write_zeroes(struct blockdev *b, u64 off, u64 len, bool unmap)
{
    struct raw *r = raw_of(b);
    int err;

    if (!len)
        return 0;
    if (unmap && b->can_discard && !__atomic_load_n(&r->no_punch, __ATOMIC_RELAXED)) {
        err = block_file_punch(&r->f, off, len);
        if (err != -EOPNOTSUPP && err != -EINVAL)
            return err;
        if (err == -EOPNOTSUPP)
            __atomic_store_n(&r->no_punch, 1, __ATOMIC_RELAXED);
    }
    if (!__atomic_load_n(&r->no_zero_range, __ATOMIC_RELAXED)) {
        err = block_file_zero_range(&r->f, off, len);
        if (err != -EOPNOTSUPP && err != -EINVAL)
            return err;
        if (err == -EOPNOTSUPP)
            __atomic_store_n(&r->no_zero_range, 1, __ATOMIC_RELAXED);
    }
    return block_file_write_zero_bytes(&r->f, len, off);
}

static int raw_stamp(struct blockdev *b, struct block_stamp *s)
{
    return block_file_stamp(&raw_of(b)->f, s);
}

static void raw_close(struct blockdev *b)
{
    struct raw *r = raw_of(b);

    if (!b->readonly)
        block_file_sync(&r->f);
    block_file_close(&r->f);
    free(r);
}

static const struct blockdev_ops raw_ops = {
    .readv = raw_readv,
    .writev = raw_writev,
    .flush = raw_flush,
    .discard = raw_discard,
    .write_zeroes = raw_write_zeroes,
    .stamp = raw_stamp,
    .close = raw_close,
};

struct blockdev *raw_open(struct block_file *f, const struct image_how *how, char *err,
                          size_t err_size)
{
    struct raw *r = calloc(1, sizeof(*r));

    if (!r) {
        snprintf(err, err_size, "disk %s: out of memory", f->path);
        block_file_close(f);
        return NULL;
    }
    /* A writable disk is whole sectors, and growing somebody's file is not ours to do. For reading
     * the last sector is filled up with zeroes. */
    if (!f->size || (f->size % 512 && !how->readonly)) {
        if (!f->size)
            snprintf(err, err_size, "disk %s: it is empty (truncate -s 8G makes a new one)",
                     f->path);
        else
            snprintf(err, err_size,
                     "disk %s: its size %llu is no multiple of 512: open it with ,ro or let "
                     "truncate -s %%512 round it up",
                     f->path, (unsigned long long)f->size);
        block_file_close(f);
        free(r);
        return NULL;
    }
    r->f = *f;
    r->b = (struct blockdev){.ops = &raw_ops,
                             .size = align_up(f->size, 512),
                             .readonly = how->readonly,
                             .can_discard = !how->readonly && !how->no_discard};
    return &r->b;
}
