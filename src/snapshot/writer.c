/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#include "base/bits.h"
#include "core/stream.h"
#include "snapshot/format.h"

/* The fastest that is worth its time; the guest stands still meanwhile. */
#define ZSTD_LEVEL 1
/* Written at once at most. */
#define RUN_MAX (8u << 20)
/* Of memory that holds something: a fraction of a second's work. */
#define ASK_EVERY (32u << 20)

struct buffer {
    u8 *p;
    size_t len, cap;
};

/* Bytes that follow each other in memory and in the file, and are not written yet. */
struct run {
    const u8 *p;
    u64 len, at;
};

struct snapshot_writer {
    int fd;
    bool compress;
    u64 at; /* where the next chunk goes */
    u64 ram, chunks, memory, file;
    unsigned shift, nsections;
    struct buffer meta, table;
    struct run run;
    ZSTD_CCtx *zstd;
    u8 *out; /* of zstd */
    size_t out_cap;
};

static int write_all(int fd, const u8 *p, u64 len, u64 at)
{
    while (len) {
        ssize_t n = pwrite(fd, p, len, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? -errno : -EIO;
        p += n;
        at += (u64)n;
        len -= (u64)n;
    }
    return 0;
}

static int append(struct buffer *b, const void *p, size_t len)
{
    if (len > b->cap - b->len) {
        size_t cap = b->cap ? b->cap : 65536;
        u8 *grown;

        while (cap - b->len < len)
            cap *= 2;
        grown = realloc(b->p, cap);
        if (!grown)
            return -ENOMEM;
        b->p = grown;
        b->cap = cap;
    }
    memcpy(b->p + b->len, p, len);
    b->len += len;
    return 0;
}

int snapshot_writer_open(struct snapshot_writer **out, int fd, bool compress)
{
    struct snapshot_writer *w;
    struct stat st;
    int flags;

    /* Not glibc's fstat, which a confined process may not call (newfstatat). */
    if (syscall(SYS_fstat, fd, &st))
        return -errno;
    flags = fcntl(fd, F_GETFL);
    /* With O_APPEND everything would go to the end, wherever it is to go (pwrite(2), "BUGS"). */
    if (!S_ISREG(st.st_mode) || flags < 0 || (flags & O_ACCMODE) == O_RDONLY || (flags & O_APPEND))
        return -EINVAL;
    if (ftruncate(fd, 0))
        return -errno;
    w = calloc(1, sizeof(*w));
    if (!w)
        return -ENOMEM;
    w->fd = fd;
    w->compress = compress;
    w->at = SNAPSHOT_HEADER_SIZE;
    if (compress) {
        w->zstd = ZSTD_createCCtx();
        if (!w->zstd) {
            free(w);
            return -ENOMEM;
        }
    }
    *out = w;
    return 0;
}

int snapshot_write_section(struct snapshot_writer *w, const char *name, u32 instance,
                           const void *data, size_t len)
{
    size_t n = strlen(name);
    u8 head[1 + SNAPSHOT_NAME_MAX + 8];
    struct stream s;
    int r;

    if (!n || n > SNAPSHOT_NAME_MAX || len > SNAPSHOT_META_MAX - w->meta.len - sizeof(head) ||
        ++w->nsections > SNAPSHOT_SECTIONS_MAX)
        return -E2BIG;
    stream_init(&s, head, sizeof(head));
    stream_put_u8(&s, (u8)n);
    stream_put(&s, name, n);
    stream_put_u32(&s, instance);
    stream_put_u32(&s, (u32)len);
    r = append(&w->meta, head, s.pos);
    return r ? r : append(&w->meta, data, len);
}

/* --- memory --- */

static bool is_zero(const u8 *page)
{
    const u64 *p = (const u64 *)(const void *)page;

    /* A block at a time, without a branch in it: the compiler uses vectors then. */
    for (unsigned i = 0; i < PAGE_SIZE / sizeof(u64); i += 32) {
        u64 any = 0;

        for (unsigned j = 0; j < 32; j++)
            any |= p[i + j];
        if (any)
            return false;
    }
    return true;
}

static int write_run(struct snapshot_writer *w)
{
    struct run r = w->run;

    w->run.len = 0;
    return write_all(w->fd, r.p, r.len, r.at);
}

static int add_to_run(struct snapshot_writer *w, const u8 *p, u64 len, u64 at)
{
    struct run *r = &w->run;
    int err = 0;

    if (r->len && r->p + r->len == p && r->at + r->len == at && r->len + len <= RUN_MAX) {
        r->len += len;
        return 0;
    }
    if (r->len)
        err = write_run(w);
    *r = (struct run){.p = p, .len = len, .at = at};
    return err;
}

/* Pages without contents stay holes of the file. */
static int write_plain(struct snapshot_writer *w, const u8 *p, u64 len, u64 first)
{
    int r = 0;

    for (u64 off = first; off < len && !r; off += PAGE_SIZE)
        if (off == first || !is_zero(p + off))
            r = add_to_run(w, p + off, PAGE_SIZE, w->at + off);
    return r;
}

/* What it takes in the file, or -errno; len: it is not smaller compressed, and was not written. */
static s64 write_compressed(struct snapshot_writer *w, const u8 *p, u64 len)
{
    size_t n = ZSTD_compressCCtx(w->zstd, w->out, w->out_cap, p, len, ZSTD_LEVEL);
    int r;

    if (ZSTD_isError(n))
        return -EIO;
    if (n >= len)
        return (s64)len;
    r = write_all(w->fd, w->out, n, w->at);
    return r ? r : (s64)n;
}

static int write_chunk(struct snapshot_writer *w, u64 index, const u8 *p, u64 len)
{
    u64 first = 0, stored = len;
    u8 entry[SNAPSHOT_MEMORY_ENTRY];
    struct stream s;
    int r = 0;

    while (first < len && is_zero(p + first))
        first += PAGE_SIZE;
    if (first == len)
        return 0;
    if (w->compress) {
        s64 n = write_compressed(w, p, len);

        if (n < 0)
            return (int)n;
        stored = (u64)n;
    }
    if (stored == len)
        r = write_plain(w, p, len, first);
    if (r)
        return r;
    stream_init(&s, entry, sizeof(entry));
    stream_put_u32(&s, (u32)index);
    stream_put_u32(&s, (u32)stored);
    stream_put_u64(&s, XXH3_64bits(p, len));
    w->at += stored;
    w->chunks++;
    w->memory += len;
    return append(&w->table, entry, sizeof(entry));
}

int snapshot_write_memory(struct snapshot_writer *w, const struct host_ram *ram,
                          bool (*wanted)(void *opaque), void *opaque)
{
    unsigned shift = snapshot_chunk_shift(ram->size);
    u64 size = ram->size, chunk = 1ull << shift, off = 0, ask_at = 0;
    int r = 0;

    if (!size || size % PAGE_SIZE || size > SNAPSHOT_RAM_MAX || w->ram)
        return -EINVAL;
    w->ram = size;
    w->shift = shift;
    if (w->compress) {
        w->out_cap = ZSTD_compressBound(chunk);
        w->out = malloc(w->out_cap);
        if (!w->out)
            return -ENOMEM;
    }
    while ((off = host_ram_next_used(ram, off)) < size && !r) {
        if (wanted && w->memory >= ask_at) {
            if (!wanted(opaque))
                return -ECANCELED;
            ask_at = w->memory + ASK_EVERY;
        }
        off &= -chunk;
        r = write_chunk(w, off >> shift, (const u8 *)ram->ptr + off,
                        size - off < chunk ? size - off : chunk);
        off += chunk;
    }
    return r ? r : write_run(w);
}

/* --- the end --- */

static int write_header(struct snapshot_writer *w)
{
    u8 page[SNAPSHOT_HEADER_SIZE] = {0};
    struct stream s;

    stream_init(&s, page, sizeof(page));
    stream_put(&s, SNAPSHOT_MAGIC, SNAPSHOT_MAGIC_SIZE);
    stream_put_u32(&s, SNAPSHOT_VERSION);
    stream_put_u32(&s, w->compress ? SNAPSHOT_ZSTD : 0);
    stream_put_u64(&s, w->ram);
    stream_put_u64(&s, w->chunks);
    stream_put_u64(&s, w->at);
    stream_put_u64(&s, w->meta.len);
    stream_put_u64(&s, XXH3_64bits(w->meta.p, w->meta.len));
    s.pos = sizeof(page) - sizeof(u64);
    stream_put_u64(&s, XXH3_64bits(page, sizeof(page) - sizeof(u64)));
    return write_all(w->fd, page, sizeof(page), 0);
}

int snapshot_writer_finish(struct snapshot_writer *w)
{
    int r = snapshot_write_section(w, SNAPSHOT_MEMORY, 0, w->table.p, w->table.len);

    if (r)
        return r;
    w->file = w->at + w->meta.len;
    r = write_all(w->fd, w->meta.p, w->meta.len, w->at);
    return r ? r : write_header(w);
}

u64 snapshot_writer_size(const struct snapshot_writer *w)
{
    return w->file;
}

u64 snapshot_writer_memory(const struct snapshot_writer *w)
{
    return w->memory;
}

void snapshot_writer_free(struct snapshot_writer *w)
{
    if (!w)
        return;
    ZSTD_freeCCtx(w->zstd);
    free(w->out);
    free(w->meta.p);
    free(w->table.p);
    free(w);
}
