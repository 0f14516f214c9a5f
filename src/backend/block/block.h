/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks: raw files, block devices and qcow2 images behind struct blockdev (core/backend.h).
 *
 * Everything a disk will ever need is opened by block_open, backing files too; from then on only
 * preadv, pwritev, fdatasync and fallocate are called on the descriptors, and locks and memory are
 * taken. Images are not trusted: whatever is in them ends in a refusal in one
 * line or in I/O errors.
 */
#ifndef TRIVISOR_BACKEND_BLOCK_BLOCK_H
#define TRIVISOR_BACKEND_BLOCK_BLOCK_H

#include "core/backend.h"

#define BLOCK_PATH_MAX 4096
#define BLOCK_ID_MAX 32
#define BLOCK_SERIAL_MAX 20 /* virtio 1.2 5.2.6: the device ID string */
#define BLOCK_QUEUES_MAX 16

enum block_format { BLOCK_FORMAT_NONE, BLOCK_FORMAT_RAW, BLOCK_FORMAT_QCOW2 };

/* A disk as --disk describes it. */
struct block_spec {
    char path[BLOCK_PATH_MAX];
    enum block_format format; /* BLOCK_FORMAT_NONE: not given */
    bool readonly;
    bool unsafe;     /* flushes do nothing */
    bool no_discard; /* discards do nothing */
    char id[BLOCK_ID_MAX + 1];
    char serial[BLOCK_SERIAL_MAX + 1];
    unsigned queues; /* 0: not given */
    bool no_doorbell, no_irqfd;
};

/*
 * Parses PATH[,format=raw|qcow2][,ro][,id=NAME][,serial=TEXT][,cache=writeback|unsafe]
 * [,discard=on|off][,queues=N][,doorbell=on|off][,irqfd=on|off]; commas in values are doubled. 0,
 * or -EINVAL with one line in err.
 */
int block_spec_parse(const char *text, struct block_spec *spec, char *err, size_t err_size);

/* The same text with its path as seen from elsewhere: a relative one begins at dir. To be freed;
 * NULL: out of memory, or it is no such text. */
char *block_spec_from(const char *text, const char *dir);

/*
 * Opens a disk. Without a format the name decides: an image named *.qcow2 must be qcow2, any other
 * one is raw and must not begin like an image of a format with metadata. So a guest that writes a
 * qcow2 header to its raw disk gets the disk refused the next time, never interpreted.
 *
 * The image is locked against other writers (and readers, when it is writable) by byte-range locks
 * that QEMU's tools understand. NULL with one line in err when it cannot be had. To be freed by
 * ops->close, after all calls have returned.
 */
struct blockdev *block_open(const struct block_spec *spec, char *err, size_t err_size);

/* --- a disk that one process opens and another one, which is confined, uses --- */

/* Images in a chain of backing files; more is a mistake or an attack. */
#define BLOCK_CHAIN_MAX 32

/* Descriptors of an image, of its backing file, of that one's and so on. -1: none. */
struct block_chain {
    int fd[BLOCK_CHAIN_MAX];
    unsigned n;
};

/*
 * Opens and locks the files that block_open would, and reads of them just what it takes to find
 * them. The locks belong to the descriptors and stay as long as any copy of them is open, whoever
 * holds it. 0, or -errno with one line in err and nothing to close.
 */
int block_chain_open(const struct block_spec *spec, struct block_chain *c, char *err,
                     size_t err_size);
void block_chain_close(struct block_chain *c);

/* As block_open, with the files of *c, which are exactly the disk's; those it takes over, or
 * closes, are -1 afterwards. */
struct blockdev *block_adopt(const struct block_spec *spec, struct block_chain *c, char *err,
                             size_t err_size);

#endif
