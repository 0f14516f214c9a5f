/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/block/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "backend/block/lock.h"
#include "base/bits.h"
#include "base/log.h"

/* At least so long between two messages about errors. */
#define COMPLAIN_NS 10000000000u

/* Pieces of a request handed to one system call: all that a virtio request has. */
#define IOV_BATCH 256

static int refuse(struct block_file *f, int r, char *err, size_t err_size, const char *text)
{
    snprintf(err, err_size, "disk %s: %s", f->path ? f->path : "", text ? text : strerror(-r));
    block_file_close(f);
    return r;
}

int block_file_open(struct block_file *f, const char *path, bool readonly, char *err,
                    size_t err_size)
{
    struct stat before, st;
    int r;

    *f = (struct block_file){.fd = -1, .readonly = readonly, .path = strdup(path)};
    if (!f->path)
        return refuse(f, -ENOMEM, err, err_size, NULL);
    /* Looked at first: opening some devices has effects, and an image may name any as its backing
     * file. */
    if (stat(path, &before))
        return refuse(f, -errno, err, err_size, NULL);
    if (!S_ISREG(before.st_mode) && !S_ISBLK(before.st_mode))
        return refuse(f, -EINVAL, err, err_size, "it is neither a file nor a block device");
    f->fd = open(path, (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (f->fd < 0) {
        r = -errno;
        return refuse(f, r, err, err_size,
                      !readonly && (r == -EACCES || r == -EROFS)
                          ? "it cannot be opened for writing; ,ro opens it for reading only"
                          : NULL);
    }
    if (fstat(f->fd, &st))
        return refuse(f, -errno, err, err_size, NULL);
    if (st.st_dev != before.st_dev || st.st_ino != before.st_ino)
        return refuse(f, -EINVAL, err, err_size, "it changed while it was opened");
    f->dev = st.st_dev;
    f->ino = st.st_ino;
    f->device = S_ISBLK(st.st_mode);
    f->size = (u64)st.st_size;
    if (f->device && ioctl(f->fd, BLKGETSIZE64, &f->size))
        return refuse(f, -errno, err, err_size, NULL);
    r = block_lock(f->fd, readonly);
    if (r == -EBUSY)
        return refuse(f, r, err, err_size,
                      readonly ? "somebody else is writing to it (another VM, or it is given twice)"
                               : "somebody else is using it (another VM, or it is given twice)");
    if (r)
        log_warn("disk %s: cannot be locked (%s): nothing keeps others from writing to it", path,
                 strerror(-r));
    return 0;
}

int block_file_adopt(struct block_file *f, int fd, const char *path, bool readonly, char *err,
                     size_t err_size)
{
    struct stat st;
    int flags = fcntl(fd, F_GETFL), wanted = O_RDWR;

    *f = (struct block_file){.fd = fd, .readonly = readonly, .path = strdup(path)};
    if (!f->path)
        return refuse(f, -ENOMEM, err, err_size, NULL);
    /* Not glibc's fstat: see block_file_stamp. */
    if (flags < 0 || syscall(SYS_fstat, fd, &st))
        return refuse(f, -errno, err, err_size, NULL);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return refuse(f, -EINVAL, err, err_size, "what came is neither a file nor a block device");
    if (readonly && (flags & O_ACCMODE) == O_RDONLY)
        wanted = O_RDONLY;
    /* O_DIRECT: what is read here, its format to begin with, is not aligned to anything. */
    if (flags & O_DIRECT)
        return refuse(f, -EINVAL, err, err_size, "it was opened with O_DIRECT, which is not built");
    if ((flags & O_ACCMODE) != wanted || (flags & (O_APPEND | O_PATH)))
        return refuse(f, -EINVAL, err, err_size,
                      readonly ? "it was not opened for reading"
                               : "it was not opened for reading and writing");
    f->dev = st.st_dev;
    f->ino = st.st_ino;
    f->device = S_ISBLK(st.st_mode);
    f->size = (u64)st.st_size;
    if (f->device) {
        off_t end = lseek(fd, 0, SEEK_END); /* BLKGETSIZE64 is none of a confined process's calls */

        if (end < 0)
            return refuse(f, -errno, err, err_size, NULL);
        f->size = (u64)end;
    }
    return 0;
}

void block_file_close(struct block_file *f)
{
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
    free(f->path);
    f->path = NULL;
}

static u64 now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (u64)t.tv_sec * 1000000000u + (u64)t.tv_nsec;
}

/* What a guest can be told. The rest is for people: once until it works again, and not often
 * however much the guest tries. */
static int io_error(struct block_file *f, const char *what, u64 off, int e)
{
    u64 said = __atomic_load_n(&f->said_ns, __ATOMIC_RELAXED), now = now_ns();

    if (!__atomic_exchange_n(&f->complained, 1, __ATOMIC_RELAXED)) {
        __atomic_store_n(&f->failed_at, off, __ATOMIC_RELAXED);
        if (!said || now - said >= COMPLAIN_NS) {
            __atomic_store_n(&f->said_ns, now, __ATOMIC_RELAXED);
            log_error("disk %s: cannot %s: %s", f->path, what, strerror(e));
        }
    }
    return e == ENOSPC || e == EDQUOT || e == EFBIG ? -ENOSPC : -EIO;
}

unsigned iov_cut(const struct host_iov *iov, unsigned n, size_t skip, size_t len,
                 struct host_iov *out, unsigned cap, size_t *total)
{
    unsigned k = 0;

    *total = 0;
    for (unsigned i = 0; i < n && len && k < cap; i++) {
        size_t part;

        if (skip >= iov[i].len) {
            skip -= iov[i].len;
            continue;
        }
        part = iov[i].len - skip < len ? iov[i].len - skip : len;
        out[k++] = (struct host_iov){(u8 *)iov[i].base + skip, part};
        *total += part;
        len -= part;
        skip = 0;
    }
    return k;
}

static int transfer(struct block_file *f, bool write, const struct host_iov *iov, unsigned n,
                    size_t skip, size_t len, u64 off)
{
    u64 from = off, end = off + len;

    while (len) {
        struct host_iov v[IOV_BATCH];
        const struct iovec *sv = (const struct iovec *)v;
        size_t total;
        int k = (int)iov_cut(iov, n, skip, len, v, IOV_BATCH, &total);
        ssize_t r = write ? pwritev(f->fd, sv, k, (off_t)off) : preadv(f->fd, sv, k, (off_t)off);

        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return io_error(f, write ? "write" : "read", off, errno);
        if (r == 0) {
            if (write)
                return io_error(f, "write", off, ENOSPC);
            iov_clear(iov, n, skip, len);
            return 0;
        }
        skip += (size_t)r;
        len -= (size_t)r;
        off += (u64)r;
    }
    /* On a full file system what is there already can be written: that is no news. */
    if (write && __atomic_load_n(&f->complained, __ATOMIC_RELAXED)) {
        u64 at = __atomic_load_n(&f->failed_at, __ATOMIC_RELAXED);

        if (at >= from && at < end)
            __atomic_store_n(&f->complained, 0, __ATOMIC_RELAXED);
    }
    return 0;
}

int block_file_readv(struct block_file *f, const struct host_iov *iov, unsigned n, size_t skip,
                     size_t len, u64 off)
{
    return transfer(f, false, iov, n, skip, len, off);
}

int block_file_writev(struct block_file *f, const struct host_iov *iov, unsigned n, size_t skip,
                      size_t len, u64 off)
{
    return transfer(f, true, iov, n, skip, len, off);
}

int block_file_read(struct block_file *f, void *buf, size_t len, u64 off)
{
    struct host_iov v = {buf, len};

    return transfer(f, false, &v, 1, 0, len, off);
}

int block_file_write(struct block_file *f, const void *buf, size_t len, u64 off)
{
    struct host_iov v = {(void *)(uintptr_t)buf, len};

    return transfer(f, true, &v, 1, 0, len, off);
}

int block_file_write_zero_bytes(struct block_file *f, u64 len, u64 off)
{
    static const u8 zeroes[65536];

    while (len) {
        size_t part = len < sizeof(zeroes) ? (size_t)len : sizeof(zeroes);
        int r = block_file_write(f, zeroes, part, off);

        if (r)
            return r;
        off += part;
        len -= part;
    }
    return 0;
}

int block_file_sync(struct block_file *f)
{
    int r;

    if (f->unsafe)
        return 0;
    if (__atomic_load_n(&f->failed, __ATOMIC_RELAXED))
        return -EIO;
    do
        r = fdatasync(f->fd);
    while (r && errno == EINTR);
    if (!r)
        return 0;
    __atomic_store_n(&f->failed, 1, __ATOMIC_RELAXED);
    io_error(f, "flush", UINT64_MAX, errno);
    return -EIO;
}

static int punch(struct block_file *f, int mode, u64 off, u64 len)
{
    int r;

    do
        r = fallocate(f->fd, mode, (off_t)off, (off_t)len);
    while (r && errno == EINTR);
    if (!r)
        return 0;
    if (errno == EINVAL)
        return -EINVAL;
    if (errno == EOPNOTSUPP || errno == ENOSYS || errno == ENODEV)
        return -EOPNOTSUPP;
    return io_error(f, "zero", off, errno);
}

int block_file_punch(struct block_file *f, u64 off, u64 len)
{
    return punch(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len);
}

int block_file_zero_range(struct block_file *f, u64 off, u64 len)
{
    return punch(f, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, off, len);
}

/* Walks over the pieces of [skip, skip+len): clears them (buf NULL), or copies to or from buf. */
static void walk(const struct host_iov *iov, unsigned n, size_t skip, size_t len, u8 *buf, bool get)
{
    for (unsigned i = 0; i < n && len; i++) {
        struct host_iov piece;
        size_t part;

        if (skip >= iov[i].len) {
            skip -= iov[i].len;
            continue;
        }
        iov_cut(&iov[i], 1, skip, len, &piece, 1, &part);
        if (!buf) {
            memset(piece.base, 0, part);
        } else {
            memcpy(get ? buf : piece.base, get ? piece.base : buf, part);
            buf += part;
        }
        len -= part;
        skip = 0;
    }
}

void iov_clear(const struct host_iov *iov, unsigned n, size_t skip, size_t len)
{
    walk(iov, n, skip, len, NULL, false);
}

void iov_put(const struct host_iov *iov, unsigned n, size_t skip, const void *buf, size_t len)
{
    walk(iov, n, skip, len, (u8 *)(uintptr_t)buf, false);
}

void iov_get(const struct host_iov *iov, unsigned n, size_t skip, void *buf, size_t len)
{
    walk(iov, n, skip, len, buf, true);
}

size_t iov_total(const struct host_iov *iov, unsigned n)
{
    size_t total = 0;

    for (unsigned i = 0; i < n; i++)
        total += iov[i].len;
    return total;
}

int block_file_stamp(struct block_file *f, struct block_stamp *s)
{
    struct stat st;

    /* Not glibc's fstat, which a confined process may not call (newfstatat). */
    if (syscall(SYS_fstat, f->fd, &st))
        return -errno;
    *s = (struct block_stamp){.device = S_ISBLK(st.st_mode),
                              .size = (u64)st.st_size,
                              .changed_ns =
                                  (u64)st.st_mtim.tv_sec * 1000000000u + (u64)st.st_mtim.tv_nsec};
    return 0;
}
