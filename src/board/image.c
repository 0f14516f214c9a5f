/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "board/image.h"

/* Reads until n bytes or the end; how many, or -errno. */
static s64 read_all(int fd, u8 *dst, u64 n, off_t at, bool seekable)
{
    u64 done = 0;

    while (done < n) {
        ssize_t r = seekable ? pread(fd, dst + done, n - done, at + (off_t)done)
                             : read(fd, dst + done, n - done);

        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -errno;
        if (r == 0)
            break;
        done += (u64)r;
    }
    return (s64)done;
}

static int read_stream(struct image_file *f, u64 limit, char *err, size_t err_size)
{
    u64 room = 1 << 20;
    s64 n = 0;

    for (;;) {
        u8 *more = realloc(f->data, room);

        if (!more) {
            snprintf(err, err_size, "%s: out of memory", f->name);
            return -ENOMEM;
        }
        f->data = more;
        n = read_all(f->fd, f->data + f->size, room - f->size, 0, false);
        if (n < 0) {
            snprintf(err, err_size, "cannot read %s: %s", f->name, strerror((int)-n));
            return (int)n;
        }
        f->size += (u64)n;
        if (f->size > limit) {
            snprintf(err, err_size, "%s is larger than the guest's memory", f->name);
            return -EFBIG;
        }
        if (f->size < room)
            return 0;
        room *= 2;
    }
}

int image_file_open(struct image_file *f, const char *what, const char *path, u64 limit, char *err,
                    size_t err_size)
{
    return image_file_open_fd(f, what, path, open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY), limit,
                              err, err_size);
}

int image_file_open_fd(struct image_file *f, const char *what, const char *path, int fd, u64 limit,
                       char *err, size_t err_size)
{
    struct stat st;
    int r = 0;

    memset(f, 0, sizeof(*f));
    f->name = path;
    f->fd = fd;
    if (f->fd < 0 || fstat(f->fd, &st)) {
        r = -errno;
        snprintf(err, err_size, "cannot open %s %s: %s", what, path, strerror(-r));
    } else if (S_ISDIR(st.st_mode)) {
        r = -EISDIR;
        snprintf(err, err_size, "cannot open %s %s: it is a directory", what, path);
    } else if (S_ISREG(st.st_mode)) {
        f->size = (u64)st.st_size;
        if (f->size > limit) {
            r = -EFBIG;
            snprintf(err, err_size, "%s %s is larger (%llu bytes) than the guest's memory", what,
                     path, (unsigned long long)f->size);
        }
    } else {
        r = read_stream(f, limit, err, err_size);
    }
    if (!r && !f->size) {
        r = -EINVAL;
        snprintf(err, err_size, "%s %s is empty", what, path);
    }
    if (r)
        image_close(f);
    return r;
}

int image_copy(const struct image_file *f, void *dst, char *err, size_t err_size)
{
    s64 n;

    if (f->data) {
        memcpy(dst, f->data, f->size);
        return 0;
    }
    n = read_all(f->fd, dst, f->size, 0, true);
    if (n < 0) {
        snprintf(err, err_size, "cannot read %s: %s", f->name, strerror((int)-n));
        return (int)n;
    }
    if ((u64)n != f->size) {
        snprintf(err, err_size, "cannot read %s: it became shorter meanwhile", f->name);
        return -EIO;
    }
    return 0;
}

int image_load(struct image_file *f, char *err, size_t err_size)
{
    u8 *data;
    int r;

    if (f->data)
        return 0;
    data = malloc(f->size);
    if (!data) {
        snprintf(err, err_size, "%s: out of memory", f->name);
        return -ENOMEM;
    }
    r = image_copy(f, data, err, err_size);
    if (r) {
        free(data);
        return r;
    }
    f->data = data;
    return 0;
}

void image_close(struct image_file *f)
{
    free(f->data);
    f->data = NULL;
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
}
