/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal of a file system that was not unmounted is not replayed: what is read is what was
 * last written in place, as GRUB does it.
 */
#include <errno.h>
#include <et/com_err.h>
#include <ext2fs/ext2fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/bootdisk/ext.h"
#include "backend/library.h"
#include "base/bits.h"

#define SONAME "libext2fs.so.2" /* and with it libcom_err, which has error_message */
#define FUNCTIONS(X)                                                                               \
    X(error_message)                                                                               \
    X(ext2fs_check_directory)                                                                      \
    X(ext2fs_close_free)                                                                           \
    X(ext2fs_dir_iterate)                                                                          \
    X(ext2fs_file_close)                                                                           \
    X(ext2fs_file_get_lsize)                                                                       \
    X(ext2fs_file_open2)                                                                           \
    X(ext2fs_file_read)                                                                            \
    X(ext2fs_namei_follow)                                                                         \
    X(ext2fs_open2)                                                                                \
    X(ext2fs_read_inode)                                                                           \
    X(initialize_ext2_error_table)

static struct {
#define X(fn) __typeof__(fn) *fn;
    FUNCTIONS(X)
#undef X
} lib;

static const struct library_function functions[] = {
#define X(fn) LIBRARY_FUNCTION(lib, fn),
    FUNCTIONS(X)
#undef X
};

#define PIECE (256u << 10)
#define NAMES_MAX 65536

struct ext {
    ext2_filsys fs;
    struct disk *disk;
    const struct disk_part *part;
};

/* --- the I/O manager: libext2fs reads a partition of a struct disk --- */

/* libext2fs hands an I/O manager nothing but a name. */
static __thread struct ext *opening;

static errcode_t io_close(io_channel ch)
{
    if (--ch->refcount > 0)
        return 0;
    free(ch->name);
    free(ch);
    return 0;
}

static errcode_t io_set_blksize(io_channel ch, int size)
{
    if (size < DISK_SECTOR || size > 65536 || size % DISK_SECTOR)
        return EXT2_ET_BAD_DEVICE_NAME;
    ch->block_size = size;
    return 0;
}

/* count: blocks, or bytes when negative. */
static errcode_t io_read_blk64(io_channel ch, unsigned long long block, int count, void *data)
{
    const struct ext *e = ch->private_data;
    u64 off, len = count < 0 ? (u64) - (s64)count : (u64)count * (u64)ch->block_size;

    if (__builtin_mul_overflow(block, (u64)ch->block_size, &off) || len % DISK_SECTOR ||
        off > e->part->size || len > e->part->size - off ||
        disk_read(e->disk, data, len, e->part->start + off))
        return EXT2_ET_SHORT_READ;
    return 0;
}

static errcode_t io_read_blk(io_channel ch, unsigned long block, int count, void *data)
{
    return io_read_blk64(ch, block, count, data);
}

static errcode_t io_write_blk64(io_channel ch, unsigned long long block, int count,
                                const void *data)
{
    (void)ch, (void)block, (void)count, (void)data;
    return EXT2_ET_RO_FILSYS;
}

static errcode_t io_write_blk(io_channel ch, unsigned long block, int count, const void *data)
{
    return io_write_blk64(ch, block, count, data);
}

static errcode_t io_flush(io_channel ch)
{
    (void)ch;
    return 0;
}

static errcode_t io_open(const char *name, int flags, io_channel *out);

static struct struct_io_manager manager = {
    .magic = EXT2_ET_MAGIC_IO_MANAGER,
    .name = "bootdisk",
    .open = io_open,
    .close = io_close,
    .set_blksize = io_set_blksize,
    .read_blk = io_read_blk,
    .write_blk = io_write_blk,
    .flush = io_flush,
    .read_blk64 = io_read_blk64,
    .write_blk64 = io_write_blk64,
};

static errcode_t io_open(const char *name, int flags, io_channel *out)
{
    io_channel ch = calloc(1, sizeof(*ch));

    (void)flags;
    if (!ch)
        return EXT2_ET_NO_MEMORY;
    ch->magic = EXT2_ET_MAGIC_IO_CHANNEL;
    ch->manager = &manager;
    ch->name = strdup(name);
    ch->block_size = 1024;
    ch->refcount = 1;
    ch->private_data = opening;
    if (!ch->name) {
        free(ch);
        return EXT2_ET_NO_MEMORY;
    }
    *out = ch;
    return 0;
}

/* --- files --- */

static void explain(const struct ext *e, errcode_t r, char *why, size_t why_size)
{
    if (e->disk->spent)
        snprintf(why, why_size, "the file system is damaged: reading it comes to no end");
    else
        snprintf(why, why_size, "%s", lib.error_message(r));
}

int ext_prepare(char *why, size_t why_size)
{
    static bool done;

    if (done)
        return 0;
    if (library_load(SONAME, functions, ARRAY_SIZE(functions), why, why_size))
        return -ENOENT;
    lib.initialize_ext2_error_table();
    done = true;
    return 0;
}

struct ext *ext_open(struct disk *d, const struct disk_part *p, char *why, size_t why_size)
{
    struct ext *e = calloc(1, sizeof(*e));
    errcode_t r;

    if (!e) {
        snprintf(why, why_size, "out of memory");
        return NULL;
    }
    if (ext_prepare(why, why_size)) {
        free(e);
        return NULL;
    }
    e->disk = d;
    e->part = p;
    opening = e;
    r = lib.ext2fs_open2("disk", NULL, EXT2_FLAG_64BITS | EXT2_FLAG_SKIP_MMP, 0, 0, &manager,
                         &e->fs);
    opening = NULL;
    if (r) {
        explain(e, r, why, why_size);
        free(e);
        return NULL;
    }
    return e;
}

void ext_close(struct ext *e)
{
    if (!e)
        return;
    lib.ext2fs_close_free(&e->fs);
    free(e);
}

void ext_uuid(const struct ext *e, char text[37])
{
    const u8 *u = e->fs->super->s_uuid;

    snprintf(text, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0],
             u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13],
             u[14], u[15]);
}

static bool find(struct ext *e, const char *path, ext2_ino_t *ino)
{
    return path[0] == '/' &&
           !lib.ext2fs_namei_follow(e->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, path, ino);
}

bool ext_exists(struct ext *e, const char *path)
{
    ext2_ino_t ino;

    return find(e, path, &ino);
}

static errcode_t open_regular(struct ext *e, ext2_ino_t ino, ext2_file_t *f)
{
    struct ext2_inode inode;
    errcode_t r = lib.ext2fs_read_inode(e->fs, ino, &inode);

    if (!r && !LINUX_S_ISREG(inode.i_mode))
        r = EXT2_ET_FILE_NOT_FOUND;
    return r ? r : lib.ext2fs_file_open2(e->fs, ino, &inode, 0, f);
}

int ext_copy(struct ext *e, const char *path, const struct bootdisk_sink *sink, char *why,
             size_t why_size)
{
    ext2_ino_t ino;
    ext2_file_t f;
    u8 *piece;
    __u64 size = 0, done = 0;
    errcode_t r;
    int err = 0;

    if (!find(e, path, &ino) || open_regular(e, ino, &f))
        return -ENOENT;
    piece = malloc(PIECE);
    r = piece ? lib.ext2fs_file_get_lsize(f, &size) : EXT2_ET_NO_MEMORY;
    if (!r && size > sink->limit) {
        snprintf(why, why_size, "it has %llu bytes, more than the %llu there is room for",
                 (unsigned long long)size, (unsigned long long)sink->limit);
        err = -EFBIG;
    }
    while (!r && !err && done < size) {
        unsigned got = 0;

        r = lib.ext2fs_file_read(f, piece, PIECE, &got);
        if (r || !got)
            break;
        err = sink->write(sink->opaque, piece, got);
        if (err)
            snprintf(why, why_size, "%s", strerror(-err));
        done += got;
    }
    if (!err && (r || done != size)) {
        explain(e, r ? r : EXT2_ET_SHORT_READ, why, why_size);
        err = -EIO;
    }
    free(piece);
    lib.ext2fs_file_close(f);
    return err;
}

struct text {
    char *buf;
    size_t n, max;
};

static int text_write(void *opaque, const void *buf, size_t len)
{
    struct text *t = opaque;

    if (len > t->max - t->n)
        return -EFBIG;
    memcpy(t->buf + t->n, buf, len);
    t->n += len;
    return 0;
}

char *ext_text(struct ext *e, const char *path, size_t max)
{
    struct text t = {.buf = malloc(max + 1), .max = max};
    struct bootdisk_sink sink = {.write = text_write, .opaque = &t, .limit = max};
    char why[128];

    if (!t.buf)
        return NULL;
    if (ext_copy(e, path, &sink, why, sizeof(why))) {
        free(t.buf);
        return NULL;
    }
    t.buf[t.n] = 0;
    return t.buf;
}

struct listing {
    void (*fn)(void *opaque, const char *name);
    void *opaque;
    unsigned seen;
};

static int on_name(struct ext2_dir_entry *de, int offset, int block_size, char *buf, void *opaque)
{
    struct listing *l = opaque;
    char name[EXT2_NAME_LEN + 1];
    int n = ext2fs_dirent_name_len(de);

    (void)offset, (void)block_size, (void)buf;
    memcpy(name, de->name, (size_t)n);
    name[n] = 0;
    l->fn(l->opaque, name);
    return ++l->seen == NAMES_MAX ? DIRENT_ABORT : 0;
}

void ext_list(struct ext *e, const char *path, void (*fn)(void *opaque, const char *name),
              void *opaque)
{
    struct listing l = {.fn = fn, .opaque = opaque};
    ext2_ino_t ino;

    if (find(e, path, &ino) && !lib.ext2fs_check_directory(e->fs, ino))
        lib.ext2fs_dir_iterate(e->fs, ino, 0, NULL, on_name, &l);
}
