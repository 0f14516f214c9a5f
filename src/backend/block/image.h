/* SPDX-License-Identifier: Apache-2.0 */
/* Between the file that opens images and the formats. */
#ifndef TRIVISOR_BACKEND_BLOCK_IMAGE_H
#define TRIVISOR_BACKEND_BLOCK_IMAGE_H

#include "backend/block/block.h"
#include "backend/block/file.h"

/* Images in a chain of backing files; more is a mistake or an attack. */
#define IMAGE_CHAIN_MAX BLOCK_CHAIN_MAX

/* How an image is to be opened, and the images that were opened on the way to it. */
struct image_how {
    bool readonly, unsafe, no_discard;
    const struct image_how *overlay; /* the image this one is the backing file of; or NULL */
    const struct block_file *file;   /* this image's */
    unsigned depth;
    struct block_chain *given; /* its files, opened already; NULL: they are opened here */
};

/* Opens the file of the image at path, and settles what its format is. 0, or -errno with one line
 * in err and nothing to close. */
int image_open_file(struct block_file *f, const char *path, enum block_format *format,
                    struct image_how *how, char *err, size_t err_size);

/* Opens path as format (BLOCK_FORMAT_NONE: the rule of block_open). *how is filled in with the
 * file. */
struct blockdev *image_open(const char *path, enum block_format format, struct image_how *how,
                            char *err, size_t err_size);

/* The formats. They take *f over; on failure they close it: NULL and one line in err. */
struct blockdev *raw_open(struct block_file *f, const struct image_how *how, char *err,
                          size_t err_size);
struct blockdev *qcow2_open(struct block_file *f, struct image_how *how, char *err,
                            size_t err_size);

/* The backing file of a qcow2 image, which is only read: 1, and where it is, in path and format; 0:
 * it has none; -errno with one line in err. f stays the caller's. */
int qcow2_backing(const struct block_file *f, char *path, size_t size, enum block_format *format,
                  char *err, size_t err_size);

#endif
