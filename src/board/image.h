/* SPDX-License-Identifier: Apache-2.0 */
/* Files to be loaded into the guest: opened, measured, read. */
#ifndef TRIVISOR_BOARD_IMAGE_H
#define TRIVISOR_BOARD_IMAGE_H

#include "base/types.h"

struct image_file {
    const char *name; /* for messages */
    u64 size;
    u8 *data; /* the contents, or NULL: still in the file */
    int fd;   /* -1: none */
};

/* Opens path. A regular file stays where it is; anything else (a pipe) is read into memory, at most
 * limit bytes. what: "kernel", "initrd". 0, or -errno with one line in err. */
int image_file_open(struct image_file *f, const char *what, const char *path, u64 limit, char *err,
                    size_t err_size);
/* The same for a regular file that is open already; takes fd over. name is for messages, must
 * outlive f. */
int image_file_open_fd(struct image_file *f, const char *what, const char *name, int fd, u64 limit,
                       char *err, size_t err_size);
/* Brings the contents into f->data. 0, or -errno with one line in err. */
int image_load(struct image_file *f, char *err, size_t err_size);
/* Copies all of it to dst (room for f->size bytes). 0, or -errno with one line in err. */
int image_copy(const struct image_file *f, void *dst, char *err, size_t err_size);
void image_close(struct image_file *f);

#endif
