/* SPDX-License-Identifier: Apache-2.0 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "backend/block/memory.h"
#include "backend/library.h"
#include "base/bits.h"

#define SECTOR 512
#define LABEL "cidata"

/* The volume identifier in the primary volume descriptor (ECMA-119 8.4.7). */
#define LABEL_AT (16 * 2048 + 40)

#define SONAME "libarchive.so.13"
#define FUNCTIONS(X)                                                                               \
    X(archive_entry_free)                                                                          \
    X(archive_entry_new)                                                                           \
    X(archive_entry_set_filetype)                                                                  \
    X(archive_entry_set_mtime)                                                                     \
    X(archive_entry_set_pathname)                                                                  \
    X(archive_entry_set_perm)                                                                      \
    X(archive_entry_set_size)                                                                      \
    X(archive_error_string)                                                                        \
    X(archive_set_error)                                                                           \
    X(archive_write_close)                                                                         \
    X(archive_write_data)                                                                          \
    X(archive_write_free)                                                                          \
    X(archive_write_header)                                                                        \
    X(archive_write_new)                                                                           \
    X(archive_write_open)                                                                          \
    X(archive_write_set_bytes_in_last_block)                                                       \
    X(archive_write_set_format_iso9660)                                                            \
    X(archive_write_set_options)

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

struct image {
    u8 *data;
    u64 size, room;
};

/* libarchive hands over a piece of the image. */
static la_ssize_t take(struct archive *a, void *opaque, const void *buf, size_t n)
{
    struct image *m = opaque;

    if (m->size + n > m->room) {
        u64 room = (m->size + n) * 2;
        u8 *more = realloc(m->data, room);

        if (!more) {
            lib.archive_set_error(a, ENOMEM, "out of memory");
            return -1;
        }
        m->data = more;
        m->room = room;
    }
    memcpy(m->data + m->size, buf, n);
    m->size += n;
    return (la_ssize_t)n;
}

static int add_file(struct archive *a, const struct seed_file *f)
{
    struct archive_entry *e = lib.archive_entry_new();
    int r = ARCHIVE_FATAL;

    if (!e)
        return r;
    lib.archive_entry_set_pathname(e, f->name);
    lib.archive_entry_set_size(e, (la_int64_t)f->size);
    lib.archive_entry_set_filetype(e, S_IFREG);
    lib.archive_entry_set_perm(e, 0644);
    lib.archive_entry_set_mtime(e, 0, 0);
    r = lib.archive_write_header(a, e);
    lib.archive_entry_free(e);
    if (r == ARCHIVE_OK && f->size && lib.archive_write_data(a, f->data, f->size) < 0)
        r = ARCHIVE_FATAL;
    return r;
}

int block_seed_build(const struct seed_file *files, unsigned n, void **data, u64 *size, char *err,
                     size_t err_size)
{
    struct image m = {0};
    struct archive *a;
    int r = library_load(SONAME, functions, ARRAY_SIZE(functions), err, err_size);

    if (r)
        return r;
    a = lib.archive_write_new();
    r = a ? ARCHIVE_OK : ARCHIVE_FATAL;

    if (!r)
        r = lib.archive_write_set_format_iso9660(a);
    if (!r)
        r = lib.archive_write_set_options(a, "iso9660:volume-id=" LABEL ",iso9660:joliet=1,"
                                             "iso9660:rockridge=useful,iso9660:pad=1");
    if (!r)
        r = lib.archive_write_set_bytes_in_last_block(a, 1);
    if (!r)
        r = lib.archive_write_open(a, &m, NULL, take, NULL);
    for (unsigned i = 0; i < n && !r; i++)
        r = add_file(a, &files[i]);
    if (!r)
        r = lib.archive_write_close(a);
    if (r) {
        snprintf(err, err_size, "cannot build the file system: %s",
                 a && lib.archive_error_string(a) ? lib.archive_error_string(a) : "out of memory");
        free(m.data);
        r = -EIO;
    } else {
        /* libarchive allows ISO 9660's capitals only; everybody writes and looks for small letters.
         */
        memcpy(m.data + LABEL_AT, LABEL, strlen(LABEL));
        *data = m.data;
        *size = align_down(m.size, SECTOR);
    }
    lib.archive_write_free(a);
    return r;
}
