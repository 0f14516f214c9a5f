/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/block/memory.h"

struct memory_disk {
    struct blockdev b; /* first */
    u8 *data;
};

static int memory_readv(struct blockdev *b, const struct host_iov *iov, unsigned n, u64 off)
{
    struct memory_disk *m = container_of(b, struct memory_disk, b);

    for (unsigned i = 0; i < n; i++) {
        memcpy(iov[i].base, m->data + off, iov[i].len);
        off += iov[i].len;
    }
    return 0;
}

static int memory_writev(struct blockdev *b, const struct host_iov *iov, unsigned n, u64 off)
{
    (void)b;
    (void)iov;
    (void)n;
    (void)off;
    return -EROFS;
}

static int memory_flush(struct blockdev *b)
{
    (void)b;
    return 0;
}

static int memory_discard(struct blockdev *b, u64 off, u64 len)
{
    (void)b;
    (void)off;
    (void)len;
    return -EROFS;
}

static int memory_write_zeroes(struct blockdev *b, u64 off, u64 len, bool unmap)
{
    (void)unmap;
    return memory_discard(b, off, len);
}

static void memory_close(struct blockdev *b)
{
    struct memory_disk *m = container_of(b, struct memory_disk, b);

    free(m->data);
    free(m);
}

static const struct blockdev_ops ops = {.readv = memory_readv,
                                        .writev = memory_writev,
                                        .flush = memory_flush,
                                        .discard = memory_discard,
                                        .write_zeroes = memory_write_zeroes,
                                        .close = memory_close};

struct blockdev *block_memory_open(void *data, u64 size)
{
    struct memory_disk *m = calloc(1, sizeof(*m));

    if (!m) {
        free(data);
        return NULL;
    }
    m->b.ops = &ops;
    m->b.size = size;
    m->b.readonly = true;
    m->data = data;
    return &m->b;
}
