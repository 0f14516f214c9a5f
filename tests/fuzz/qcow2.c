/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a qcow2 image, and requests of any kind to it. Byte 0: how many requests, byte 1:
 * bit 0 opens it read-only; 8 bytes a request: kind, offset (3) and length (2) in sectors; the rest
 * is the image.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backend/block/block.h"

#define REQUEST 8
#define LENGTH_MAX 65536
#define FIXED_HEADER 48 /* nothing changes this part of an image */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void request(struct blockdev *b, const u8 *p)
{
    static u8 buf[LENGTH_MAX];
    u64 off = (u64)(p[1] | p[2] << 8 | p[3] << 16) * 512;
    u64 len = (u64)(p[4] | p[5] << 8) * 512;
    struct host_iov v = {buf, 0};

    if (b->size < 512)
        return;
    off %= b->size;
    if (len > b->size - off)
        len = b->size - off;
    v.len = len < LENGTH_MAX ? len : LENGTH_MAX;
    switch (p[0] % 6) {
    case 0:
        b->ops->readv(b, &v, 1, off);
        return;
    case 1:
        if (!b->readonly)
            b->ops->writev(b, &v, 1, off);
        return;
    case 2:
        b->ops->flush(b);
        return;
    case 3:
        if (!b->readonly)
            b->ops->discard(b, off, len);
        return;
    default:
        if (!b->readonly)
            b->ops->write_zeroes(b, off, len, p[0] & 8);
        return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned n = size ? data[0] % 32 : 0;
    size_t head = 2 + (size_t)n * REQUEST;
    u8 before[FIXED_HEADER] = {0}, after[FIXED_HEADER] = {0};
    struct block_spec spec;
    struct blockdev *b;
    char text[128], err[512] = "";
    int fd;

    if (size < head)
        return 0;
    fd = memfd_create("image", 0);
    if (fd < 0 || write(fd, data + head, size - head) != (ssize_t)(size - head))
        abort();
    snprintf(text, sizeof(text), "/proc/self/fd/%d,format=qcow2%s", fd, data[1] & 1 ? ",ro" : "");
    if (block_spec_parse(text, &spec, err, sizeof(err)) || pread(fd, before, FIXED_HEADER, 0) < 0)
        abort();
    b = block_open(&spec, err, sizeof(err));
    if (!b && (!err[0] || strchr(err, '\n')))
        abort(); /* refused, and not said why in one line */
    for (unsigned i = 0; b && i < n; i++)
        request(b, data + 2 + (size_t)i * REQUEST);
    if (b)
        b->ops->close(b);
    if (pread(fd, after, FIXED_HEADER, 0) < 0 || memcmp(before, after, FIXED_HEADER) != 0)
        abort();
    close(fd);
    return 0;
}
