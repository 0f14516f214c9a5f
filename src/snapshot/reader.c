/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#include "base/bits.h"
#include "snapshot/format.h"

struct section {
    char name[SNAPSHOT_NAME_MAX + 1];
    u32 instance, len;
    u8 *data;
    bool used;
};

struct chunk {
    u32 index, stored;
    u64 hash, at;
};

struct snapshot {
    int fd;
    char *path;
    bool zstd;
    u64 ram, nchunks, meta_at, meta_len, meta_hash;
    unsigned shift;
    u8 *meta;
    struct section section[SNAPSHOT_SECTIONS_MAX];
    unsigned nsections;
    struct chunk *chunk;
    u8 *buf;      /* a chunk */
    u64 verified; /* chunks */
};

static int damaged(const struct snapshot *s, const char *what, char *err, size_t err_size)
{
    snprintf(err, err_size, "%s: damaged: %s", s->path, what);
    return -EINVAL;
}

static int read_all(int fd, void *buf, u64 len, u64 at)
{
    u8 *p = buf;

    while (len) {
        ssize_t n = pread(fd, p, len, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? -errno : -ENODATA;
        p += n;
        at += (u64)n;
        len -= (u64)n;
    }
    return 0;
}

static int read_failed(const struct snapshot *s, int r, char *err, size_t err_size)
{
    snprintf(err, err_size, "%s: cannot read it: %s", s->path,
             r == -ENODATA ? "it has become shorter" : strerror(-r));
    return r;
}

/* --- header --- */

static int read_header(struct snapshot *s, u64 size, char *err, size_t err_size)
{
    u8 page[SNAPSHOT_HEADER_SIZE];
    struct stream in;
    u32 version, flags;
    int r;

    if (size < sizeof(page)) {
        snprintf(err, err_size, "%s: no saved machine, or the beginning of one", s->path);
        return -EINVAL;
    }
    r = read_all(s->fd, page, sizeof(page), 0);
    if (r)
        return read_failed(s, r, err, err_size);
    stream_init(&in, page, sizeof(page));
    in.pos = SNAPSHOT_MAGIC_SIZE;
    if (memcmp(page, SNAPSHOT_MAGIC, SNAPSHOT_MAGIC_SIZE) != 0) {
        snprintf(err, err_size, "%s: no saved machine", s->path);
        return -EINVAL;
    }
    version = stream_get_u32(&in);
    flags = stream_get_u32(&in);
    s->ram = stream_get_u64(&in);
    s->nchunks = stream_get_u64(&in);
    s->meta_at = stream_get_u64(&in);
    s->meta_len = stream_get_u64(&in);
    s->meta_hash = stream_get_u64(&in);
    in.pos = sizeof(page) - sizeof(u64);
    if (stream_get_u64(&in) != XXH3_64bits(page, sizeof(page) - sizeof(u64)))
        return damaged(s, "the header is not what was written", err, err_size);
    if (version != SNAPSHOT_VERSION || (flags & ~SNAPSHOT_ZSTD)) {
        snprintf(err, err_size, "%s: saved by another version (format %u, this one reads %u)",
                 s->path, version, SNAPSHOT_VERSION);
        return -EINVAL;
    }
    s->zstd = flags & SNAPSHOT_ZSTD;
    if (!s->ram || s->ram % PAGE_SIZE || s->ram > SNAPSHOT_RAM_MAX ||
        s->meta_len > SNAPSHOT_META_MAX || s->meta_at > 2 * SNAPSHOT_RAM_MAX)
        return damaged(s, "impossible sizes", err, err_size);
    if (s->meta_at + s->meta_len != size) {
        snprintf(err, err_size, "%s: damaged: it has %llu bytes, %llu were written", s->path,
                 (unsigned long long)size, (unsigned long long)(s->meta_at + s->meta_len));
        return -EINVAL;
    }
    s->shift = snapshot_chunk_shift(s->ram);
    return 0;
}

/* --- sections --- */

static int read_sections(struct snapshot *s, char *err, size_t err_size)
{
    struct stream in;
    int r;

    s->meta = malloc(s->meta_len + 1);
    if (!s->meta) {
        snprintf(err, err_size, "%s: out of memory", s->path);
        return -ENOMEM;
    }
    r = read_all(s->fd, s->meta, s->meta_len, s->meta_at);
    if (r)
        return read_failed(s, r, err, err_size);
    if (XXH3_64bits(s->meta, s->meta_len) != s->meta_hash)
        return damaged(s, "the machine's state is not what was written", err, err_size);
    stream_init(&in, s->meta, s->meta_len);
    while (in.pos < in.cap) {
        struct section *e = &s->section[s->nsections];
        u8 n = stream_get_u8(&in);

        if (s->nsections == SNAPSHOT_SECTIONS_MAX || !n || n > SNAPSHOT_NAME_MAX)
            return damaged(s, "its list of sections", err, err_size);
        stream_get(&in, e->name, n);
        for (unsigned i = 0; i < n; i++)
            if (e->name[i] < ' ' || e->name[i] > '~') /* people read them */
                return damaged(s, "its list of sections", err, err_size);
        e->instance = stream_get_u32(&in);
        e->len = stream_get_u32(&in);
        if (in.error || e->len > in.cap - in.pos)
            return damaged(s, "a section's length", err, err_size);
        e->data = s->meta + in.pos;
        in.pos += e->len;
        s->nsections++;
    }
    return 0;
}

bool snapshot_section(struct snapshot *s, const char *name, u32 instance, struct stream *in)
{
    for (unsigned i = 0; i < s->nsections; i++) {
        struct section *e = &s->section[i];

        if (e->instance == instance && !strcmp(e->name, name)) {
            stream_init(in, e->data, e->len);
            e->used = true;
            return true;
        }
    }
    return false;
}

const char *snapshot_unused(const struct snapshot *s, u32 *instance)
{
    for (unsigned i = 0; i < s->nsections; i++)
        if (!s->section[i].used) {
            *instance = s->section[i].instance;
            return s->section[i].name;
        }
    return NULL;
}

u64 snapshot_ram_size(const struct snapshot *s)
{
    return s->ram;
}

int snapshot_fd(const struct snapshot *s)
{
    return s->fd;
}

bool snapshot_is_file(const struct snapshot *s, int fd)
{
    struct stat a, b;

    /* Not glibc's fstat, which a confined process may not call (newfstatat). */
    return !syscall(SYS_fstat, s->fd, &a) && !syscall(SYS_fstat, fd, &b) && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

/* --- memory --- */

static u64 chunk_len(const struct snapshot *s, u32 index)
{
    u64 left = s->ram - ((u64)index << s->shift), chunk = 1ull << s->shift;

    return left < chunk ? left : chunk;
}

static int read_table(struct snapshot *s, char *err, size_t err_size)
{
    u64 at = SNAPSHOT_HEADER_SIZE;
    struct stream in;

    if (!snapshot_section(s, SNAPSHOT_MEMORY, 0, &in) ||
        in.cap != s->nchunks * SNAPSHOT_MEMORY_ENTRY || s->nchunks > SNAPSHOT_CHUNKS_MAX)
        return damaged(s, "the list of its memory", err, err_size);
    s->chunk = calloc(s->nchunks + 1, sizeof(*s->chunk));
    s->buf = malloc(1ull << s->shift);
    if (!s->chunk || !s->buf) {
        snprintf(err, err_size, "%s: out of memory", s->path);
        return -ENOMEM;
    }
    for (u64 i = 0; i < s->nchunks; i++) {
        struct chunk *c = &s->chunk[i];

        c->index = stream_get_u32(&in);
        c->stored = stream_get_u32(&in);
        c->hash = stream_get_u64(&in);
        c->at = at;
        if ((u64)c->index << s->shift >= s->ram || (i && c->index <= c[-1].index) || !c->stored ||
            c->stored > chunk_len(s, c->index) || (!s->zstd && c->stored != chunk_len(s, c->index)))
            return damaged(s, "the list of its memory", err, err_size);
        at += c->stored;
    }
    if (at != s->meta_at)
        return damaged(s, "the length of its memory", err, err_size);
    return 0;
}

/* Chunks that follow each other in memory and in the file are one mapping. */
static int map_chunks(struct snapshot *s, struct host_ram *ram)
{
    u64 i = 0;

    while (i < s->nchunks) {
        const struct chunk *first = &s->chunk[i];
        u64 len = 0;
        int r;

        do
            len += s->chunk[i].stored;
        while (++i < s->nchunks && s->chunk[i].index == s->chunk[i - 1].index + 1);
        r = host_ram_map(ram, (u64)first->index << s->shift, len, s->fd, first->at);
        if (r)
            return r;
    }
    return 0;
}

/* Compressed memory is all read, and checked, now. */
static int unpack(struct snapshot *s, struct host_ram *ram, char *err, size_t err_size)
{
    for (; s->verified < s->nchunks; s->verified++) {
        const struct chunk *c = &s->chunk[s->verified];
        u8 *to = (u8 *)ram->ptr + ((u64)c->index << s->shift);
        u64 len = chunk_len(s, c->index);
        int r = read_all(s->fd, c->stored == len ? to : s->buf, c->stored, c->at);

        if (r)
            return read_failed(s, r, err, err_size);
        if (c->stored != len && ZSTD_decompress(to, len, s->buf, c->stored) != len)
            return damaged(s, "compressed memory", err, err_size);
        if (XXH3_64bits(to, len) != c->hash)
            return damaged(s, "the memory is not what was written", err, err_size);
    }
    return 0;
}

int snapshot_map(struct snapshot *s, struct host_ram *ram, char *err, size_t err_size)
{
    int r;

    if (s->zstd)
        return unpack(s, ram, err, err_size);
    r = map_chunks(s, ram);
    if (r)
        snprintf(err, err_size, "%s: cannot map the memory: %s", s->path, strerror(-r));
    return r;
}

/* From the file, not from the guest's memory: that may have changed already. */
int snapshot_verify(struct snapshot *s, u64 budget_ns, u64 least, char *err, size_t err_size)
{
    u64 begin = host_monotonic_ns(), done = 0;

    if (s->zstd)
        return 1;
    for (; s->verified < s->nchunks; s->verified++) {
        const struct chunk *c = &s->chunk[s->verified];
        int r;

        if (done >= least && host_monotonic_ns() - begin > budget_ns)
            return 0;
        done += c->stored;
        r = read_all(s->fd, s->buf, c->stored, c->at);
        if (r)
            return read_failed(s, r, err, err_size);
        if (XXH3_64bits(s->buf, c->stored) != c->hash)
            return damaged(s, "the memory is not what was written", err, err_size);
    }
    return 1;
}

bool snapshot_verified(const struct snapshot *s)
{
    return s->zstd || s->verified == s->nchunks;
}

/* --- the file --- */

static int read_all_but_memory(struct snapshot *s, char *err, size_t err_size)
{
    struct stat st;
    int r;

    s->fd = open(s->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (s->fd < 0 || fstat(s->fd, &st)) {
        r = -errno;
        snprintf(err, err_size, "%s: %s", s->path, strerror(-r));
        return r;
    }
    if (!S_ISREG(st.st_mode)) {
        snprintf(err, err_size, "%s: no regular file", s->path);
        return -EINVAL;
    }
    r = read_header(s, (u64)st.st_size, err, err_size);
    if (!r)
        r = read_sections(s, err, err_size);
    return r ? r : read_table(s, err, err_size);
}

struct snapshot *snapshot_open(const char *path, char *err, size_t err_size)
{
    struct snapshot *s = calloc(1, sizeof(*s));

    if (s) {
        s->fd = -1;
        s->path = strdup(path);
    }
    if (!s || !s->path) {
        snprintf(err, err_size, "out of memory");
        snapshot_close(s);
        return NULL;
    }
    if (read_all_but_memory(s, err, err_size)) {
        snapshot_close(s);
        return NULL;
    }
    return s;
}

void snapshot_close(struct snapshot *s)
{
    if (!s)
        return;
    if (s->fd >= 0)
        close(s->fd);
    free(s->path);
    free(s->meta);
    free(s->chunk);
    free(s->buf);
    free(s);
}
