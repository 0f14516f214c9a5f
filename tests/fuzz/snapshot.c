/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saved machines. Their checksums would keep a fuzzer out of what is behind them: the input has
 * none, they are put in, so that what is tried is what a forger can write.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "snapshot/format.h"
#include "snapshot/reader.h"

#define META_AT_OFFSET 40 /* of its fields in the header */
#define META_LEN_OFFSET 48
#define META_HASH_OFFSET 56

static void put(u8 *p, u64 v)
{
    for (unsigned i = 0; i < 8; i++)
        p[i] = (u8)(v >> (8 * i));
}

/* The first two bytes: where the header's fields end; the rest, up to a third of it, is memory, and
 * then sections. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    u8 page[SNAPSHOT_HEADER_SIZE] = {0};
    char err[256], path[64];
    struct snapshot *s;
    struct host_ram r;
    size_t meta;
    int fd;

    if (size < 64)
        return 0;
    fd = memfd_create("snapshot", MFD_CLOEXEC);
    meta = (size - 64) / 4 * (data[63] & 3);
    memcpy(page, SNAPSHOT_MAGIC, SNAPSHOT_MAGIC_SIZE);
    page[SNAPSHOT_MAGIC_SIZE] = SNAPSHOT_VERSION;
    page[SNAPSHOT_MAGIC_SIZE + 4] = data[0] & 1;
    memcpy(page + 24, data + 1, 16);
    memset(page + 24 + 3, 0, 5); /* 16 MiB at most, that runs are short */
    put(page + META_AT_OFFSET, sizeof(page) + meta);
    put(page + META_LEN_OFFSET, size - 64 - meta);
    put(page + META_HASH_OFFSET, XXH3_64bits(data + 64 + meta, size - 64 - meta));
    put(page + sizeof(page) - 8, XXH3_64bits(page, sizeof(page) - 8));
    if (write(fd, page, sizeof(page)) != (ssize_t)sizeof(page) ||
        write(fd, data + 64, size - 64) != (ssize_t)(size - 64))
        abort();
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    s = snapshot_open(path, err, sizeof(err));
    if (s) {
        struct stream in;

        snapshot_section(s, "options", 0, &in);
        if (host_ram_alloc(&r, snapshot_ram_size(s)))
            abort();
        if (!snapshot_map(s, &r, err, sizeof(err)))
            snapshot_verify(s, UINT64_MAX, 0, err, sizeof(err));
        host_ram_free(&r);
        snapshot_close(s);
    }
    close(fd);
    return 0;
}
