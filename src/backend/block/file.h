/* SPDX-License-Identifier: Apache-2.0 */
/* A file or block device of the host that holds an image: opened, locked, and its plain I/O. */
#ifndef TRIVISOR_BACKEND_BLOCK_FILE_H
#define TRIVISOR_BACKEND_BLOCK_FILE_H

#include <sys/types.h>

#include "core/backend.h"

struct block_file {
    int fd;
    char *path;
    u64 size; /* bytes, when it was opened */
    dev_t dev;
    ino_t ino;
    bool device; /* a block device */
    bool readonly;
    bool unsafe;    /* block_file_sync does nothing */
    u32 failed;     /* atomic: a sync failed; nothing can be promised any more */
    u32 complained; /* atomic: an error was logged, and what failed has not worked since */
    u64 failed_at;  /* atomic: where that was */
    u64 said_ns;    /* atomic: and when, monotonic */
};

/* Opens and locks it (lock.h). 0, or -errno with one line in err and nothing to close. */
int block_file_open(struct block_file *f, const char *path, bool readonly, char *err,
                    size_t err_size);
/* Takes over fd, on which another process has done the same; nothing is locked here, for the locks
 * come with it. For a confined process. Likewise; fd is closed when it fails. */
int block_file_adopt(struct block_file *f, int fd, const char *path, bool readonly, char *err,
                     size_t err_size);
void block_file_close(struct block_file *f);

/* Reads len bytes at off into the pieces of iov, from their byte skip on. What is behind the end of
 * the file reads as zeroes. 0 or -errno as backend.h has it. */
int block_file_readv(struct block_file *f, const struct host_iov *iov, unsigned n, size_t skip,
                     size_t len, u64 off);
/* Likewise writes. */
int block_file_writev(struct block_file *f, const struct host_iov *iov, unsigned n, size_t skip,
                      size_t len, u64 off);
int block_file_read(struct block_file *f, void *buf, size_t len, u64 off);
int block_file_write(struct block_file *f, const void *buf, size_t len, u64 off);
int block_file_write_zero_bytes(struct block_file *f, u64 len, u64 off);

/* What was written is on stable storage. After a failure it fails for ever: the host may have
 * dropped what it could not write. */
int block_file_sync(struct block_file *f);

int block_file_stamp(struct block_file *f, struct block_stamp *s);

/* Gives space back; [off, off+len) reads as zeroes afterwards. On a block device too (Linux 4.9).
 * -EOPNOTSUPP: never here; -EINVAL: not this range (a block device's blocks are larger). */
int block_file_punch(struct block_file *f, u64 off, u64 len);
/* [off, off+len) reads as zeroes; its space is kept. Fails likewise. */
int block_file_zero_range(struct block_file *f, u64 off, u64 len);

/* --- pieces of memory ---------------------------------------------------------------------------
 */

/* Fills len bytes of the pieces, from their byte skip on, with zeroes. */
void iov_clear(const struct host_iov *iov, unsigned n, size_t skip, size_t len);
/* Copies buf to them. */
void iov_put(const struct host_iov *iov, unsigned n, size_t skip, const void *buf, size_t len);
/* Copies them to buf. */
void iov_get(const struct host_iov *iov, unsigned n, size_t skip, void *buf, size_t len);
/* The pieces of [skip, skip+len), cap of them at most: how many, their length in *total. */
unsigned iov_cut(const struct host_iov *iov, unsigned n, size_t skip, size_t len,
                 struct host_iov *out, unsigned cap, size_t *total);
size_t iov_total(const struct host_iov *iov, unsigned n);

#endif
